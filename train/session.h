#pragma once
#include <functional>

#include "../data/stories.h"
#include "evaluate.h"
#include "run.h"

namespace rapt::inline RAPT_ABI {

struct SessionOptions {
  std::filesystem::path folder;       ///< the run's; made when missing
  int64_t stop_at = 0;                ///< save and stop after this step, to be resumed later; 0: at the end
  std::function<bool()> interrupted;  ///< asked after every step; true: save and stop
};

/// Trains a run to its last step: progress on standard output, the folder filled with config.json, log.jsonl and
/// checkpoints, a sample at the end. Returns false when it was stopped before. A checkpoint or a line of the log that
/// fails on the way is reported and training goes on; the last one throws. Throws DivergedError; the last good
/// checkpoint is then kept, and the step that went wrong as well, see OneStep.
bool train_session(Run& run, const Text& text, const SessionOptions& options);

/// What the built-in corpus can tell about a model: the least loss that can be expected on the validation split, and
/// how often the stories it writes repeat their own facts rightly.
double stories_entropy(const RunConfig& config);
RecallScore stories_recall(const Run& run, int64_t characters);

/// The tokens of a prompt; for an empty one a newline, or whatever token there is.
std::vector<int32_t> prompt_tokens(const Run& run, const std::string& prompt);
/// The prompt and what the run's model makes of it.
std::string sample_text(const Run& run, const std::string& prompt, int64_t tokens, double temperature, uint64_t seed);

}  // namespace rapt::inline RAPT_ABI

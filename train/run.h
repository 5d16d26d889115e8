#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "../data/formats/checkpoint_folder.h"
#include "../data/text.h"
#include "../data/tokenizer.h"
#include "../optim/optimizer.h"
#include "config.h"

namespace rapt::inline RAPT_ABI {

/// What a run is made of: its configuration, tokenizer, model and optimizer, and how far it has come. A run's folder
/// holds config.json, log.jsonl and checkpoints; a checkpoint holds all of this and not one byte that depends on the
/// machine, the folder, the clock or the number of threads.
struct Run {
  RunConfig config;
  Tokenizer tokenizer;
  Gpt model;
  std::unique_ptr<Optimizer> optimizer;
  int64_t step = 0;
  double best_loss = std::numeric_limits<double>::infinity();  ///< lowest validation loss so far
  uint64_t text_hash = 0;                                      ///< of the text it was trained on
  std::vector<std::string> notes;                              ///< what loading had to say

  /// A new run; weights are drawn from the seed.
  Run(const RunConfig& config, Tokenizer tokenizer);

  /// The run as its last good checkpoint has it (notes say which were skipped, and why), with what `adjust` changes in
  /// the configuration before model and optimizer are made from it. Throws DataError when there is none, or when it
  /// doesn't fit, such as one copied from a run of another configuration.
  static Run load(const std::filesystem::path& folder, const std::function<void(RunConfig&)>& adjust = {});
  /// Writes a checkpoint. Throws DataError, or DivergedError when a weight is not finite; everything that was there is
  /// then still in place.
  void save(CheckpointFolder& folder, bool best);
};

/// The configuration in a run's config.json. Throws DataError.
RunConfig load_config(const std::filesystem::path& path);

/// The text that a run names in its configuration: the file, or the built-in corpus. Throws DataError.
Text run_text(const RunConfig& config);

/// The size of the built-in corpus in bytes, and the seed that generates it.
inline constexpr int64_t kStoriesBytes = 1'000'000;
inline constexpr uint64_t kStoriesSeed = 1;
/// The share of the tokens, at the end of the text, that is for validation.
inline constexpr double kValidationFraction = 0.1;

}  // namespace rapt::inline RAPT_ABI

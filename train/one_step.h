#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "run.h"
#include "trainer.h"

namespace rapt::inline RAPT_ABI {

/// The training batches of a configuration, from the part of the text that is for training.
TrainBatches train_batches(const RunConfig& config, TokenSpan train);
/// What a run's trainer is made with, but for the learning rate. The run must outlive it.
TrainerOptions trainer_options(const Run& run, std::function<Batch(int64_t step, int64_t micro)> batch);

/// One training step with all that decides it: a run's configuration and weights, the number of steps before it (from
/// which its random numbers follow), and its batches.
struct OneStep {
  Run run;                     ///< run.step: steps done before
  std::vector<Batch> batches;  ///< one for each that is accumulated

  /// From a file that save_step wrote, or the step that would come next in a run's folder. Throws DataError.
  static OneStep load(const std::filesystem::path& path);
  /// Its forward and backward passes; the gradients are left in the model's parameters.
  StepGradients gradients() const;
};

/// Writes the run's next step to `folder`/step-00000041.safetensors: weights as "model.…", batches as "batch.0.x" and
/// "batch.0.y" with their token ids, and in the metadata the configuration, the tokenizer and the number of steps done
/// before. It needs neither the text nor the checkpoints to be repeated. Gives the path. Throws DataError.
std::filesystem::path save_step(const std::filesystem::path& folder, const Run& run, const TrainBatches& batches);

}  // namespace rapt::inline RAPT_ABI

#pragma once
#include <functional>
#include <optional>

#include "../data/batches.h"
#include "../nn/module.h"
#include "../optim/optimizer.h"
#include "../optim/schedule.h"

namespace rapt::inline RAPT_ABI {

/// Training went wrong beyond repair: a loss or gradient that is not finite.
struct DivergedError : Error {
  using Error::Error;
};

struct TrainerOptions {
  int64_t accumulate = 1;  ///< batches whose gradients are averaged before a step
  double clip = 1;         ///< largest global norm of the gradient; 0: no clipping
  uint64_t seed = 1;       ///< of the random numbers that forward passes draw (dropout)
  /// The learning rate of a step: a pure function, so that a run resumes anywhere.
  std::function<double(int64_t step)> learning_rate;
  /// The data: also a pure function of the step and the batch's place in it. TrainBatches is one; any other will do.
  std::function<Batch(int64_t step, int64_t micro_step)> batch;
  /// What is minimised, a scalar: such as the model's loss on the batch.
  std::function<Tensor(const Batch&)> loss;
  /// Called when the gradients of a step are complete, before they are clipped and used: to look at them or change
  /// them.
  std::function<void(int64_t step)> after_backward = {};
};

/// The forward and backward passes of one step.
struct StepGradients {
  double loss = 0;     ///< averaged over the batches
  int64_t tokens = 0;  ///< targets
};
/// Adds the gradients of step `step` to what the parameters hold: a function of the options, the step and the weights.
StepGradients step_gradients(const TrainerOptions& options, int64_t step);
/// Which weight, or else which gradient, is not finite, in words.
std::string first_not_finite(const std::vector<NamedTensor>& parameters);

/// What one step did.
struct StepReport {
  int64_t step = 0;  ///< steps done, this one included
  double loss = 0;   ///< before the update, averaged over the batches
  double learning_rate = 0;
  double gradient_norm = 0;  ///< before clipping
  int64_t tokens = 0;        ///< targets of the step
  double seconds = 0;
};

/// The training loop: forward, backward, clip, update. Everything a step does depends on its number alone and on the
/// state of model and optimizer, so 2N steps are N steps, a stop, and N more, bit for bit.
class Trainer {
 public:
  /// The parameters must be those the optimizer updates. `first_step`: steps done before, when resuming.
  Trainer(std::vector<NamedTensor> parameters, Optimizer& optimizer, TrainerOptions options, int64_t first_step = 0);

  /// One optimizer step. Throws DivergedError, with the weights as they were before it, when the loss or a gradient is
  /// not finite.
  StepReport step();
  /// Steps until `steps` are done in all, or `after_step` says false.
  void run(int64_t steps, const std::function<bool(const StepReport&)>& after_step);

  int64_t steps_done() const { return done_; }

 private:
  std::vector<NamedTensor> parameters_;
  Optimizer& optimizer_;
  TrainerOptions options_;
  int64_t done_ = 0;
};

}  // namespace rapt::inline RAPT_ABI

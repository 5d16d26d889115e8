#include "trainer.h"

#include <chrono>
#include <cmath>

#include "../core/random.h"
#include "../optim/clip.h"
#include "../watch/check_finite.h"

namespace rapt::inline RAPT_ABI {

// With the group of parameters it belongs to. A weight before a gradient: it spoils them all.
std::string first_not_finite(const std::vector<NamedTensor>& parameters) {
  auto group = [](const NamedTensor& p) { return p.tensor.rank() >= 2 ? "matrices" : "vectors"; };
  for (const NamedTensor& p : parameters) {
    if (!all_finite(p.tensor)) return fmt::format("the weight {} (of the {}) is not finite", p.name, group(p));
  }
  for (const NamedTensor& p : parameters) {
    if (!all_finite(gradient(p.tensor))) {
      return fmt::format("the gradient of {} (of the {}) is not finite", p.name, group(p));
    }
  }
  return "all weights and gradients are finite";
}

StepGradients step_gradients(const TrainerOptions& options, int64_t step) {
  StepGradients result;
  for (int64_t micro = 0; micro < options.accumulate; ++micro) {
    manual_seed(mix_seed(options.seed, uint64_t(step)), uint64_t(micro) << 32);
    Batch batch = options.batch(step, micro);
    Tensor loss = options.loss(batch);
    result.loss += double(loss.item()) / double(options.accumulate);
    result.tokens += batch.y.numel();
    backward(loss, full(loss.shape, Real(1.0 / double(options.accumulate))));
  }
  return result;
}

Trainer::Trainer(std::vector<NamedTensor> parameters, Optimizer& optimizer, TrainerOptions options, int64_t first_step)
    : parameters_(std::move(parameters)), optimizer_(optimizer), options_(std::move(options)), done_(first_step) {
  check(options_.accumulate >= 1, "trainer: accumulate must be at least 1, got {}", options_.accumulate);
  check(options_.learning_rate && options_.batch && options_.loss,
        "trainer: learning_rate, batch and loss must be given");
}

StepReport Trainer::step() {
  auto start = std::chrono::steady_clock::now();
  StepReport report;
  report.learning_rate = options_.learning_rate(done_);
  auto diverged = [&](const std::string& what) {
    std::string broken = first_not_finite(parameters_);
    for (const NamedTensor& p : parameters_) set_gradient(p.tensor, {});
    throw DivergedError(fmt::format("training diverged at step {}: {}; {}", done_ + 1, what, broken));
  };
  try {
    StepGradients gradients = step_gradients(options_, done_);
    report.loss = gradients.loss;
    report.tokens = gradients.tokens;
  } catch (const NotFiniteError& error) {
    diverged(error.what());
  }
  if (!std::isfinite(report.loss)) diverged(fmt::format("the loss is {}", report.loss));
  if (options_.after_backward) options_.after_backward(done_);
  try {
    report.gradient_norm = clip_gradient_norm(parameters_, options_.clip > 0 ? options_.clip : INFINITY);
  } catch (const Error& error) {
    diverged(error.what());
  }
  optimizer_.set_learning_rate(report.learning_rate);
  optimizer_.step();
  optimizer_.zero_gradients();
  report.step = ++done_;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

void Trainer::run(int64_t steps, const std::function<bool(const StepReport&)>& after_step) {
  while (done_ < steps && after_step(step())) {}
}

}  // namespace rapt::inline RAPT_ABI

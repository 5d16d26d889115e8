#include <cmath>

#include "../../core/parallel.h"
#include "../../optim/clip.h"
#include "../one_step.h"
#include "watching.h"

namespace rapt::cli {

namespace {

struct ReplayArguments {
  std::string step;
  WatchFlags watch;
  int threads = 0;
};

int replay(const ReplayArguments& a) {
  if (a.threads > 0) set_threads(a.threads);
  OneStep step = OneStep::load(a.step);
  for (const std::string& note : step.run.notes) fmt::print(stderr, "rapt: {}\n", note);
  fmt::print("step {}, forward and backward\n", step.run.step + 1);
  std::fflush(stdout);
  Watching watching(a.watch);
  StepGradients result = step.gradients();
  const std::vector<NamedTensor>& parameters = step.run.model.parameters();
  check<DivergedError>(std::isfinite(result.loss), "the loss is {}; {}", result.loss, first_not_finite(parameters));
  double norm = 0;
  try {
    norm = clip_gradient_norm(parameters, INFINITY);
  } catch (const Error& error) {
    throw DivergedError(
        fmt::format("the loss is {:.6f}; {}; {}", result.loss, error.what(), first_not_finite(parameters)));
  }
  fmt::print("loss {:.6f}, gradient norm {:.6f}, {} tokens: all finite\n", result.loss, norm, result.tokens);
  return kDone;
}

}  // namespace

Command replay_command(CLI::App& program) {
  auto arguments = std::make_shared<ReplayArguments>();
  ReplayArguments& a = *arguments;
  CLI::App* app = program.add_subcommand("replay", "Repeat a training step that diverged");
  app->add_option("step", a.step, "the file that training kept of it, or a run's folder: the step that would come next")
      ->required();
  a.watch.add_to(*app);
  app->add_option("--threads", a.threads, "threads to compute with")->check(positive())->default_str("all cores");
  return {app, [arguments] { return replay(*arguments); }};
}

}  // namespace rapt::cli

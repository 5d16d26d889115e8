#include "../../core/parallel.h"
#include "../generate.h"
#include "../session.h"
#include "watching.h"

namespace rapt::cli {

namespace {

struct SampleArguments {
  std::string run, prompt;
  SamplingOptions options;
  WatchFlags watch;
  int threads = 0;
};

int sample(const SampleArguments& a) {
  const SamplingOptions& o = a.options;
  check<UsageError>(o.top_p > 0 && o.top_p <= 1, "--top-p: must be above 0 and at most 1, got {}", o.top_p);
  if (a.threads > 0) set_threads(a.threads);
  Watching watching(a.watch);
  Run run = Run::load(a.run);
  for (const std::string& note : run.notes) fmt::print(stderr, "rapt: {}\n", note);
  std::vector<int32_t> prompt = prompt_tokens(run, a.prompt);
  Utf8Stream text;
  auto print = [&](const std::string& piece) {
    bool written = std::fputs(piece.c_str(), stdout) >= 0 && std::fflush(stdout) == 0;
    check(written, "sample: standard output can't be written");
  };
  print(a.prompt);
  generate(run.model, prompt, o, [&](int32_t id) {
    print(text.push(run.tokenizer.decode(std::span(&id, 1))));
    return true;
  });
  print(text.finish() + "\n");
  return kDone;
}

}  // namespace

Command sample_command(CLI::App& program) {
  auto arguments = std::make_shared<SampleArguments>();
  SampleArguments& a = *arguments;
  CLI::App* app = program.add_subcommand("sample", "Print text that a trained model writes");
  app->add_option("run", a.run, "the run's folder")->required();
  app->add_option("--prompt", a.prompt, "text to continue");
  app->add_option("--tokens", a.options.tokens, "how many tokens to write")
      ->check(not_negative())
      ->capture_default_str();
  app->add_option("--temperature", a.options.temperature,
                  "below 1: surer, above: wilder; 0: always the likeliest token")
      ->check(not_negative())
      ->capture_default_str();
  app->add_option("--top-k", a.options.top_k, "choose among the k likeliest tokens; 0: all")
      ->check(not_negative())
      ->capture_default_str();
  app->add_option("--top-p", a.options.top_p, "choose among the likeliest tokens of this probability together")
      ->capture_default_str();
  app->add_option("--seed", a.options.seed, "of the draws")->capture_default_str();
  a.watch.add_to(*app);
  app->add_option("--threads", a.threads, "threads to compute with")->check(positive())->default_str("all cores");
  return {app, [arguments] { return sample(*arguments); }};
}

}  // namespace rapt::cli

#include <nlohmann/json.hpp>

#include "../../core/parallel.h"
#include "../../data/formats/json.h"
#include "../session.h"
#include "watching.h"

namespace rapt::cli {

namespace {

struct EvalArguments {
  std::string run, text;
  bool json = false;
  WatchFlags watch;
  int threads = 0;
};

int eval(const EvalArguments& a) {
  if (a.threads > 0) set_threads(a.threads);
  Watching watching(a.watch);
  Run run = Run::load(a.run);
  for (const std::string& note : run.notes) fmt::print(stderr, "rapt: {}\n", note);
  const RunConfig& c = run.config;
  Text text = a.text.empty() ? run_text(c) : Text::open(a.text);
  TokenStream tokens(run.tokenizer, text.view());
  // a text of its own is evaluated whole, the run's on the part it was not trained on
  TokenSpan part = tokens.span();
  if (a.text.empty()) part = split_tokens(part, kValidationFraction, c.context).validation;
  check<DataError>(part.size >= 2, "{}: at least two tokens are needed, it has {}", text.name(), part.size);
  int64_t windows = std::max<int64_t>(1, 2048 / c.context);
  Evaluation e = evaluate(run.model, {part, windows, c.context, 0}, run.tokenizer);
  if (a.json) {
    OrderedJson json{{"loss", e.loss}, {"bits_per_byte", e.bits_per_byte}, {"tokens", e.tokens}};
    fmt::print("{}\n", to_json_text(json));
    return kDone;
  }
  fmt::print("{}, {}: loss {:.4f} nats per token, {:.4f} bits per byte, {} tokens\n", text.name(),
             a.text.empty() ? "validation split" : "whole text", e.loss, e.bits_per_byte, e.tokens);
  if (a.text.empty() && c.text.empty()) {
    RecallScore recall = stories_recall(run, 20'000);
    fmt::print("at best {:.4f}; recall {:.1f} % of {} facts\n", stories_entropy(c), 100 * recall.value(), recall.total);
  }
  return kDone;
}

}  // namespace

Command eval_command(CLI::App& program) {
  auto arguments = std::make_shared<EvalArguments>();
  EvalArguments& a = *arguments;
  CLI::App* app = program.add_subcommand("eval", "Measure how well a trained model predicts a text");
  app->add_option("run", a.run, "the run's folder")->required();
  app->add_option("text", a.text,
                  "UTF-8 text file, evaluated whole; without one, the validation split of the run's own text");
  app->add_flag("--json", a.json, "print one JSON object: loss, bits_per_byte, tokens");
  a.watch.add_to(*app);
  app->add_option("--threads", a.threads, "threads to compute with")->check(positive())->default_str("all cores");
  return {app, [arguments] { return eval(*arguments); }};
}

}  // namespace rapt::cli

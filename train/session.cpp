#include "session.h"

#include <cmath>

#include "../core/random.h"
#include "generate.h"
#include "one_step.h"
#include "report.h"

namespace rapt::inline RAPT_ABI {

namespace {

constexpr int64_t kSampleTokens = 400;
constexpr int64_t kRecallCharacters = 20'000;

Schedule schedule_of(const RunConfig& c) {
  return {.kind = schedule_kind(c.schedule), .peak = c.lr, .minimum = c.min_lr, .warmup = c.warmup, .steps = c.steps};
}

std::string loss_text(const RunConfig& config, const Evaluation& e) {
  return fmt::format("{:.4f} nats per {}, {:.3f} bits per byte", e.loss,
                     config.tokenizer == "characters" ? "character" : "byte", e.bits_per_byte);
}

// Everything of a session that steps share.
class Session {
 public:
  Session(Run& run, const Text& text, const SessionOptions& options)
      : run_(run), options_(options), tokens_(run.tokenizer, text.view()) {
    const RunConfig& c = run.config;
    Split split = split_tokens(tokens_.span(), kValidationFraction, c.context);
    train_ = train_batches(c, split.train);
    // the batch has no influence on the result: as many windows as make good products
    int64_t windows = std::max<int64_t>(1, 2048 / c.context);
    int64_t sampled = c.eval_batches > 0 ? c.eval_batches * c.batch : 0;
    validation_ = {split.validation, windows, c.context, sampled};
    folder_.emplace(options.folder);  // made only now that there is something to train
  }

  bool train() {
    const RunConfig& c = run_.config;
    write_file(options_.folder / "config.json", to_json(c) + "\n");
    RunLog log(options_.folder / "log.jsonl", run_.step);
    log_ = &log;
    Progress progress(run_.step, c.steps);
    progress_ = &progress;
    for (const std::string& note : std::exchange(run_.notes, {})) progress.line(note);
    if (c.text.empty()) {
      floor_ = stories_entropy(c);
      progress.line(fmt::format("the stories have {:.4f} nats per character: no validation loss can go below", floor_));
    }
    TrainerOptions options = trainer_options(run_, [this](int64_t s, int64_t micro) { return train_.batch(s, micro); });
    options.learning_rate = [schedule = schedule_of(c)](int64_t s) { return learning_rate(schedule, s); };
    Trainer trainer(run_.model.parameters(), *run_.optimizer, options, run_.step);
    bool stopped = false;
    try {
      trainer.run(c.steps, [&](const StepReport& report) {
        run_.step = report.step;
        progress.step(report);
        stopped = report.step < c.steps &&
                  (report.step == options_.stop_at || (options_.interrupted && options_.interrupted()));
        after_step(report, stopped || report.step == c.steps);
        return !stopped;
      });
    } catch (const DivergedError& error) {
      throw DivergedError(error.what() + keep_step());
    }
    if (stopped) {
      progress.line(fmt::format("stopped and saved at step {} of {}; go on with: rapt train --resume {}", run_.step,
                                c.steps, options_.folder.string()));
      return false;
    }
    finish();
    return true;
  }

 private:
  void after_step(const StepReport& report, bool last) {
    const RunConfig& c = run_.config;
    std::optional<double> validation_loss;
    bool ended = report.step == c.steps;
    if (ended || (c.eval_every > 0 && report.step % c.eval_every == 0)) {
      Evaluation e = evaluate(run_.model, validation_, run_.tokenizer);
      if (!std::isfinite(e.loss)) {
        throw DivergedError(fmt::format("training diverged at step {}: the validation loss is {}; {}", report.step,
                                        e.loss, first_not_finite(run_.model.parameters())));
      }
      validation_loss = e.loss;
      progress_->line(fmt::format("step {:>{}}  validation loss {}{}", report.step, std::to_string(c.steps).size(),
                                  loss_text(c, e), floor_ > 0 ? fmt::format(" ({:.4f} at best)", floor_) : ""));
    }
    std::string warning = log_->write(report, progress_->tokens_per_second(), validation_loss);
    if (!warning.empty()) progress_->line(warning);
    if (validation_loss || last) save(validation_loss, last);
    if (!ended && c.sample_every > 0 && report.step % c.sample_every == 0) print_sample(kSampleTokens / 2);
  }

  void save(std::optional<double> validation_loss, bool last) {
    bool best = validation_loss && *validation_loss < run_.best_loss;
    if (best) run_.best_loss = *validation_loss;
    try {
      run_.save(*folder_, best);
    } catch (const DataError& error) {
      if (last) throw;
      progress_->line(fmt::format("warning: no checkpoint at step {}, training goes on: {}", run_.step, error.what()));
    }
    for (const std::string& note : std::exchange(run_.notes, {})) progress_->line(note);
  }

  // The step that diverged, for later; in words.
  std::string keep_step() {
    try {
      std::string path = save_step(options_.folder, run_, train_).string();
      return fmt::format("\nthe step is kept in {}; repeat it with: rapt replay {}", path, path);
    } catch (const Error& error) {
      return fmt::format("\nthe step could not be kept: {}", error.what());
    }
  }

  void print_sample(int64_t tokens) {
    progress_->line(fmt::format("\n{}\n", sample_text(run_, "", tokens, 0.8, uint64_t(run_.config.seed))));
  }

  void finish() {
    print_sample(kSampleTokens);
    if (run_.config.text.empty()) {
      RecallScore recall = stories_recall(run_, kRecallCharacters);
      progress_->line(fmt::format("recall: {:.1f} % of {} facts that its stories repeat are right",
                                  100 * recall.value(), recall.total));
    }
    std::string folder = options_.folder.string();
    progress_->line(
        fmt::format("saved in {}: checkpoints, config.json, log.jsonl\ncontinue with: rapt sample {} --prompt \"…\"",
                    folder, folder));
  }

  Run& run_;
  const SessionOptions& options_;
  std::optional<CheckpointFolder> folder_;
  TokenStream tokens_;
  TrainBatches train_;
  ValidationBatches validation_;
  RunLog* log_ = nullptr;
  Progress* progress_ = nullptr;
  double floor_ = 0;
};

}  // namespace

bool train_session(Run& run, const Text& text, const SessionOptions& options) {
  return Session(run, text, options).train();
}

double stories_entropy(const RunConfig& config) {
  Stories stories = make_stories(kStoriesSeed, kStoriesBytes);
  auto size = int64_t(stories.text.size());
  int64_t train = size - int64_t(double(size) * kValidationFraction);
  return stories.entropy_per_character(train, size, config.context);
}

RecallScore stories_recall(const Run& run, int64_t characters) {
  return score_recall(
      sample_text(run, "", characters, SamplingOptions{}.temperature, mix_seed(uint64_t(run.config.seed), 1)));
}

std::vector<int32_t> prompt_tokens(const Run& run, const std::string& prompt) {
  if (!prompt.empty()) return run.tokenizer.encode(prompt);
  try {
    return run.tokenizer.encode("\n");  // as at the beginning of a line
  } catch (const DataError&) {
    return {0};
  }
}

std::string sample_text(const Run& run, const std::string& prompt, int64_t tokens, double temperature, uint64_t seed) {
  std::vector<int32_t> ids = run.tokenizer.encode(prompt);
  SamplingOptions options{.tokens = tokens, .temperature = temperature, .seed = seed};
  generate(run.model, prompt_tokens(run, prompt), options, [&](int32_t id) {
    ids.push_back(id);
    return true;
  });
  return run.tokenizer.decode(ids);
}

}  // namespace rapt::inline RAPT_ABI

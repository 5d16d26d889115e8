#include <csignal>
#include <filesystem>

#include "../../core/parallel.h"
#include "../report.h"
#include "../session.h"
#include "watching.h"

namespace rapt::cli {

namespace {

namespace fs = std::filesystem;

volatile std::sig_atomic_t interrupts = 0;

// The first signal asks for a stop after the step, the second ends the program at once.
void on_signal(int signal) {
  interrupts = 1;
  std::signal(signal, SIG_DFL);
}

struct TrainArguments {
  RunConfig config;
  std::vector<std::pair<std::string, CLI::Option*>> flags;  // which of the configuration were given
  std::string text, out, resume;
  CLI::Option* resume_option = nullptr;
  int64_t stop_at = 0;
  WatchFlags watch;
  int threads = 0;
  bool list_attention = false, list_specs = false;
};

bool holds_run(const fs::path& folder) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (checkpoint_step(entry.path().filename().string())) return true;
  }
  return false;
}

// The file of somebody else that a run in this folder would replace, or nothing. A run that ended before its first
// checkpoint has left its config.json, which shows that the log is its own.
std::string foreign_file(const fs::path& folder) {
  std::error_code error;
  auto exists = [&](const fs::path& path) { return fs::exists(fs::symlink_status(path, error)); };
  if (fs::path path = folder / "config.json"; exists(path)) {
    try {
      load_config(path);
      return "";
    } catch (const DataError&) {
      return path.string();
    }
  }
  for (const char* name : {"log.jsonl", "LATEST", "BEST"}) {
    if (exists(folder / name)) return (folder / name).string();
  }
  return "";
}

std::string default_name(const std::string& text) {
  return "runs/" + (text.empty() ? std::string("stories") : fs::path(text).stem().string());
}

// A folder nobody has trained in yet.
fs::path new_folder(const TrainArguments& a) {
  if (!a.out.empty()) {
    check<UsageError>(!holds_run(a.out), "--out: {} holds a run already; resume it with --resume {}, or choose another",
                      a.out, a.out);
    std::string foreign = foreign_file(a.out);
    check<UsageError>(foreign.empty(), "--out: {} is not of a run of rapt and would be replaced; choose another folder",
                      foreign);
    return a.out;
  }
  std::string name = default_name(a.text);
  fs::path folder = name;
  for (int i = 2; holds_run(folder) || !foreign_file(folder).empty(); ++i) folder = fmt::format("{}-{}", name, i);
  return folder;
}

// What was given on the command line replaces what the run had; what the model is made of can't change.
void apply_flags(const TrainArguments& a, RunConfig& config) {
  auto given = [&](const std::string& name) {
    for (const auto& [flag, option] : a.flags) {
      if (flag == name) return option->count() > 0;
    }
    return false;
  };
  std::string conflicts;
  visit_fields(
      [&](const ConfigField& field, auto& own, const auto& wanted) {
        if (!given(field.name)) return;
        if (field.of_model && own != wanted) {
          conflicts += fmt::format("\n  --{} {} (the run has {})", field.name, wanted, own);
        }
        own = wanted;
      },
      config, a.config);
  check<UsageError>(conflicts.empty(), "--resume: these can't change in a run:{}", conflicts);
  if (given("lr") && !given("min-lr")) config.min_lr = -1;  // what the run had went with its own lr
  config = resolved(config);
  check_config(config);
}

int resume(TrainArguments& a, SessionOptions& session) {
  fs::path folder = !a.resume.empty() ? a.resume : !a.out.empty() ? a.out : default_name(a.text);
  Run run = Run::load(folder, [&](RunConfig& config) {
    apply_flags(a, config);
    if (!a.text.empty()) config.text = a.text;
  });
  Text text = a.text.empty() ? run_text(run.config) : Text::open(a.text);
  if (text.hash() != run.text_hash) {
    run.notes.push_back(fmt::format("warning: {} is not the text this run was trained on so far", text.name()));
    run.text_hash = text.hash();
  }
  session.folder = folder;
  if (run.step >= run.config.steps) {
    fmt::print("{} has all its {} steps; give more with --steps\n", folder.string(), run.step);
    return kDone;
  }
  fmt::print("resuming {} at step {} of {}\n", folder.string(), run.step, run.config.steps);
  return train_session(run, text, session) ? kDone : kInterrupted;
}

int start(TrainArguments& a, SessionOptions& session) {
  a.config.text = a.text;
  check_memory(a.config);
  check_config(a.config);
  session.folder = new_folder(a);
  Text text = a.text.empty() ? run_text(a.config) : Text::open(a.text);
  Run run(a.config, make_tokenizer(a.config.tokenizer, text.view()));
  run.text_hash = text.hash();
  fmt::print("{}, {}B; {} {}; a model of {} parameters; {} threads; into {}\n", text.name(),
             short_number(double(text.size())), run.tokenizer.vocabulary_size(), run.tokenizer.kind(),
             short_number(double(run.model.parameter_count())), threads(), session.folder.string());
  return train_session(run, text, session) ? kDone : kInterrupted;
}

int train(TrainArguments& a) {
  if (a.list_attention) {
    fmt::print("{}", describe_attention_words());
    return kDone;
  }
  if (a.list_specs) {
    for (const std::string& spec : example_specs()) fmt::print("{}\n", spec);
    return kDone;
  }
  // --resume takes an optional folder, so a text behind it lands there
  if (a.text.empty() && fs::is_regular_file(a.resume)) std::swap(a.text, a.resume);
  if (a.threads > 0) set_threads(a.threads);
  Watching watching(a.watch);
  SessionOptions session;
  session.stop_at = a.stop_at;
  session.interrupted = [] { return interrupts != 0; };
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  return a.resume_option->count() > 0 ? resume(a, session) : start(a, session);
}

}  // namespace

Command train_command(CLI::App& program) {
  auto arguments = std::make_shared<TrainArguments>();
  TrainArguments& a = *arguments;
  CLI::App* app = program.add_subcommand("train", "Train a GPT on a text; without one, on the built-in stories");
  app->add_option("text", a.text, "UTF-8 text file");
  auto add_flag = [&](const ConfigField& field, auto& value) {
    CLI::Option* option;
    std::string flag = std::string("--") + field.name;
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, bool>) {
      option = app->add_flag(flag, value, field.help);
    } else {
      option = app->add_option(flag, value, field.help)->capture_default_str();
      if constexpr (std::is_same_v<std::decay_t<decltype(value)>, int64_t>) option->check(whole_number());
    }
    a.flags.emplace_back(field.name, option);
  };
  visit_fields(add_flag, a.config);
  app->add_flag("--list-attention", a.list_attention, "explain the words of --attention, and stop");
  app->add_flag("--list-attention-specs", a.list_specs,
                "one specification for each of the words, a line each; and stop");
  a.watch.add_to(*app);
  app->add_option("--threads", a.threads, "threads to compute with (results do not depend on it)")
      ->check(positive())
      ->default_str("all cores");
  app->add_option("--out", a.out, "folder for checkpoints, configuration and log")->default_str("runs/<text>");
  a.resume_option =
      app->add_option("--resume", a.resume, "go on with the run in this folder (or in --out)")->expected(0, 1);
  app->add_option("--stop-at", a.stop_at, "save and stop after this step, as an interrupt would; --resume goes on")
      ->check(positive());
  return {app, [arguments] { return train(*arguments); }};
}

}  // namespace rapt::cli

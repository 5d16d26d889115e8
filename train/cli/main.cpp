#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>

#include "../../core/gemm.h"
#include "../../core/parallel.h"
#include "../../core/version.h"
#include "../../watch/check_finite.h"
#include "../trainer.h"
#include "commands.h"

namespace rapt::cli {

namespace {

// The flags (or commands) that could have been meant.
std::vector<std::string> known_words(const CLI::App& app, bool flag) {
  std::vector<std::string> words;
  if (flag) {
    for (const CLI::Option* option : app.get_options()) {
      for (const std::string& name : option->get_lnames()) words.push_back("--" + name);
    }
  } else {
    for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
      words.push_back(command->get_name());
    }
  }
  return words;
}

std::string explain(const CLI::App& program, const CLI::ParseError& error, int argc, char** argv) {
  const CLI::App* app = &program;
  for (const CLI::App* command : program.get_subcommands()) app = command;
  std::string text = error.what();
  std::vector<std::string> extra = app->remaining();
  if (extra.empty()) extra = program.remaining();
  if (extra.empty() && app == &program && argc > 1 && program.get_subcommands().empty()) extra.emplace_back(argv[1]);
  if (!extra.empty()) {
    std::string word = extra.front().substr(0, extra.front().find('='));
    bool flag = word.starts_with("-");
    std::string near = nearest(word, known_words(*app, flag));
    text = fmt::format("unknown {} {}{}",
                       flag              ? "flag"
                       : app == &program ? "command"
                                         : "argument",
                       word, near.empty() ? "" : fmt::format(", did you mean {}?", near));
  }
  return fmt::format("{}\nTry: {} --help", text, app == &program ? "rapt" : "rapt " + app->get_name());
}

}  // namespace

CLI::Validator positive() {
  return {[](std::string& text) {
            return std::strtod(text.c_str(), nullptr) > 0 ? std::string()
                                                          : fmt::format("must be above 0, got {}", text);
          },
          "above 0"};
}

CLI::Validator not_negative() {
  return {[](std::string& text) {
            return std::strtod(text.c_str(), nullptr) >= 0 ? std::string()
                                                           : fmt::format("must not be negative, got {}", text);
          },
          "at least 0"};
}

CLI::Validator whole_number() {
  return {[](std::string& text) {
            int64_t value = 0;
            auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
            const bool ok = error == std::errc() && end == text.data() + text.size();
            return ok ? std::string() : fmt::format("must be a whole number below 2^63, got {}", text);
          },
          ""};
}

int run_program(int argc, char** argv) {
  CLI::App program(
      "rapt trains small GPTs on the CPU.\n\nExit codes: 0 done, 1 failed, 2 wrong usage, 3 bad data or file, "
      "4 training diverged, 130 interrupted and saved.",
      "rapt");
  program.require_subcommand(1);
  program.set_version_flag(
      "--version", [] { return fmt::format("rapt {}\n{}, {} threads", RAPT_VERSION, blas_description(), threads()); });
  std::vector<Command> commands{train_command(program),     sample_command(program), eval_command(program),
                                attention_command(program), replay_command(program), graph_command(program),
                                diff_runs_command(program)};
  try {
    program.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return program.exit(success);
  } catch (const CLI::ParseError& error) {
    throw UsageError(explain(program, error, argc, argv));
  }
  for (const Command& command : commands) {
    if (command.app->parsed()) return command.run();
  }
  return kUsage;
}

}  // namespace rapt::cli

int main(int argc, char** argv) {
  using namespace rapt;
  auto fail = [](cli::ExitCode code, const char* what) {
    std::fflush(stdout);
    fmt::print(stderr, "rapt: {}\n", what);
    return int(code);
  };
  try {
    const int code = cli::run_program(argc, argv);
    if (std::fflush(stdout) != 0 || std::ferror(stdout))
      return fail(cli::kFailed, "can't write to the standard output");
    return code;
  } catch (const UsageError& error) {
    return fail(cli::kUsage, error.what());
  } catch (const DataError& error) {
    return fail(cli::kBadData, error.what());
  } catch (const DivergedError& error) {
    return fail(cli::kDiverged, error.what());
  } catch (const NotFiniteError& error) {
    return fail(cli::kDiverged, error.what());
  } catch (const std::bad_alloc&) {
    return fail(cli::kFailed, "out of memory");
  } catch (const std::exception& error) {
    return fail(cli::kFailed, error.what());
  }
}

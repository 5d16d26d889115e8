#pragma once
#include <CLI/CLI.hpp>
#include <functional>

#include "../config.h"

/// The rapt program: one file per command. Each adds itself to the command line and gives what to do when it was
/// chosen, which returns the exit code.
namespace rapt::cli {

enum ExitCode { kDone = 0, kFailed = 1, kUsage = 2, kBadData = 3, kDiverged = 4, kInterrupted = 130 };

struct Command {
  CLI::App* app;
  std::function<int()> run;
};

/// Checks of what a flag was given, in plain words.
CLI::Validator positive();
CLI::Validator not_negative();
CLI::Validator whole_number();  ///< that fits an int64_t

Command train_command(CLI::App& program);
Command sample_command(CLI::App& program);
Command eval_command(CLI::App& program);
Command attention_command(CLI::App& program);
Command replay_command(CLI::App& program);
Command graph_command(CLI::App& program);
Command diff_runs_command(CLI::App& program);

}  // namespace rapt::cli

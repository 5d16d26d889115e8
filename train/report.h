#pragma once
#include <chrono>
#include <filesystem>
#include <optional>
#include <string>

#include "trainer.h"

namespace rapt::inline RAPT_ABI {

/// "1.2k", "48.3k", "2.10M": a number in three digits.
std::string short_number(double value);
/// "0:07", "12:34", "1:02:03"
std::string clock_time(double seconds);

/// Progress of training on standard output: one live line on a terminal, a plain line now and then in a pipe.
class Progress {
 public:
  Progress(int64_t first_step, int64_t steps);
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void step(const StepReport& report);
  /// Prints a line that stays.
  void line(const std::string& text);
  double tokens_per_second() const { return tokens_per_second_; }

 private:
  void clear();
  std::string status(const StepReport& report) const;

  int64_t first_, steps_;
  bool terminal_;
  bool live_ = false;
  double loss_ = 0;               // smoothed
  double tokens_per_second_ = 0;  // smoothed
  std::chrono::steady_clock::time_point last_shown_;
};

/// log.jsonl: one JSON object a line, with step, loss, val_loss (null when there was no validation), lr, grad_norm and
/// tokens_per_second.
class RunLog {
 public:
  /// Opens the log for appending and drops lines of steps after `steps_done`: they will be made again.
  RunLog(const std::filesystem::path& path, int64_t steps_done);
  ~RunLog();
  RunLog(const RunLog&) = delete;
  RunLog& operator=(const RunLog&) = delete;

  /// Adds a line. When it can't be written (a full disk), it waits for the next call, and the file ends with a whole
  /// line; gives what the user should hear then, the first time, else nothing.
  std::string write(const StepReport& report, double tokens_per_second, std::optional<double> validation_loss);

 private:
  std::string path_;
  int file_ = -1;
  std::string waiting_;  // lines that are not in the file yet
  bool warned_ = false;
};

}  // namespace rapt::inline RAPT_ABI

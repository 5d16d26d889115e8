#include "report.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "../data/formats/atomic_file.h"
#include "../data/formats/json.h"

namespace rapt::inline RAPT_ABI {

std::string short_number(double v) {
  const char* suffix = "";
  if (v >= 999.5e6) {
    v /= 1e9;
    suffix = "G";
  } else if (v >= 999.5e3) {
    v /= 1e6;
    suffix = "M";
  } else if (v >= 999.5) {
    v /= 1e3;
    suffix = "k";
  }
  return v >= 99.95 || (*suffix == 0 && v == std::floor(v)) ? fmt::format("{:.0f}{}", v, suffix)
                                                            : fmt::format("{:.{}f}{}", v, v >= 9.995 ? 1 : 2, suffix);
}

std::string clock_time(double seconds) {
  int64_t s = std::llround(std::max(0.0, seconds));
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

Progress::Progress(int64_t first_step, int64_t steps)
    : first_(first_step), steps_(steps), terminal_(isatty(STDOUT_FILENO)), last_shown_() {}

std::string Progress::status(const StepReport& r) const {
  double left = double(steps_ - r.step) * double(r.tokens) / std::max(tokens_per_second_, 1e-9);
  return fmt::format("step {:>{}}/{} {:>4.0f}%  loss {:.4f}  {} tokens/s  {} left", r.step,
                     std::to_string(steps_).size(), steps_, 100.0 * double(r.step) / double(steps_), loss_,
                     short_number(tokens_per_second_), clock_time(left));
}

void Progress::step(const StepReport& r) {
  // averages over about the last twenty steps, exact from the first one on
  double weight = std::max(1.0 / double(r.step - first_), 0.05);
  loss_ += weight * (r.loss - loss_);
  tokens_per_second_ += weight * (double(r.tokens) / std::max(r.seconds, 1e-9) - tokens_per_second_);
  if (terminal_) {
    auto now = std::chrono::steady_clock::now();
    if (now - last_shown_ < std::chrono::milliseconds(100) && r.step != steps_) return;
    last_shown_ = now;
    fmt::print("\r\x1b[K{}", status(r));
    std::fflush(stdout);
    live_ = true;
  } else {
    int64_t every = std::max<int64_t>(1, steps_ / 20);
    if (r.step % every != 0 && r.step != steps_) return;
    fmt::print("{}\n", status(r));
    std::fflush(stdout);
  }
}

void Progress::line(const std::string& text) {
  clear();
  fmt::print("{}\n", text);
  std::fflush(stdout);
}

void Progress::clear() {
  if (!std::exchange(live_, false)) return;
  fmt::print("\r\x1b[K");
  std::fflush(stdout);
}

RunLog::RunLog(const std::filesystem::path& path, int64_t steps_done) : path_(path.string()) {
  if (std::filesystem::exists(path)) {
    std::string kept;
    std::ifstream old(path);
    for (std::string line; std::getline(old, line);) {
      auto json = Json::parse(line, nullptr, false);
      bool of_this_run = json.is_object() && json.contains("step") && json["step"].is_number_integer() &&
                         json["step"].get<int64_t>() <= steps_done;
      if (of_this_run) kept += line + "\n";
    }
    old.close();
    write_file(path, kept);
  }
  file_ = system_calls().open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  check<DataError>(file_ >= 0, "{}: can't be written: {}", path_, std::strerror(errno));
}

RunLog::~RunLog() { system_calls().close(file_); }

std::string RunLog::write(const StepReport& r, double tokens_per_second, std::optional<double> validation_loss) {
  OrderedJson json;
  json["step"] = r.step;
  json["loss"] = r.loss;
  json["val_loss"] = validation_loss ? OrderedJson(*validation_loss) : OrderedJson(nullptr);
  json["lr"] = r.learning_rate;
  json["grad_norm"] = r.gradient_norm;
  json["tokens_per_second"] = std::round(tokens_per_second);
  waiting_ += to_json_text(json) + "\n";
  off_t end = ::lseek(file_, 0, SEEK_END);
  size_t written = 0;
  int error = 0;
  while (written < waiting_.size() && error == 0) {
    ssize_t n = system_calls().write(file_, waiting_.data() + written, waiting_.size() - written);
    if (n > 0) written += size_t(n);
    if (n <= 0 && !(n < 0 && errno == EINTR)) error = n < 0 ? errno : EIO;
  }
  // no half line stays, unless it can't be taken back: then the rest of it comes next
  size_t whole = written == 0 ? 0 : waiting_.rfind('\n', written - 1) + 1;
  if (whole < written && end >= 0 && ::ftruncate(file_, end + off_t(whole)) == 0) written = whole;
  waiting_.erase(0, written);
  if (error == 0 || std::exchange(warned_, true)) return "";
  return fmt::format("warning: {}: no line for step {}, training goes on and will try again: {}", path_, r.step,
                     std::strerror(error));
}

}  // namespace rapt::inline RAPT_ABI

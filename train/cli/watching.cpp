#include "watching.h"

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "../../watch/check_finite.h"
#include "../../watch/profile.h"
#include "../../watch/trap_nan.h"
#include "../../watch/values.h"

namespace rapt::cli {

namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

}  // namespace

struct Watching::Watchers {
  struct Close {
    void operator()(std::FILE* opened) const { std::fclose(opened); }
  };
  std::unique_ptr<std::FILE, Close> file;
  std::string trace;
  std::optional<TrapNan> trap_nan;
  std::optional<CheckFinite> check_finite;
  std::optional<ValueLog> values;
  std::optional<Profile> profile;
};

void WatchFlags::add_to(CLI::App& app) {
  app.add_flag("--trap-nan", trap_nan,
               "stop at the very instruction that makes the first NaN or Inf: says in which operation, and ends by "
               "SIGFPE, where a debugger stops too");
  app.add_flag("--check-finite", check_finite,
               "stop at the first operation, forward or backward, whose result holds NaN or Inf; exit code 4");
  app.add_flag("--profile", profile,
               "print time, operations and memory by module and by operation to standard error, and write a trace for "
               "ui.perfetto.dev to the file that RAPT_TRACE names, or trace.json");
  app.add_option("--record-values", values,
                 "file for a line about every result (hash, least, most, mean), for rapt diff-runs; also RAPT_VALUES");
}

Watching::Watching(const WatchFlags& flags) : watchers_(std::make_unique<Watchers>()) {
  Watchers& w = *watchers_;
  w.trace = environment("RAPT_TRACE");
  if (flags.profile && w.trace.empty()) w.trace = "trace.json";
  if (!w.trace.empty()) {
    std::filesystem::path folder = std::filesystem::path(w.trace).parent_path();
    std::error_code ignored;
    check<DataError>(folder.empty() || std::filesystem::is_directory(folder, ignored),
                     "{}: there is no such folder for the trace", folder.string());
    w.profile.emplace();
  }
  std::string values = flags.values.empty() ? environment("RAPT_VALUES") : flags.values;
  if (!values.empty()) {
    w.file.reset(std::fopen(values.c_str(), "w"));
    check<DataError>(bool(w.file), "{}: the file for values can't be written", values);
    std::setvbuf(w.file.get(), nullptr, _IOLBF, 0);  // all there when the program is stopped
    fmt::print(w.file.get(), "{}\n", kValuesHeader);
    w.values.emplace([file = w.file.get()](const ValueLine& line) { fmt::print(file, "{}\n", to_text(line)); });
  }
  if (flags.check_finite) w.check_finite.emplace();
  if (flags.trap_nan) w.trap_nan.emplace();
}

Watching::~Watching() {
  Watchers& w = *watchers_;
  if (!w.profile) return;
  try {
    std::fflush(stdout);
    fmt::print(stderr, "\n{}", w.profile->tables());
    w.profile->write_trace(w.trace);
    fmt::print(stderr, "the trace is in {}: open it in ui.perfetto.dev or chrome://tracing\n", w.trace);
  } catch (const std::exception& error) {
    fmt::print(stderr, "rapt: no trace: {}\n", error.what());
  }
}

}  // namespace rapt::cli

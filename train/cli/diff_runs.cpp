#include <filesystem>

#include "../../watch/values.h"
#include "../one_step.h"
#include "commands.h"

namespace rapt::cli {

namespace {

struct DiffArguments {
  std::string a, b;
  double tolerance = 0;
};

// What a file of values says, or what the next step of a run computes.
std::vector<ValueLine> values_of(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(path, ignored) && !path.ends_with(".safetensors")) return read_values(path);
  OneStep step = OneStep::load(path);
  std::vector<ValueLine> lines;
  ValueLog log([&](const ValueLine& line) { lines.push_back(line); });
  step.gradients();
  return lines;
}

std::string name_of(const ValueLine& v) {
  std::string result = v.pass == "backward" ? fmt::format(", gradient {}", v.result) : "";
  return fmt::format("{} of {}{}, {} ({})", v.pass, v.operation, result,
                     v.module.empty() ? "outside of modules" : "in " + v.module, v.where);
}
std::string value_of(const ValueLine& v) {
  return fmt::format("{}: least {:.9g}, most {:.9g}, mean {:.9g}, bits {:016x}", v.shape, v.least, v.most, v.mean,
                     v.hash);
}

int diff_runs(const DiffArguments& arguments) {
  const std::vector<ValueLine> a = values_of(arguments.a), b = values_of(arguments.b);
  std::optional<size_t> found = first_difference(a, b, arguments.tolerance);
  if (!found) {
    fmt::print("equal: {} results\n", a.size());
    return kDone;
  }
  const size_t i = *found;
  fmt::print("{} results are equal, then there is a difference:\n", i);
  for (const auto& [name, lines] : {std::pair("A", &a), std::pair("B", &b)}) {
    if (i < lines->size()) {
      fmt::print("{} {}\n    {}\n", name, name_of((*lines)[i]), value_of((*lines)[i]));
    } else {
      fmt::print("{} ends here\n", name);
    }
  }
  if (i > 0) fmt::print("before it, equal:\n");
  for (size_t k = i > 3 ? i - 3 : 0; k < i; ++k) fmt::print("  {}\n    {}\n", name_of(a[k]), value_of(a[k]));
  return kFailed;
}

}  // namespace

Command diff_runs_command(CLI::App& program) {
  auto arguments = std::make_shared<DiffArguments>();
  DiffArguments& a = *arguments;
  CLI::App* app = program.add_subcommand(
      "diff-runs", "Find the first operation that computes something else in two runs; exit code 0: none, 1: there is");
  const char* help = "a file that --record-values wrote; or a run's folder or a kept step: one step of it is computed";
  app->add_option("a", a.a, help)->required();
  app->add_option("b", a.b, help)->required();
  app->add_option("--tolerance", a.tolerance,
                  "compare least, most and mean, with this relative tolerance, instead of the bits; 0: bits")
      ->check(not_negative())
      ->capture_default_str();
  return {app, [arguments] { return diff_runs(*arguments); }};
}

}  // namespace rapt::cli

#include <spawn.h>
#include <sys/wait.h>

#include <filesystem>

#include "../../core/parallel.h"
#include "../../data/formats/atomic_file.h"
#include "../../watch/graph.h"
#include "../one_step.h"
#include "commands.h"

extern char** environ;

namespace rapt::cli {

namespace {

namespace fs = std::filesystem;

struct GraphArguments {
  std::string run, out = "graph.svg";
  GraphDrawing drawing;
  int threads = 0;
};

// Has Graphviz draw a file; false when there is no Graphviz.
bool draw(const std::string& from, const std::string& to, const std::string& format) {
  std::string type = "-T" + format;
  const char* words[] = {"dot", type.c_str(), from.c_str(), "-o", to.c_str(), nullptr};
  pid_t child = 0;
  if (posix_spawnp(&child, "dot", nullptr, nullptr, const_cast<char**>(words), environ) != 0) return false;
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127) return false;
  check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "graph: dot could not draw {} as {}; the graph is in {}", to,
        format, from);
  return true;
}

int graph(const GraphArguments& a) {
  std::string format = fs::path(a.out).extension().string();
  check<UsageError>(format.size() > 1, "--out: {} needs an ending that says the format: .svg, .pdf, .png or .dot",
                    a.out);
  format.erase(0, 1);
  if (a.threads > 0) set_threads(a.threads);
  OneStep step = OneStep::load(a.run);
  step.run.config.accumulate = 1;  // one batch
  GraphLog log;
  step.gradients();
  const std::string text = log.dot(a.drawing);
  const std::string dot_file = fs::path(a.out).replace_extension(".dot").string();
  write_file(dot_file, text);
  if (format == "dot") {
    fmt::print("{} nodes; the graph is in {}\n", log.size(), dot_file);
  } else if (draw(dot_file, a.out, format)) {
    fs::remove(dot_file);
    fmt::print("{} nodes; the graph is in {}\n", log.size(), a.out);
  } else {
    fmt::print("{} nodes; the graph is in {}. Graphviz is not installed; where it is: dot -T{} {} -o {}\n", log.size(),
               dot_file, format, dot_file, a.out);
  }
  return kDone;
}

}  // namespace

Command graph_command(CLI::App& program) {
  auto arguments = std::make_shared<GraphArguments>();
  GraphArguments& a = *arguments;
  CLI::App* app = program.add_subcommand("graph", "Draw a model's graph, coloured by the gradient norms of one batch");
  app->add_option("run", a.run, "the run's folder, or a step that training kept")->required();
  app->add_option("--out", a.out, "file to draw to; .svg, .pdf and .png need Graphviz, .dot is its text")
      ->capture_default_str();
  app->add_option("--depth", a.drawing.depth, "components of a module's path that are shown; 0: every operation")
      ->check(not_negative())
      ->capture_default_str();
  app->add_option("--expand", a.drawing.expand, "a module to look into, such as blocks.0; may be given several times")
      ->expected(1);
  app->add_option("--threads", a.threads, "threads to compute with")->check(positive())->default_str("all cores");
  return {app, [arguments] { return graph(*arguments); }};
}

}  // namespace rapt::cli

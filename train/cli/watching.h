#pragma once
#include <memory>

#include "commands.h"

namespace rapt::cli {

/// The flags that watch a computation, which several commands share, and the environment variables RAPT_TRACE and
/// RAPT_VALUES, which work with every command.
struct WatchFlags {
  bool trap_nan = false, check_finite = false, profile = false;
  std::string values;
  void add_to(CLI::App& app);
};

/// What the flags ask for, from its construction to its destruction, which prints the profile and writes the files.
class Watching {
 public:
  explicit Watching(const WatchFlags& flags = {});
  ~Watching();

 private:
  struct Watchers;
  std::unique_ptr<Watchers> watchers_;
};

}  // namespace rapt::cli

#pragma once
#include <memory>
#include <string>

#include "../core/real.h"

namespace rapt::inline RAPT_ABI {

/// A line of source: as a last parameter `Where where = Where::here()` it is the caller's.
/// (std::source_location needs Clang 15.)
struct Where {
  const char* file = "";
  int line = 0;
  const char* function = "";

  static constexpr Where here(const char* file = __builtin_FILE(), int line = __builtin_LINE(),
                              const char* function = __builtin_FUNCTION()) {
    return {file, line, function};
  }
};

/// The path of a module in its model, such as "blocks.3.attention"; shared, because a parent completes it later.
using ModulePath = std::shared_ptr<const std::string>;

/// While it lives, operations of this thread are recorded under `path`. Modules open one in their call. The empty path,
/// of a root, changes nothing inside of another scope: what is part of no model is named after the module that calls
/// it.
class Scope {
 public:
  explicit Scope(ModulePath path);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  ModulePath outer_;
};

/// The innermost scope's path; null outside of modules.
const ModulePath& current_module();

}  // namespace rapt::inline RAPT_ABI

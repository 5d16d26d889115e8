#pragma once
#include <fmt/core.h>

#include <stdexcept>
#include <utility>

#include "real.h"

namespace rapt::inline RAPT_ABI {

/// What every failure of the library throws. The text begins with the operation, and says what was expected and what
/// came.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A file or text that can't be used as it is (missing, truncated, of another model, not UTF-8, …).
struct DataError : Error {
  using Error::Error;
};

/// What was asked for makes no sense: an unknown flag or word, a value out of range.
struct UsageError : Error {
  using Error::Error;
};

/// Throws E with the formatted message unless `ok`.
template <class E = Error, class... Args>
void check(bool ok, fmt::format_string<Args...> format, Args&&... args) {
  if (!ok) [[unlikely]]
    throw E(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace rapt::inline RAPT_ABI

#pragma once
#include <span>
#include <string>

#include "real.h"

namespace rapt::inline RAPT_ABI {

/// The known word nearest to `word` by edit distance, if it is near enough to be meant; else empty.
std::string nearest(const std::string& word, std::span<const std::string> known);

}  // namespace rapt::inline RAPT_ABI

#pragma once
#include <limits>

/// The number type of the library. librapt computes in float; librapt_f64 is the same sources compiled with
/// RAPT_DOUBLE, in an inline namespace of its own, so that one program can hold both (and so that every gradient can be
/// checked to 1e-8).

#ifdef RAPT_DOUBLE
#define RAPT_ABI f64
#else
#define RAPT_ABI f32
#endif

namespace rapt::inline RAPT_ABI {

#ifdef RAPT_DOUBLE
using Real = double;
#else
using Real = float;
#endif

inline constexpr Real kInf = std::numeric_limits<Real>::infinity();

}  // namespace rapt::inline RAPT_ABI

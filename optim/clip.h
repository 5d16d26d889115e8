#pragma once
#include <span>

#include "../nn/module.h"

namespace rapt::inline RAPT_ABI {

/// Scales all gradients together so that their global L2 norm is at most `max_norm` (which may be infinite), and
/// returns the norm they had. Throws, naming the first parameter to blame, when the norm is not finite; nothing is
/// scaled then.
double clip_gradient_norm(std::span<const NamedTensor> parameters, double max_norm);

}  // namespace rapt::inline RAPT_ABI

#pragma once
#include <functional>
#include <string>
#include <vector>

#include "../core/tensor.h"

namespace rapt::inline RAPT_ABI {

struct GradCheckOptions {
  double tolerance = sizeof(Real) == 8 ? 1e-8 : 2e-2;  ///< on |analytic − numeric| / max(1, |analytic|, |numeric|)
  double step = sizeof(Real) == 8 ? 1e-3 : 2e-2;       ///< of the five-point difference
  bool directional = false;  ///< one random direction instead of every element: four forwards whatever the size
  bool allow_zero = false;   ///< do not refuse gradients that are zero everywhere
  uint64_t seed = 1;
};

/// The worst element that grad_check found.
struct GradCheckResult {
  bool ok = false;
  double error = 0;
  int input = -1;
  Shape index;  ///< in that input; empty when directional
  double analytic = 0;
  double numeric = 0;
  std::string message;  ///< one line that says it all
  explicit operator bool() const { return ok; }
};

/// Compares the gradients of <c, function(inputs)>, c a random cotangent, with five-point differences. Each input is
/// differentiated. Refuses gradients that are zero everywhere (nothing was tested) and functions that give different
/// results for the same inputs; functions that draw random numbers get the same ones each time (manual_seed).
GradCheckResult grad_check(const std::function<Tensor(const std::vector<Tensor>&)>& function,
                           const std::vector<Tensor>& inputs, GradCheckOptions options = {});

}  // namespace rapt::inline RAPT_ABI

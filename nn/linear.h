#pragma once
#include "module.h"

namespace rapt::inline RAPT_ABI {

struct LinearOptions {
  bool bias = true;
  double deviation = 0;  ///< of the normal distribution the weight starts from; 0: uniform in ±1/√in, bias too
};

/// y = x weightᵀ + bias. weight (out, in), bias (out); x (…, in) → (…, out).
struct Linear : Module {
  Tensor weight, bias;
  Linear(int64_t in, int64_t out, LinearOptions options = {});
  Tensor operator()(const Tensor& x) const;
};

}  // namespace rapt::inline RAPT_ABI

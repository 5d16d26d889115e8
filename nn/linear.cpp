#include "linear.h"

#include <cmath>

namespace rapt::inline RAPT_ABI {

Linear::Linear(int64_t in, int64_t out, LinearOptions options) {
  check(in > 0 && out > 0, "linear: {} inputs and {} outputs", in, out);
  const Real bound = Real(1 / std::sqrt(double(in)));
  bool normally = options.deviation > 0;
  weight =
      param("weight", normally ? normal({out, in}, 0, Real(options.deviation)) : uniform({out, in}, -bound, bound));
  if (options.bias) bias = param("bias", normally ? zeros({out}) : uniform({out}, -bound, bound));
}

Tensor Linear::operator()(const Tensor& input) const {
  return run([&](const Tensor& x) { return linear(x, weight, bias); }, input);
}

}  // namespace rapt::inline RAPT_ABI

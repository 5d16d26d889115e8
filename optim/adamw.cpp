#include "adamw.h"

#include <cmath>

#include "../core/parallel.h"

namespace rapt::inline RAPT_ABI {

void check_adamw(const AdamWConfig& c) {
  check(c.beta1 >= 0 && c.beta1 < 1 && c.beta2 >= 0 && c.beta2 < 1, "adamw: betas must be in [0, 1), got {} and {}",
        c.beta1, c.beta2);
  check(c.epsilon >= 0 && c.weight_decay >= 0, "adamw: epsilon {} and weight decay {} must not be negative", c.epsilon,
        c.weight_decay);
}

AdamW::AdamW(std::vector<NamedTensor> parameters, AdamWConfig config)
    : Optimizer(std::move(parameters), config.learning_rate), config_(config), m_(add_slot("m")), v_(add_slot("v")) {
  check_adamw(config);
}

void AdamW::update(size_t i, Tensor& parameter, const Tensor& gradient) {
  adamw_update(config_, learning_rate(), steps(), parameter, gradient, slot(m_, i), slot(v_, i));
}

void adamw_update(const AdamWConfig& c, double learning_rate, int64_t step, Tensor& parameter, const Tensor& gradient,
                  Tensor& first, Tensor& second) {
  const Real keep = Real(parameter.rank() >= 2 ? 1 - learning_rate * c.weight_decay : 1);
  const Real beta2 = Real(c.beta2), new1 = Real(1 - c.beta1), new2 = Real(1 - c.beta2), epsilon = Real(c.epsilon);
  const Real rate = Real(learning_rate / (1 - std::pow(c.beta1, double(step))));
  const Real unbias = Real(1 / std::sqrt(1 - std::pow(c.beta2, double(step))));
  // far below anything that moves a weight; smaller ones decay into denormals, on which the loop is several times
  // slower
  constexpr Real kTiny = Real(1e-30);
  Real *w = parameter.mutable_data(), *m = first.mutable_data(), *v = second.mutable_data();
  const Real* g = gradient.data();
  parallel_for(parameter.numel(), 1 << 13, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t j = begin; j < end; ++j) {
      Real a = m[j] + new1 * (g[j] - m[j]), b = beta2 * v[j] + new2 * g[j] * g[j];
      a = std::abs(a) < kTiny ? 0 : a;
      b = b < kTiny ? 0 : b;
      m[j] = a;
      v[j] = b;
      w[j] = w[j] * keep - rate * a / (std::sqrt(b) * unbias + epsilon);
    }
  });
}

}  // namespace rapt::inline RAPT_ABI

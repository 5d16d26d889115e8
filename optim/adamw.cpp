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
    : Optimizer(std::move(parameters), config.learning_rate),
      config_(config),
      m_(add_slot("adamw.m")),
      v_(add_slot("adamw.v")) {
  check_adamw(config);
}

void AdamW::update(size_t i, Tensor& parameter, const Tensor& gradient) {
  AdamWConfig config = config_;
  config.weight_decay *= decay_factor(i);
  adamw_update(config, learning_rate(), steps(), parameter, gradient, slot(m_, i), slot(v_, i));
}

void adamw_update(const AdamWConfig& c, double learning_rate, int64_t step, Tensor& parameter, const Tensor& gradient,
                  Tensor& mean, Tensor& mean_square) {
  const Real keep = Real(parameter.rank() >= 2 ? 1 - learning_rate * c.weight_decay : 1);
  const Real beta1 = Real(c.beta1), beta2 = Real(c.beta2), epsilon = Real(c.epsilon);
  const Real new1 = Real(1 - c.beta1), new2 = Real(1 - c.beta2);
  const Real rate = Real(learning_rate / (1 - std::pow(c.beta1, double(step))));
  const Real unbias = Real(1 / std::sqrt(1 - std::pow(c.beta2, double(step))));
  constexpr Real kTinyGradient = Real(1e-15);  // its square is kTinyState
  Real *w = parameter.mutable_data(), *m = mean.mutable_data(), *v = mean_square.mutable_data();
  const Real* g = gradient.data();
  parallel_for(parameter.numel(), 1 << 13, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t j = begin; j < end; ++j) {
      Real large = std::abs(g[j]) < kTinyGradient ? 0 : g[j];
      Real mj = beta1 * m[j] + new1 * g[j], vj = beta2 * v[j] + new2 * large * large;
      mj = std::abs(mj) < kTinyState ? 0 : mj;
      vj = vj < kTinyState ? 0 : vj;
      m[j] = mj;
      v[j] = vj;
      w[j] = w[j] * keep - rate * mj / (std::sqrt(vj) * unbias + epsilon);
    }
  });
}

}  // namespace rapt::inline RAPT_ABI

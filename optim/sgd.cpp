#include "sgd.h"

#include <cmath>

#include "../core/parallel.h"

namespace rapt::inline RAPT_ABI {

SGD::SGD(std::vector<NamedTensor> parameters, SGDConfig config)
    : Optimizer(std::move(parameters), config.learning_rate), config_(config) {
  check(config.momentum >= 0 && config.momentum < 1, "sgd: momentum must be in [0, 1), got {}", config.momentum);
  check(config.weight_decay >= 0, "sgd: the weight decay must not be negative, got {}", config.weight_decay);
  check(!config.nesterov || config.momentum > 0, "sgd: Nesterov's form needs a momentum above 0");
  if (config.momentum > 0) momentum_ = add_slot("sgd.momentum");
}

void SGD::update(size_t i, Tensor& parameter, const Tensor& gradient) {
  const Real rate = Real(learning_rate()), decay = Real(config_.weight_decay * decay_factor(i)),
             momentum = Real(config_.momentum);
  const bool nesterov = config_.nesterov;
  Real* w = parameter.mutable_data();
  const Real* g = gradient.data();
  Real* b = momentum > 0 ? slot(momentum_, i).mutable_data() : nullptr;
  // the buffer starts at 0, so the first b is g'
  parallel_for(parameter.numel(), 1 << 14, [=](int64_t begin, int64_t end) {
    if (!b) {
#pragma omp simd
      for (int64_t j = begin; j < end; ++j) w[j] -= rate * (g[j] + decay * w[j]);
      return;
    }
#pragma omp simd
    for (int64_t j = begin; j < end; ++j) {
      Real d = g[j] + decay * w[j];
      Real bj = momentum * b[j] + d;
      bj = std::abs(bj) < kTinyState ? 0 : bj;
      b[j] = bj;
      w[j] -= rate * (nesterov ? d + momentum * bj : bj);
    }
  });
}

}  // namespace rapt::inline RAPT_ABI

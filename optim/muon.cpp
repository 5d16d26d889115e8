#include "muon.h"

#include <cmath>

#include "../core/parallel.h"
#include "../core/view.h"

namespace rapt::inline RAPT_ABI {

namespace {

bool is_hidden_matrix(const NamedTensor& p) {
  return p.tensor.rank() == 2 && p.name.find("embedding") == std::string::npos &&
         p.name.find("head") == std::string::npos;
}

std::vector<bool> flipped(std::vector<bool> flags) {
  flags.flip();
  return flags;
}

std::vector<bool> choose(const std::vector<NamedTensor>& parameters,
                         const std::function<bool(const NamedTensor&)>& hidden) {
  std::vector<bool> chosen;
  for (const NamedTensor& p : parameters) {
    chosen.push_back(hidden ? hidden(p) : is_hidden_matrix(p));
    check(!chosen.back() || p.tensor.rank() == 2, "muon: {} is no matrix, its shape is {}", p.name, p.tensor.shape);
  }
  return chosen;
}

}  // namespace

Tensor orthogonalize(const Tensor& x, int iterations) {
  check(x.rank() == 2, "orthogonalize: a matrix is needed, but x is {}", x.shape);
  NoGrad no_grad;
  bool tall = x.shape[0] > x.shape[1];  // the smaller Gram matrix
  Tensor y = contiguous(tall ? view::transpose(x, 0, 1) : x);
  y = y / (std::sqrt(double(sum(y * y).item())) + 1e-7);
  for (int i = 0; i < iterations; ++i) {
    Tensor gram = matmul(y, transpose(y, 0, 1));
    Tensor polynomial = -4.7750 * gram + 2.0315 * matmul(gram, gram);
    y = 3.4445 * y + matmul(polynomial, y);
  }
  return contiguous(tall ? view::transpose(y, 0, 1) : y);
}

Muon::Muon(std::vector<NamedTensor> parameters, MuonConfig config,
           const std::function<bool(const NamedTensor&)>& hidden)
    : Optimizer(std::move(parameters), config.learning_rate),
      config_(config),
      hidden_(choose(this->parameters(), hidden)),
      momentum_(add_slot("momentum", hidden_)),
      m_(add_slot("m", flipped(hidden_))),
      v_(add_slot("v", flipped(hidden_))) {
  check_adamw(config.adamw);
  check(config.momentum >= 0 && config.momentum < 1, "muon: momentum must be in [0, 1), got {}", config.momentum);
  check(config.learning_rate > 0, "muon: the learning rate must be above 0, got {}", config.learning_rate);
}

void Muon::update(size_t i, Tensor& parameter, const Tensor& gradient) {
  if (!hidden_[i]) {
    double rate = config_.adamw.learning_rate * learning_rate() / config_.learning_rate;
    return adamw_update(config_.adamw, rate, steps(), parameter, gradient, slot(m_, i), slot(v_, i));
  }
  const Real momentum = Real(config_.momentum);
  Tensor& buffer = slot(momentum_, i);
  Tensor ahead = empty(parameter.shape);
  Real *b = buffer.mutable_data(), *a = ahead.mutable_data();
  const Real* g = gradient.data();
  parallel_for(parameter.numel(), 1 << 14, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t j = begin; j < end; ++j) {
      b[j] = momentum * b[j] + (1 - momentum) * g[j];
      a[j] = (1 - momentum) * g[j] + momentum * b[j];  // Nesterov's look ahead
    }
  });
  Tensor direction = orthogonalize(ahead, config_.iterations);
  double tall = std::max(1.0, double(parameter.shape[0]) / double(parameter.shape[1]));
  const Real rate = Real(learning_rate() * std::sqrt(tall)), keep = Real(1 - learning_rate() * config_.weight_decay);
  Real* w = parameter.mutable_data();
  const Real* d = direction.data();
  parallel_for(parameter.numel(), 1 << 14, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t j = begin; j < end; ++j) w[j] = w[j] * keep - rate * d[j];
  });
}

}  // namespace rapt::inline RAPT_ABI

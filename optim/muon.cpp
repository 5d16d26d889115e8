#include "muon.h"

#include <algorithm>
#include <cmath>

#include "../core/gemm.h"
#include "../core/kernels/elementwise.h"
#include "../core/lanes.h"
#include "../core/parallel.h"

namespace rapt::inline RAPT_ABI {

bool is_hidden_matrix(const NamedTensor& p) {
  if (p.tensor.rank() != 2) return false;
  std::string_view rest = p.name;
  while (true) {
    std::string_view part = rest.substr(0, rest.find('.'));
    if (part.ends_with("embedding") || part.ends_with("head")) return false;
    if (part.size() == rest.size()) return part == "weight";
    rest.remove_prefix(part.size() + 1);
  }
}

namespace {

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
  constexpr Real a = Real(3.4445), b = Real(-4.7750), c = Real(2.0315);
  const int64_t rows = x.shape[0], columns = x.shape[1];
  const bool tall = rows > columns;
  const int64_t n = std::min(rows, columns);  // the smaller Gram matrix: Xᵀ X of a tall X
  if (n == 0) return clone(x);

  Tensor dense = contiguous(x);
  const Real* p = dense.data();
  const double norm = std::sqrt(lane_sum(x.numel(), [=](int64_t i) { return double(p[i]) * double(p[i]); }));
  const Real scale = Real(1 / (norm + 1e-7));
  Tensor X = kernels::map([scale](Real v) { return scale * v; }, dense);
  Tensor Y = empty(x.shape), G = empty({n, n}), P = empty({n, n});
  for (int i = 0; i < iterations; ++i) {
    Real *g = G.mutable_data(), *q = P.mutable_data(), *y = Y.mutable_data();
    // G = X Xᵀ, P = b G + c G²
    gemm(tall, !tall, n, n, tall ? rows : columns, 1, X.data(), columns, X.data(), columns, 0, g, n);
    copy_into(P, G);
    gemm(false, false, n, n, n, c, g, n, g, n, b, q, n);
    // Y = a X + P X, or a X + X P where X is tall
    copy_into(Y, X);
    if (tall) {
      gemm(false, false, rows, columns, n, 1, X.data(), columns, q, n, a, y, columns);
    } else {
      gemm(false, false, rows, columns, n, 1, q, n, X.data(), columns, a, y, columns);
    }
    std::swap(X, Y);
  }
  return X;
}

Muon::Muon(std::vector<NamedTensor> parameters, MuonConfig config,
           const std::function<bool(const NamedTensor&)>& hidden)
    : Optimizer(std::move(parameters), config.learning_rate),
      config_(config),
      hidden_(choose(this->parameters(), hidden)),
      momentum_(add_slot("muon.momentum", hidden_)),
      m_(add_slot("adamw.m", flipped(hidden_))),
      v_(add_slot("adamw.v", flipped(hidden_))) {
  check_adamw(config.adamw);
  check(config.momentum >= 0 && config.momentum < 1, "muon: momentum must be in [0, 1), got {}", config.momentum);
  check(config.learning_rate > 0, "muon: the learning rate must be above 0, got {}", config.learning_rate);
  check(config.weight_decay >= 0 && config.iterations >= 1,
        "muon: weight decay {} must not be negative, nor iterations {} below 1", config.weight_decay,
        config.iterations);
}

void Muon::update(size_t i, Tensor& parameter, const Tensor& gradient) {
  if (!hidden_[i]) {
    double rate = config_.adamw.learning_rate * learning_rate() / config_.learning_rate;
    AdamWConfig adamw = config_.adamw;
    adamw.weight_decay *= decay_factor(i);
    return adamw_update(adamw, rate, steps(), parameter, gradient, slot(m_, i), slot(v_, i));
  }
  const Real momentum = Real(config_.momentum), look_ahead = config_.nesterov ? momentum : 1;
  Tensor& buffer = slot(momentum_, i);
  Tensor ahead = empty(parameter.shape);
  Real *b = buffer.mutable_data(), *u = ahead.mutable_data();
  const Real* g = gradient.data();
  parallel_for(parameter.numel(), 1 << 13, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t j = begin; j < end; ++j) {
      Real bj = momentum * b[j] + (1 - momentum) * g[j];
      bj = std::abs(bj) < kTinyState ? 0 : bj;
      b[j] = bj;
      u[j] = g[j] + look_ahead * (bj - g[j]);
    }
  });
  Tensor direction = orthogonalize(ahead, config_.iterations);
  const double tall = std::max(1.0, double(parameter.shape[0]) / double(parameter.shape[1]));
  const double decay = config_.weight_decay * decay_factor(i);
  const Real rate = Real(learning_rate() * std::sqrt(tall)), keep = Real(1 - learning_rate() * decay);
  Real* w = parameter.mutable_data();
  const Real* d = direction.data();
  parallel_for(parameter.numel(), 1 << 13, [=](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t j = begin; j < end; ++j) w[j] = w[j] * keep - rate * d[j];
  });
}

}  // namespace rapt::inline RAPT_ABI

#include "clip.h"

#include <algorithm>
#include <cmath>

#include "../core/lanes.h"
#include "../core/parallel.h"

namespace rapt::inline RAPT_ABI {

namespace {

constexpr int64_t kPiece = 1 << 14;

// In fixed pieces whose sums are added in order.
double sum_of_squares(const Tensor& x) {
  const Real* p = x.data();
  const int64_t n = x.numel();
  std::vector<double> partial(size_t((n + kPiece - 1) / kPiece));
  parallel_for(n, kPiece, [&](int64_t begin, int64_t end) {
    partial[size_t(begin / kPiece)] =
        double(lane_sum(end - begin, [=](int64_t i) { return p[begin + i] * p[begin + i]; }));
  });
  double sum = 0;
  for (double s : partial) sum += s;
  return sum;
}

}  // namespace

double clip_gradient_norm(std::span<const NamedTensor> parameters, double max_norm) {
  check(max_norm > 0, "clip_gradient_norm: the largest norm must be above 0, got {}", max_norm);
  double squares = 0;
  for (const NamedTensor& p : parameters) {
    const Tensor& g = gradient(p.tensor);
    if (!g) continue;
    double s = sum_of_squares(contiguous(g));
    check(std::isfinite(s), "clip_gradient_norm: the gradient of {} is not finite (sum of its squares: {})", p.name, s);
    squares += s;
  }
  const double norm = std::sqrt(squares);
  if (norm <= max_norm) return norm;
  const Real factor = Real(max_norm / (norm + 1e-6));
  for (const NamedTensor& p : parameters) {
    Tensor g = gradient(p.tensor);
    if (!g) continue;
    check(g.contiguous(), "clip_gradient_norm: the gradient of {} is not dense", p.name);
    Real* data = g.mutable_data();
    parallel_for(g.numel(), kPiece, [=](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) data[i] *= factor;
    });
  }
  return norm;
}

}  // namespace rapt::inline RAPT_ABI

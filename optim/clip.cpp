#include "clip.h"

#include <algorithm>
#include <cmath>

#include "../core/lanes.h"
#include "../core/parallel.h"

namespace rapt::inline RAPT_ABI {

namespace {

// Part of a gradient; the cut depends on the shapes alone.
struct Piece {
  size_t parameter;
  Real* data;
  int64_t n;
};

std::vector<Piece> cut(std::span<const NamedTensor> parameters) {
  constexpr int64_t kPiece = 1 << 14;
  std::vector<Piece> pieces;
  for (size_t i = 0; i < parameters.size(); ++i) {
    Tensor g = gradient(parameters[i].tensor);
    if (!g) continue;
    if (!g.contiguous()) {
      g = clone(g);
      set_gradient(parameters[i].tensor, g);
    }
    for (int64_t begin = 0; begin < g.numel(); begin += kPiece) {
      pieces.push_back({i, g.mutable_data() + begin, std::min(kPiece, g.numel() - begin)});
    }
  }
  return pieces;
}

}  // namespace

double clip_gradient_norm(std::span<const NamedTensor> parameters, double max_norm) {
  check(max_norm > 0, "clip_gradient_norm: the largest norm must be above 0, got {}", max_norm);
  const std::vector<Piece> pieces = cut(parameters);
  std::vector<double> squares(pieces.size());
  parallel_tasks(int64_t(pieces.size()), [&](int64_t p) {
    const Real* g = pieces[size_t(p)].data;
    squares[size_t(p)] = lane_sum(pieces[size_t(p)].n, [=](int64_t i) { return double(g[i]) * double(g[i]); });
  });
  double sum = 0;
  for (size_t p = 0; p < pieces.size(); ++p) {
    sum += squares[p];
    check(std::isfinite(sum), "clip_gradient_norm: the gradient of {} is not finite (sum of its squares: {})",
          parameters[pieces[p].parameter].name, squares[p]);
  }
  const double norm = std::sqrt(sum);
  if (norm <= max_norm) return norm;
  const Real factor = Real(max_norm / (norm + 1e-6));
  parallel_tasks(int64_t(pieces.size()), [&](int64_t p) {
    Real* g = pieces[size_t(p)].data;
#pragma omp simd
    for (int64_t i = 0; i < pieces[size_t(p)].n; ++i) g[i] *= factor;
  });
  return norm;
}

}  // namespace rapt::inline RAPT_ABI

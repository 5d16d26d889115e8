#include <algorithm>
#include <array>
#include <numeric>

#include "../../core/parallel.h"
#include "../../core/view.h"
#include "../ops.h"

namespace rapt::inline RAPT_ABI {

namespace {

// One row of D channels, the first 2h of them in pairs. (a, b) → (a cos − b sin, b cos + a sin)
template <RotaryStyle kStyle>
void turn_row(const Real* x, const Real* cos, const Real* sin, Real sign, int64_t h, int64_t D, Real* y) {
  constexpr bool kHalves = kStyle == RotaryStyle::half_split;
#pragma omp simd
  for (int64_t c = 0; c < h; ++c) {
    const int64_t i = kHalves ? c : 2 * c, j = kHalves ? c + h : 2 * c + 1;
    const Real a = x[i], b = x[j], s = sign * sin[c];
    y[i] = a * cos[c] - b * s;
    y[j] = b * cos[c] + a * s;
  }
  std::copy(x + 2 * h, x + D, y + 2 * h);
}

// The result lies in memory in the order of x, so that heads that were split off by a view can be merged again by a
// view.
Tensor turn(const Tensor& in, const Tensor& cos, const Tensor& sin, Real sign, RotaryStyle style) {
  const Tensor given = in.strides[-1] == 1 ? in : contiguous(in);
  const int leading = given.rank() - 1;
  std::array<int, Shape::kMaxRank> dims{}, inverse{};  // slowest first, the channels last
  std::iota(dims.begin(), dims.end(), 0);
  std::stable_sort(dims.begin(), dims.begin() + leading,
                   [&](int a, int b) { return given.strides[a] > given.strides[b]; });
  int position = 0;  // where the positions N are in that order
  for (int i = 0; i <= leading; ++i) {
    inverse[size_t(dims[size_t(i)])] = i;
    if (dims[size_t(i)] == leading - 1) position = i;
  }
  const Tensor x = view::permute(given, std::span<const int>(dims.data(), size_t(leading) + 1));
  Tensor y = empty(x.shape);
  Tensor result = view::permute(y, std::span<const int>(inverse.data(), size_t(leading) + 1));
  if (y.numel() == 0) return result;

  constexpr auto kHalfSplit = RotaryStyle::half_split, kInterleaved = RotaryStyle::interleaved;
  const auto row = style == kHalfSplit ? turn_row<kHalfSplit> : turn_row<kInterleaved>;
  const int64_t D = x.shape[-1], h = cos.shape[1];
  const Real *from = x.data(), *c = cos.data(), *s = sin.data();
  Real* to = y.mutable_data();
  parallel_for(x.numel() / D, std::max<int64_t>(1, (1 << 13) / D), [&](int64_t begin, int64_t end) {
    Shape index = x.shape;  // of row `begin`, then counted up
    int64_t rest = begin, at = 0;
    for (int d = leading - 1; d >= 0; --d) {
      index[d] = rest % x.shape[d];
      rest /= x.shape[d];
      at += index[d] * x.strides[d];
    }
    for (int64_t r = begin; r < end; ++r) {
      const int64_t n = index[position];
      row(from + at, c + n * h, s + n * h, sign, h, D, to + r * D);
      for (int d = leading - 1; d >= 0; --d) {
        at += x.strides[d];
        if (++index[d] < x.shape[d]) break;
        at -= index[d] * x.strides[d];
        index[d] = 0;
      }
    }
  });
  return result;
}

struct Rotate {
  static constexpr auto name = "rotate";
  RotaryStyle style = RotaryStyle::half_split;
  Saved cos{}, sin{};
  Real sign = 1;

  Tensor forward(std::span<const Tensor> x) { return turn(x[0], cos, sin, sign, style); }
  // the transpose of a rotation, also one times a factor, is the opposite rotation
  std::vector<Tensor> backward(const Tensor& dy, Needs) const { return {turn(dy, cos, sin, -sign, style)}; }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const {
    return {record(Rotate{style, cos, sin, -sign}, {dy})};
  }
};

}  // namespace

Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, RotaryStyle style, Where where) {
  check(x.rank() >= 2, "rotate: x must be (…, N, D), but is {}", x.shape);
  check(cos.rank() == 2 && cos.shape == sin.shape, "rotate: cos and sin must both be (N, R/2), but are {} and {}",
        cos.shape, sin.shape);
  check(cos.shape[0] == x.shape[-2], "rotate: cos and sin have {} positions, but x is {}", cos.shape[0], x.shape);
  check(2 * cos.shape[1] <= x.shape[-1], "rotate: cos and sin turn {} channels, but x is {}", 2 * cos.shape[1],
        x.shape);
  return record(Rotate{style, contiguous(cos), contiguous(sin)}, {x}, where);
}

}  // namespace rapt::inline RAPT_ABI

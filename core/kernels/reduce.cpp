#include "reduce.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "../lanes.h"
#include "../parallel.h"
#include "../vector_math.h"
#include "../view.h"
#include "elementwise.h"

namespace rapt::inline RAPT_ABI::kernels {

namespace {

// x (rows, n) -> y (rows). A long row is cut into fixed pieces whose sums are added in order.
void sum_rows(const Real* x, int64_t rows, int64_t n, Real* y) {
  constexpr int64_t kPiece = 1 << 14;
  int64_t pieces = std::max<int64_t>(1, (n + kPiece - 1) / kPiece);
  if (pieces == 1) {
    parallel_for(rows, std::max<int64_t>(1, kPiece / std::max<int64_t>(n, 1)), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const Real* p = x + r * n;
        y[r] = lane_sum(n, [=](int64_t i) { return p[i]; });
      }
    });
    return;
  }
  Storage partial(rows * pieces);
  parallel_tasks(rows * pieces, [&](int64_t task) {
    int64_t begin = task % pieces * kPiece;
    const Real* p = x + task / pieces * n + begin;
    partial.data[task] = lane_sum(std::min(kPiece, n - begin), [=](int64_t i) { return p[i]; });
  });
  for (int64_t r = 0; r < rows; ++r) {
    const Real* p = partial.data + r * pieces;
    y[r] = lane_sum(pieces, [=](int64_t i) { return p[i]; });
  }
}

// x (rows, n) -> y (n): rows in fixed groups, the groups' sums added in order and in double, there may be many.
void sum_columns(const Real* x, int64_t rows, int64_t n, Real* y) {
  constexpr int64_t kGroup = 64;
  int64_t groups = (rows + kGroup - 1) / kGroup;
  Storage partial(groups * n);
  parallel_tasks(groups, [&](int64_t g) {
    Real* sum = partial.data + g * n;
    std::fill(sum, sum + n, Real(0));
    for (int64_t r = g * kGroup; r < std::min(rows, (g + 1) * kGroup); ++r) {
      const Real* p = x + r * n;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) sum[i] += p[i];
    }
  });
  constexpr int64_t kWidth = 64;
  parallel_for((n + kWidth - 1) / kWidth, std::max<int64_t>(1, (1 << 13) / (groups * kWidth)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t first = begin * kWidth; first < std::min(n, end * kWidth); first += kWidth) {
                   int64_t width = std::min(kWidth, n - first);
                   double sum[kWidth] = {};
                   for (int64_t g = 0; g < groups; ++g) {
                     const Real* p = partial.data + g * n + first;
#pragma omp simd
                     for (int64_t i = 0; i < width; ++i) sum[i] += p[i];
                   }
                   for (int64_t i = 0; i < width; ++i) y[first + i] = Real(sum[i]);
                 }
               });
}

}  // namespace

Tensor sum_dims(const Tensor& x, uint32_t dims) {
  Shape out = x.shape;
  std::array<int, Shape::kMaxRank> order{};
  int outer = 0;
  for (int pass = 0; pass < 2; ++pass) {
    for (int d = 0; d < x.rank(); ++d) {
      if (int(dims >> d & 1) == pass) order[outer++] = d;
    }
  }
  int64_t reduced = 1;
  for (int d = 0; d < x.rank(); ++d) {
    if (!(dims >> d & 1)) continue;
    reduced *= x.shape[d];
    out[d] = 1;
  }
  Tensor y = empty(out);
  if (y.numel() == 0) return y;
  if (reduced == 0) return zeros(out);
  bool leading = x.contiguous() && dims == (1u << std::popcount(dims)) - 1 && y.numel() > 1;
  if (leading) {
    sum_columns(x.data(), reduced, y.numel(), y.mutable_data());
  } else {
    Tensor rows = contiguous(view::permute(x, {order.data(), size_t(x.rank())}));
    sum_rows(rows.data(), y.numel(), reduced, y.mutable_data());
  }
  return y;
}

bool sums_to(const Shape& from, const Shape& to) {
  if (to.rank > from.rank) return false;
  for (int i = 1; i <= to.rank; ++i) {
    if (to[-i] != from[-i] && to[-i] != 1) return false;
  }
  return true;
}

Tensor sum_to(const Tensor& x, const Shape& shape) {
  if (x.shape == shape) return x.detach();
  check(sums_to(x.shape, shape), "sum_to: {} to {}", x.shape, shape);
  uint32_t dims = 0;
  int extra = x.rank() - shape.rank;
  for (int d = 0; d < x.rank(); ++d) {
    if (d < extra || (shape[d - extra] == 1 && x.shape[d] != 1)) dims |= 1u << d;
  }
  return view::reshape(sum_dims(x, dims), shape);
}

namespace {

constexpr int64_t kStrip = 64;  // neighbouring columns that one task walks down together

// A dense tensor as (outer, n, inner) around dimension `dim`, cut into strips of at most 64 columns (`width`), each the
// n rows of one outer index. f(first element of the strip, index of the strip's first column in (outer, inner), width)
struct Strips {
  int64_t outer = 1, n, inner = 1;
  Strips(const Shape& shape, int dim) : n(shape[dim]) {
    for (int d = 0; d < dim; ++d) outer *= shape[d];
    for (int d = dim + 1; d < shape.rank; ++d) inner *= shape[d];
  }
  template <class F>
  void run(F f) const {
    const int64_t per_outer = (inner + kStrip - 1) / kStrip, work = n * std::min(inner, kStrip);
    parallel_for(outer * per_outer, std::max<int64_t>(1, kElementwiseGrain / std::max<int64_t>(work, 1)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t s = begin; s < end; ++s) {
                     int64_t o = s / per_outer, column = s % per_outer * kStrip;
                     f(o * n * inner + column, o * inner + column, std::min(kStrip, inner - column));
                   }
                 });
  }
};

Shape with_size(Shape shape, int dim, int64_t size) {
  shape[dim] = size;
  return shape;
}

}  // namespace

Tensor max_along(const char* op, const Tensor& x, int dim, Tokens& index) {
  Strips strips(x.shape, dim);
  const auto [outer, n, inner] = strips;
  Shape shape = with_size(x.shape, dim, 1);
  check(n > 0 || shape.numel() == 0, "{}: dimension {} of {} has no elements", op, dim, x.shape);
  Tensor dense = contiguous(x), y = empty(shape);
  index = Tokens(shape, std::vector<int32_t>(size_t(shape.numel())));
  const Real* from = dense.data();
  Real* best = y.mutable_data();
  int32_t* at = index.ids.data();
  strips.run([=, n = n, inner = inner](int64_t first, int64_t out, int64_t width) {
    const Real* row = from + first;
    if (inner == 1) {
      Real top = lane_max(n, [=](int64_t j) { return row[j]; });
      int64_t j = std::find_if(row, row + n, [](Real v) { return v != v; }) - row;
      if (j == n) j = std::find(row, row + n, top) - row;
      best[out] = row[j];
      at[out] = int32_t(j);
      return;
    }
    std::copy(row, row + width, best + out);
    std::fill(at + out, at + out + width, 0);
    for (int64_t j = 1; j < n; ++j) {
      row += inner;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) {
        Real now = best[out + i];
        bool larger = row[i] > now || (row[i] != row[i] && now == now);
        best[out + i] = larger ? row[i] : now;
        at[out + i] = larger ? int32_t(j) : at[out + i];
      }
    }
  });
  return y;
}

Tensor max_along_backward(const Tensor& dy, int dim, const Tokens& index, int64_t n) {
  Shape shape = with_size(dy.shape, dim, n);
  Tensor dense = contiguous(dy), dx = zeros(shape);
  const Real* from = dense.data();
  Real* to = dx.mutable_data();
  const int32_t* at = index.ids.data();
  Strips(shape, dim).run([=, inner = Strips(shape, dim).inner](int64_t first, int64_t out, int64_t width) {
    for (int64_t i = 0; i < width; ++i) to[first + at[out + i] * inner + i] = from[out + i];
  });
  return dx;
}

Tensor logsumexp_along(const Tensor& x, int dim) {
  Strips strips(x.shape, dim);
  const auto [outer, n, inner] = strips;
  Tensor dense = contiguous(x), y = empty(with_size(x.shape, dim, 1));
  const Real* from = dense.data();
  Real* to = y.mutable_data();
  strips.run([=, n = n, inner = inner](int64_t first, int64_t out, int64_t width) {
    const Real* p = from + first;
    if (inner == 1) {
      Real top = lane_max(n, [=](int64_t j) { return p[j]; });
      Real shift = std::isinf(top) ? 0 : top;
      Real sum = lane_sum(n, [=](int64_t j) { return math::exp(p[j] - shift); });
      to[out] = sum == 0 ? -kInf : shift + std::log(sum);
      return;
    }
    Real shift[kStrip], sum[kStrip];
    std::fill(shift, shift + width, -kInf);
    std::fill(sum, sum + width, Real(0));
    for (int64_t j = 0; j < n; ++j) {
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) shift[i] = p[j * inner + i] > shift[i] ? p[j * inner + i] : shift[i];
    }
    for (int64_t i = 0; i < width; ++i) shift[i] = std::isinf(shift[i]) ? 0 : shift[i];
    for (int64_t j = 0; j < n; ++j) {
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) sum[i] += math::exp(p[j * inner + i] - shift[i]);
    }
    for (int64_t i = 0; i < width; ++i) to[out + i] = sum[i] == 0 ? -kInf : shift[i] + std::log(sum[i]);
  });
  return y;
}

Tensor cumsum_along(const Tensor& x, int dim, bool reverse) {
  Strips strips(x.shape, dim);
  const auto [outer, n, inner] = strips;
  Tensor dense = contiguous(x), y = empty(x.shape);
  const Real* from = dense.data();
  Real* to = y.mutable_data();
  strips.run([=, n = n, inner = inner](int64_t first, int64_t, int64_t width) {
    double sum[kStrip] = {};
    for (int64_t k = 0; k < n; ++k) {
      int64_t row = first + (reverse ? n - 1 - k : k) * inner;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) {
        sum[i] += from[row + i];
        to[row + i] = Real(sum[i]);
      }
    }
  });
  return y;
}

void add_into(Tensor& sum, const Tensor& x) {
  check(sum.shape == x.shape && sum.contiguous(), "add_into: {} into {}", x.shape, sum.shape);
  if (sum.numel() == 0) return;
  auto nest = loop_nest<2>(sum.shape, {&sum, &x});
  Real* to = sum.mutable_data();
  const Real* from = x.data();
  int64_t row = nest.row(), step = nest.row_stride(1);
  auto add_row = [step](Real* a, const Real* b, int64_t n) {
    if (step == 1) {
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) a[i] += b[i];
    } else {
      for (int64_t i = 0; i < n; ++i) a[i] += b[i * step];
    }
  };
  if (nest.rows() == 1) {
    parallel_for(row, kElementwiseGrain,
                 [&](int64_t begin, int64_t end) { add_row(to + begin, from + begin * step, end - begin); });
  } else {
    parallel_for(nest.rows(), std::max<int64_t>(1, kElementwiseGrain / row), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        auto at = nest.row_offsets(r);
        add_row(to + at[0], from + at[1], row);
      }
    });
  }
}

}  // namespace rapt::inline RAPT_ABI::kernels

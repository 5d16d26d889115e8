#include "gather.h"

#include <algorithm>

#include "../parallel.h"

namespace rapt::inline RAPT_ABI::kernels {

namespace {

// A tensor seen as (outer, n, inner) around one dimension.
struct Around {
  int64_t outer = 1, inner = 1;
  Around(const Shape& shape, int dim) {
    for (int d = 0; d < dim; ++d) outer *= shape[d];
    for (int d = dim + 1; d < shape.rank; ++d) inner *= shape[d];
  }
};

}  // namespace

Tensor gather(const Tensor& x, int dim, const Tokens& index) {
  dim = x.shape.axis(dim);
  int64_t n = x.shape[dim], count = index.numel();
  check(index.shape.rank == 1, "index_select: the index must have one dimension, but its shape is {}", index.shape);
  for (int64_t k = 0; k < count; ++k) {
    check(index.ids[k] >= 0 && index.ids[k] < n, "index_select: index {} at {} is not in [0, {}), dimension {} of {}",
          index.ids[k], k, n, dim, x.shape);
  }
  auto [outer, inner] = Around(x.shape, dim);
  Shape shape = x.shape;
  shape[dim] = count;
  Tensor dense = contiguous(x), y = empty(shape);
  const Real* from = dense.data();
  Real* to = y.mutable_data();
  const int32_t* ids = index.ids.data();
  constexpr int64_t kGrain = 1 << 14;
  parallel_for(outer * count, std::max<int64_t>(1, kGrain / std::max<int64_t>(inner, 1)),
               [=, inner = inner](int64_t begin, int64_t end) {
                 for (int64_t r = begin; r < end; ++r) {
                   const Real* row = from + (r / count * n + ids[r % count]) * inner;
                   std::copy(row, row + inner, to + r * inner);
                 }
               });
  return y;
}

Tensor scatter_add(const Tensor& dy, int dim, const Tokens& index, int64_t n) {
  dim = dy.shape.axis(dim);
  int64_t count = index.numel();
  auto [outer, inner] = Around(dy.shape, dim);
  Shape shape = dy.shape;
  shape[dim] = n;
  Tensor dense = contiguous(dy), dx = zeros(shape);
  if (dense.numel() == 0) return dx;
  const Real* from = dense.data();
  Real* to = dx.mutable_data();
  const int32_t* ids = index.ids.data();
  constexpr int64_t kWidth = 64;  // columns of one task, which takes all k in order
  int64_t strips = (inner + kWidth - 1) / kWidth;
  parallel_tasks(outer * strips, [=, inner = inner](int64_t task) {
    int64_t o = task / strips, begin = task % strips * kWidth, width = std::min(kWidth, inner - begin);
    for (int64_t k = 0; k < count; ++k) {
      const Real* a = from + (o * count + k) * inner + begin;
      Real* sum = to + (o * n + ids[k]) * inner + begin;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) sum[i] += a[i];
    }
  });
  return dx;
}

}  // namespace rapt::inline RAPT_ABI::kernels

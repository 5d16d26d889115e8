#include <algorithm>

#include "../../core/gemm.h"
#include "../../core/parallel.h"
#include "../../core/strided.h"
#include "../../core/view.h"
#include "../ops.h"

namespace rapt::inline RAPT_ABI {

namespace {

/// A stack of matrices of which gemm can read each where it lies: rows or columns are dense.
struct Matrices {
  Tensor tensor;  // (…, rows, columns)
  bool transposed = false;
  int64_t stride = 0;  // from one dense row or column to the next

  explicit Matrices(const Tensor& x) : tensor(x.detach()) {
    int64_t rows = x.shape[-2], columns = x.shape[-1];
    if (x.strides[-1] == 1 && (x.strides[-2] >= columns || rows == 1)) {
      stride = std::max({x.strides[-2], columns, int64_t{1}});
    } else if (x.strides[-2] == 1 && (x.strides[-1] >= rows || columns == 1)) {
      transposed = true;
      stride = std::max({x.strides[-1], rows, int64_t{1}});
    } else {
      tensor = contiguous(x);
      stride = std::max<int64_t>(columns, 1);
    }
  }

  /// Element offset of matrix `i` of the stack `batch` that this one broadcasts to.
  int64_t offset(int64_t i, const Shape& batch) const {
    int64_t at = 0;
    for (int d = 1; d <= batch.rank; ++d) {
      int64_t index = i % batch[-d];
      i /= batch[-d];
      int own = tensor.rank() - 2 - d;
      if (own >= 0 && tensor.shape[own] != 1) at += index * tensor.strides[own];
    }
    return at;
  }
};

/// A leading dimension that CBLAS accepts.
int64_t leading(int64_t n) { return std::max<int64_t>(n, 1); }

/// How many rows (…, n) has.
int64_t row_count(const Tensor& x) {
  int64_t n = 1;
  for (int d = 0; d + 1 < x.rank(); ++d) n *= x.shape[d];
  return n;
}

Shape stack_shape(Shape shape) {
  shape.erase(-1);
  shape.erase(-1);
  return shape;
}

struct Matmul {
  static constexpr auto name = "matmul";
  Saved a, b;

  // a (…, M, K), b (…, K, N) -> (…, M, N)
  Tensor forward(std::span<const Tensor> x, Needs needs) {
    check(x[0].shape[-1] == x[1].shape[-2], "{}: shapes {} and {} don't fit", name, x[0].shape, x[1].shape);
    if (needs[1]) a = x[0];
    if (needs[0]) b = x[1];
    const Matrices left(x[0]), right(x[1]);
    const int64_t m = x[0].shape[-2], k = x[0].shape[-1], n = x[1].shape[-1];
    const Shape batch = broadcast(name, stack_shape(x[0].shape), stack_shape(x[1].shape));
    Shape shape = batch;
    shape.push_back(m);
    shape.push_back(n);
    Tensor y = empty(shape);
    Real* out = y.mutable_data();
    auto one = [&](auto product, int64_t i) {
      product(left.transposed, right.transposed, m, n, k, Real(1), left.tensor.data() + left.offset(i, batch),
              left.stride, right.tensor.data() + right.offset(i, batch), right.stride, Real(0), out + i * m * n,
              leading(n));
    };
    // many small products: one task each; few large ones: each on all threads
    const int64_t count = batch.numel();
    if (count >= 8) {
      parallel_tasks(count, [&](int64_t i) { one(gemm_serial, i); });
    } else {
      for (int64_t i = 0; i < count; ++i) one(gemm, i);
    }
    return y;
  }

  std::vector<Tensor> backward(const Tensor& dy, Needs needs) const {
    return {needs[0] ? matmul(dy, transpose(b.get(), -1, -2)) : Tensor(),
            needs[1] ? matmul(transpose(a.get(), -1, -2), dy) : Tensor()};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs needs, Attach at) const {
    return {needs[0] ? matmul(dy, transpose(at.input(1, b), -1, -2)) : Tensor(),
            needs[1] ? matmul(transpose(at.input(0, a), -1, -2), dy) : Tensor()};
  }

  Cost cost(std::span<const Tensor> x, Needs needs) const {
    const Shape batch = broadcast(name, stack_shape(x[0].shape), stack_shape(x[1].shape));
    const double product = 2.0 * double(batch.numel() * x[0].shape[-2] * x[0].shape[-1] * x[1].shape[-1]);
    return {product, product * (needs[0] + needs[1])};
  }
};

struct Linear {
  static constexpr auto name = "linear";
  bool has_bias = false;
  Saved x, weight;

  // x (…, in), weight (out, in), bias (out) -> (…, out)
  Tensor forward(std::span<const Tensor> in, Needs needs) {
    const Tensor& w = in[1];
    check(w.rank() == 2, "{}: weight must be (out, in), but is {}", name, w.shape);
    check(in[0].rank() >= 1 && in[0].shape[-1] == w.shape[1], "{}: weight is {}, but x is {}", name, w.shape,
          in[0].shape);
    has_bias = in.size() == 3;
    Tensor rows = contiguous(in[0]), dense = contiguous(w);
    if (needs[1]) x = rows;
    if (needs[0]) weight = dense;
    const int64_t inner = w.shape[1], outer = w.shape[0], count = row_count(in[0]);
    Shape shape = in[0].shape;
    shape[-1] = outer;
    Tensor y = empty(shape);
    if (has_bias) {
      check(in[2].shape == Shape{outer}, "{}: bias is {}, but weight is {}", name, in[2].shape, w.shape);
      copy_into(y, view::expand(in[2], shape));
    }
    gemm(false, true, count, outer, inner, 1, rows.data(), leading(inner), dense.data(), leading(inner),
         has_bias ? 1 : 0, y.mutable_data(), leading(outer));
    return y;
  }

  std::vector<Tensor> backward(const Tensor& dy, Needs needs) const {
    Tensor d = contiguous(dy), dx, dw;
    const int64_t outer = d.shape[-1], count = row_count(d);
    if (needs[0]) {
      const Tensor& w = weight;
      Shape shape = d.shape;
      shape[-1] = w.shape[1];
      dx = empty(shape);
      gemm(false, false, count, w.shape[1], outer, 1, d.data(), leading(outer), w.data(), leading(w.shape[1]), 0,
           dx.mutable_data(), leading(w.shape[1]));
    }
    if (needs[1]) {
      const Tensor& rows = x;
      const int64_t inner = rows.shape[-1];
      dw = empty({outer, inner});
      gemm(true, false, outer, inner, count, 1, d.data(), leading(outer), rows.data(), leading(inner), 0,
           dw.mutable_data(), leading(inner));
    }
    // the bias was broadcast: the engine sums dy over the rows
    std::vector<Tensor> out{std::move(dx), std::move(dw)};
    if (has_bias) out.push_back(needs[2] ? d : Tensor());
    return out;
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs needs, Attach at) const {
    Tensor dx, dw;
    if (needs[0]) dx = matmul(dy, at.input(1, weight));
    if (needs[1]) {
      const Tensor rows = at.input(0, x);
      const int64_t inner = rows.shape[-1], outer = dy.shape[-1], count = row_count(rows);
      dw = matmul(transpose(reshape(dy, {count, outer}), 0, 1), reshape(rows, {count, inner}));
    }
    std::vector<Tensor> out{std::move(dx), std::move(dw)};
    if (has_bias) out.push_back(needs[2] ? dy : Tensor());
    return out;
  }

  Cost cost(std::span<const Tensor> in, Needs needs) const {
    const double product = 2.0 * double(in[0].numel() * in[1].shape[0]);
    return {product, product * (needs[0] + needs[1])};
  }
};

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b, Where where) {
  check(a.rank() >= 1 && b.rank() >= 1, "matmul: shapes {} and {} have no rows to multiply", a.shape, b.shape);
  if (a.rank() == 1) return squeeze(matmul(unsqueeze(a, 0, where), b, where), b.rank() == 1 ? 0 : -2, where);
  if (b.rank() == 1) return squeeze(matmul(a, unsqueeze(b, 1, where), where), -1, where);
  if (a.rank() > 2 && b.rank() == 2) {  // one product instead of a stack: the gradient of b needs no sum over it
    Shape shape = a.shape;
    shape[-1] = b.shape[1];
    check(a.shape[-1] == b.shape[0], "matmul: shapes {} and {} don't fit", a.shape, b.shape);
    return reshape(record(Matmul{}, {reshape(a, {row_count(a), a.shape[-1]}, where), b}, where), shape, where);
  }
  return record(Matmul{}, {a, b}, where);
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, Where where) {
  return bias ? record(Linear{}, {x, weight, bias}, where) : record(Linear{}, {x, weight}, where);
}

}  // namespace rapt::inline RAPT_ABI

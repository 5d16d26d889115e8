#pragma once
#include <algorithm>
#include <cmath>

#include "attention.h"

/// What the forward, backward, tiled and dense files share: sizes, and heads as matrices.
namespace rapt::inline RAPT_ABI {

/// The sizes of one call. Letters in comments are those of attention.h.
struct AttentionProblem {
  int64_t batch, heads, kv_heads, queries, keys, dim, value_dim;  // B, H, Hkv, N, M, D, Dv
  bool causal;
  Real scale;

  int64_t group() const { return heads / kv_heads; }
  int64_t offset() const { return keys - queries; }  ///< query i stands at position i + offset of the keys
  /// Queries below q_end read no key from here on.
  int64_t key_end(int64_t q_end) const {
    return causal ? std::max<int64_t>(0, std::min(keys, q_end + offset())) : keys;
  }
  /// Keys from k_begin on are read by no query below this.
  int64_t query_begin(int64_t k_begin) const {
    return causal ? std::max<int64_t>(0, std::min(queries, k_begin - offset())) : 0;
  }
};

/// Checks shapes; `op` begins the error's text.
inline AttentionProblem attention_problem(const char* op, const Tensor& q, const Tensor& k, const Tensor& v,
                                          const AttentionOptions& options) {
  check(q.rank() == 4 && k.rank() == 4 && v.rank() == 4 && q.shape[0] == k.shape[0] && q.shape[0] == v.shape[0] &&
            k.shape[1] == v.shape[1] && k.shape[1] > 0 && q.shape[1] % k.shape[1] == 0 && q.shape[3] == k.shape[3] &&
            q.shape[3] > 0 && k.shape[2] == v.shape[2],
        "{}: expected q (B, H, N, D), k (B, Hkv, M, D) and v (B, Hkv, M, Dv) with H a multiple of Hkv, got q {}, k {} "
        "and v {}",
        op, q.shape, k.shape, v.shape);
  AttentionProblem p{q.shape[0], q.shape[1], k.shape[1],     q.shape[2],   k.shape[2],
                     q.shape[3], v.shape[3], options.causal, options.scale};
  if (p.scale == 0) p.scale = Real(1 / std::sqrt(double(p.dim)));
  return p;
}

/// A (B, H, rows, columns) tensor as matrices with dense rows: matrix(b, h) begins at (b, h), row_stride elements from
/// row to row.
template <class T>
struct Heads {
  T* data;
  int64_t batch_stride, head_stride, row_stride;

  T* operator()(int64_t b, int64_t h, int64_t row = 0) const {
    return data + b * batch_stride + h * head_stride + row * row_stride;
  }
};

/// Whether each row is dense, and rows don't overlap.
inline bool has_dense_rows(const Tensor& x) {
  return (x.strides[3] == 1 || x.shape[3] <= 1) && (x.strides[2] >= x.shape[3] || x.shape[2] <= 1);
}

/// x itself (detached), or a copy if its rows aren't dense.
inline Tensor with_dense_rows(const Tensor& x) { return has_dense_rows(x) ? x.detach() : contiguous(x); }

inline Heads<const Real> read_heads(const Tensor& x) {
  return {x.data(), x.strides[0], x.strides[1], std::max(x.strides[2], x.shape[3])};
}

inline Heads<Real> write_heads(const char* op, const char* name, Tensor& x, const Shape& shape) {
  check(x.shape == shape && has_dense_rows(x),
        "{}: expected {} with the shape {} and dense rows, got {} with strides {}", op, name, shape, x.shape,
        x.strides);
  return {x.mutable_data(), x.strides[0], x.strides[1], std::max(x.strides[2], x.shape[3])};
}

/// Checks a result of the forward, or its gradient.
inline void check_shape(const char* op, const char* name, const Tensor& x, const Shape& shape) {
  check(x.shape == shape, "{}: expected {} with the shape {}, got {}", op, name, shape, x.shape);
}

}  // namespace rapt::inline RAPT_ABI

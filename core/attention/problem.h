#pragma once
#include <algorithm>
#include <cmath>

#include "attention.h"

/// What forward and backward share: sizes, heads as matrices, and tables bound to memory.
namespace rapt::inline RAPT_ABI {

/// The sizes of one call. Letters in comments are those of attention.h.
struct AttentionProblem {
  int64_t batch, heads, kv_heads, queries, keys, dim, value_dim;  // B, H, Hkv, N, M, D, Dv
  Real scale;
  Band band;  // of the mask
  const AttentionCall& call;

  const AttentionOptions& options() const { return call.options; }
  ScoreShape scores() const { return {batch, heads, queries, keys}; }
  int64_t group() const { return heads / kv_heads; }
  int64_t offset() const { return keys - queries; }  ///< query i stands at position i + offset of the keys

  /// Queries in [q_begin, q_end) read no key outside [key_begin, key_end); keys in [k_begin, k_end) are read by no
  /// query outside [query_begin, query_end).
  int64_t key_begin(int64_t q_begin) const { return std::clamp<int64_t>(q_begin + offset() + band.low, 0, keys); }
  int64_t key_end(int64_t q_end) const { return std::clamp<int64_t>(q_end + offset() + band.high, 0, keys); }
  int64_t query_begin(int64_t k_begin) const { return std::clamp<int64_t>(k_begin - offset() - band.high, 0, queries); }
  int64_t query_end(int64_t k_end) const { return std::clamp<int64_t>(k_end - offset() - band.low, 0, queries); }
};

/// Checks shapes; `op` begins the error's text.
AttentionProblem attention_problem(const char* op, const AttentionCall& call);
/// Throws for what attention_dense computes and the kernels don't.
void check_tiles_carry(const char* op, const AttentionOptions& options);

/// The tables of a call: dense, with the place of each part.
struct BoundTables {
  std::vector<Tensor> dense;                                                                // keeps the memory
  std::vector<Table> tables;                                                                // gradient null
  std::vector<size_t> score_first;                                                          // of each score rule
  size_t sink = 0, rows = 0, relative_queries = 0, relative_keys = 0, relative_values = 0;  // size() if there is none

  explicit BoundTables(const AttentionProblem& p);
};

/// Applies the chain of modifiers to one strip.
void apply_scores(const AttentionOptions& options, const BoundTables& bound, const Strip& strip, Real* scores);

/// The inputs of each modifier of the chain for one strip, kept to go back through it.
struct ScoreStages {
  explicit ScoreStages(const AttentionOptions& options) : inputs(options.score.rules().size() * kTile) {}
  /// As apply_scores.
  void apply(const AttentionOptions& options, const BoundTables& bound, const Strip& strip, Real* scores);
  /// gradient: of the chain's results in, of its inputs out. `tables` have the gradients to add to.
  void pull_back(const AttentionOptions& options, const BoundTables& bound, const Table* tables, const Strip& strip,
                 Real* gradient) const;
  std::vector<Real> inputs;
};

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

// The two kernels, and what their backwards take: tasks and bytes of working memory.
void tiled_forward(const AttentionProblem& p, Tensor& out, Tensor& lse);
void tiled_backward(const AttentionProblem& p, const Tensor& out, const Tensor& lse, const Tensor& dout,
                    const Tensor* dlse, Tensor& dq, Tensor& dk, Tensor& dv, std::span<Tensor> dtables);
struct BackwardCost {
  int64_t tasks, bytes;
};
BackwardCost tiled_backward_cost(const AttentionProblem& p);
BackwardCost row_backward_cost(const AttentionProblem& p);
void row_forward(const AttentionProblem& p, Tensor& out, Tensor& lse);
void row_backward(const AttentionProblem& p, const Tensor& dout, const Tensor* dlse, Tensor& dq, Tensor& dk, Tensor& dv,
                  std::span<Tensor> dtables);

}  // namespace rapt::inline RAPT_ABI

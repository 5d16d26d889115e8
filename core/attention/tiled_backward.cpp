#include <limits>

#include "../lanes.h"
#include "../parallel.h"
#include "../transpose.h"
#include "../vector_math.h"
#include "tiles.h"

namespace rapt::inline RAPT_ABI {

namespace {

constexpr Real kInf = std::numeric_limits<Real>::infinity();

struct Operands {
  Heads<const Real> q, k, v, out, dout;
  Heads<Real> dq, dk, dv;
  const Real *lse, *dlse;
};

// What every tile of kTile queries of a head needs, computed once: q and dO transposed, and two numbers a query.
struct Prepared {
  const AttentionProblem& p;
  int64_t blocks = tiles(p.queries);
  Storage storage{p.batch * p.heads * blocks * size()};

  explicit Prepared(const AttentionProblem& problem) : p(problem) {}
  int64_t size() const { return kTile * (p.dim + p.value_dim + 2); }

  struct Block {
    Real *queries_t, *dout_t;  // (D, kTile), (Dv, kTile)
    Real *lse, *delta;  // (kTile); lse is +∞ where there are no keys or no query, so that weights come out as 0
  };
  Block block(int64_t head, int64_t q0) const {
    Real* at = storage.data + (head * blocks + q0 / kTile) * size();
    return {at, at + kTile * p.dim, at + kTile * (p.dim + p.value_dim), at + kTile * (p.dim + p.value_dim + 1)};
  }

  void prepare(const Operands& x, int64_t b, int64_t h, int64_t q0) {
    int64_t nq = std::min(kTile, p.queries - q0), head = b * p.heads + h;
    Block to = block(head, q0);
    transpose(nq, p.dim, x.q(b, h, q0), x.q.row_stride, to.queries_t, kTile);
    transpose(nq, p.value_dim, x.dout(b, h, q0), x.dout.row_stride, to.dout_t, kTile);
    for (int64_t i = 0; i < kTile; ++i) {
      to.lse[i] = kInf;
      to.delta[i] = 0;
    }
    for (int64_t i = 0; i < nq; ++i) {
      int64_t row = head * p.queries + q0 + i;
      if (x.lse[row] == -kInf) continue;
      const Real *out = x.out(b, h, q0 + i), *dout = x.dout(b, h, q0 + i);
      to.lse[i] = x.lse[row];
      to.delta[i] = lane_sum(p.value_dim, [=](int64_t c) { return out[c] * dout[c]; }) - (x.dlse ? x.dlse[row] : 0);
    }
  }
};

// scores -> weights P, and dweights dP -> gradients of the scores P (dP − delta); all [key][query].
void tile_gradients(const Tile& tile, const Prepared::Block& rows, Real* scores, Real* dweights) {
  for (int64_t j = 0; j < tile.nk; ++j) {
    Real *strip = scores + j * kTile, *dstrip = dweights + j * kTile;
    int64_t first = tile.diagonal + j;  // queries before it don't read this key
    if (first > 0) {
      for (int64_t i = 0; i < kTile; ++i) strip[i] = i < first ? -kInf : strip[i];
    }
    for (int64_t i = 0; i < kTile; ++i) {
      Real weight = math::exp(strip[i] - rows.lse[i]);
      strip[i] = weight;
      dstrip[i] = weight == 0 ? 0 : weight * (dstrip[i] - rows.delta[i]);  // never 0 · ∞
    }
  }
}

// What one task works on: tiles, and the gradients of one tile of keys as dense rows.
struct Workspace {
  Real *scores, *dweights, *dk, *dv;

  explicit Workspace(const AttentionProblem& p)
      : scores(tile_memory(kTile * (2 * kTile + p.dim + p.value_dim))),
        dweights(scores + kTile * kTile),
        dk(dweights + kTile * kTile),
        dv(dk + kTile * p.dim) {
    if (p.queries % kTile) std::fill_n(scores, 2 * kTile * kTile, Real(0));  // unused lanes, kept from being denormal
  }
};

void write_rows(int64_t rows, int64_t columns, const Real* from, Real* to, int64_t to_stride) {
  for (int64_t j = 0; j < rows; ++j) std::copy_n(from + j * columns, columns, to + j * to_stride);
}

// Gradients of keys [k0, k0 + kTile) of one kv head, from all queries that read them, and what these keys add to dq.
// dq(h) is the first row of head h; `first` if nothing was added to it before.
template <class DQ>
void backward_keys(const AttentionProblem& p, const Operands& x, const Prepared& prepared, const Workspace& work,
                   int64_t b, int64_t kv_head, int64_t k0, bool first, int64_t dq_stride, DQ dq) {
  const Real *k = x.k(b, kv_head, k0), *v = x.v(b, kv_head, k0);
  std::fill_n(work.dk, kTile * p.dim, Real(0));
  std::fill_n(work.dv, kTile * p.value_dim, Real(0));
  for (int64_t h = kv_head * p.group(); h < (kv_head + 1) * p.group(); ++h) {
    for (int64_t q0 = p.query_begin(k0) / kTile * kTile; q0 < p.queries; q0 += kTile) {
      Tile tile(p, q0, k0);
      Prepared::Block rows = prepared.block(b * p.heads + h, q0);
      tile_product(tile, p.dim, p.scale, k, x.k.row_stride, rows.queries_t, work.scores);
      tile_product(tile, p.value_dim, 1, v, x.v.row_stride, rows.dout_t, work.dweights);
      tile_gradients(tile, rows, work.scores, work.dweights);
      for_key_slices(tile, [&](int64_t j, int64_t count, int64_t i) {
        gemm_serial(false, false, count, p.value_dim, tile.nq - i, 1, work.scores + j * kTile + i, kTile,
                    x.dout(b, h, q0 + i), x.dout.row_stride, 1, work.dv + j * p.value_dim, p.value_dim);
        gemm_serial(false, false, count, p.dim, tile.nq - i, p.scale, work.dweights + j * kTile + i, kTile,
                    x.q(b, h, q0 + i), x.q.row_stride, 1, work.dk + j * p.dim, p.dim);
      });
      Real* dq_rows = dq(h) + q0 * dq_stride;
      for (int64_t i = 0; first && !tile.full() && i < tile.nq; ++i)
        std::fill_n(dq_rows + i * dq_stride, p.dim, Real(0));
      for_query_slices(tile, [&](int64_t i, int64_t count, int64_t keys) {
        gemm_serial(true, false, count, p.dim, keys, p.scale, work.dweights + i, kTile, k, x.k.row_stride,
                    first && tile.full() ? 0 : 1, dq_rows + i * dq_stride, dq_stride);
      });
    }
  }
  int64_t nk = std::min(kTile, p.keys - k0);
  write_rows(nk, p.dim, work.dk, x.dk(b, kv_head, k0), x.dk.row_stride);
  write_rows(nk, p.value_dim, work.dv, x.dv(b, kv_head, k0), x.dv.row_stride);
}

// The keys are cut into chunks, so that there are enough tasks for many cores also with few heads. Each chunk sums a dq
// of its own.
struct Chunks {
  int64_t count, keys;
  explicit Chunks(const AttentionProblem& p) {
    constexpr int64_t kTasks = 64;
    int64_t blocks = std::max<int64_t>(1, tiles(p.keys)), heads = std::max<int64_t>(1, p.batch * p.kv_heads);
    int64_t wanted = std::min(blocks, heads >= 16 ? 1 : (kTasks + heads - 1) / heads);
    int64_t blocks_each = (blocks + wanted - 1) / wanted;
    count = (blocks + blocks_each - 1) / blocks_each;
    keys = blocks_each * kTile;
  }
};

}  // namespace

void attention_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
                        const Tensor& dout, const Tensor* dlse, const AttentionOptions& options, Tensor& dq, Tensor& dk,
                        Tensor& dv) {
  constexpr const char* op = "attention_backward";
  AttentionProblem p = attention_problem(op, q, k, v, options);
  Shape out_shape{p.batch, p.heads, p.queries, p.value_dim}, lse_shape{p.batch, p.heads, p.queries};
  check_shape(op, "out", out, out_shape);
  check_shape(op, "dout", dout, out_shape);
  check_shape(op, "lse", lse, lse_shape);
  if (dlse) check_shape(op, "dlse", *dlse, lse_shape);
  Tensor q_rows = with_dense_rows(q), k_rows = with_dense_rows(k), v_rows = with_dense_rows(v),
         out_rows = with_dense_rows(out), dout_rows = with_dense_rows(dout), lse_dense = contiguous(lse),
         dlse_dense = dlse ? contiguous(*dlse) : Tensor();
  Operands x{read_heads(q_rows),
             read_heads(k_rows),
             read_heads(v_rows),
             read_heads(out_rows),
             read_heads(dout_rows),
             write_heads(op, "dq", dq, q.shape),
             write_heads(op, "dk", dk, k.shape),
             write_heads(op, "dv", dv, v.shape),
             lse_dense.data(),
             dlse ? dlse_dense.data() : nullptr};

  int64_t heads = p.batch * p.heads, kv_heads = p.batch * p.kv_heads, blocks = tiles(p.queries);
  Prepared prepared(p);
  parallel_tasks(heads * blocks, [&](int64_t task) {
    int64_t head = task / blocks;
    prepared.prepare(x, head / p.heads, head % p.heads, task % blocks * kTile);
  });

  // One task is one chunk of keys of one kv head with the queries of its group. The first chunks have the most queries
  // under a causal mask, and go first.
  Chunks chunks(p);
  int64_t matrix = p.queries * p.dim;
  Storage partial(chunks.count > 1 ? chunks.count * heads * matrix : 0);
  parallel_tasks_dynamic(chunks.count * kv_heads, [&](int64_t task) {
    int64_t chunk = task / kv_heads, b = task % kv_heads / p.kv_heads, kv_head = task % p.kv_heads;
    int64_t k_begin = chunk * chunks.keys, k_end = std::min(p.keys, k_begin + chunks.keys);
    int64_t dq_stride = chunks.count > 1 ? p.dim : x.dq.row_stride;
    auto head_dq = [&](int64_t h) {
      return chunks.count > 1 ? partial.data + (chunk * heads + b * p.heads + h) * matrix : x.dq(b, h);
    };
    Workspace work(p);
    for (int64_t k0 = k_begin; k0 < k_end; k0 += kTile) {
      backward_keys(p, x, prepared, work, b, kv_head, k0, k0 == k_begin, dq_stride, head_dq);
    }
    for (int64_t h = kv_head * p.group(); k_begin == 0 && h < (kv_head + 1) * p.group(); ++h) {
      int64_t no_keys = p.keys > 0 ? p.query_begin(0) / kTile * kTile : p.queries;  // whole tiles, touched by no task
      for (int64_t i = 0; i < no_keys; ++i) std::fill_n(head_dq(h) + i * dq_stride, p.dim, Real(0));
    }
  });
  if (chunks.count == 1) return;

  parallel_tasks(heads * blocks, [&](int64_t task) {
    int64_t head = task / blocks, q0 = task % blocks * kTile;
    for (int64_t i = q0; i < std::min(p.queries, q0 + kTile); ++i) {
      Real* sum = x.dq(head / p.heads, head % p.heads, i);
      std::fill_n(sum, p.dim, Real(0));
      for (int64_t chunk = 0; chunk < chunks.count; ++chunk) {
        if (i < p.query_begin(chunk * chunks.keys)) break;
        const Real* add = partial.data + (chunk * heads + head) * matrix + i * p.dim;
        for (int64_t c = 0; c < p.dim; ++c) sum[c] += add[c];
      }
    }
  });
}

}  // namespace rapt::inline RAPT_ABI

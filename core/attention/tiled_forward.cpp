#include <limits>

#include "../parallel.h"
#include "../transpose.h"
#include "../vector_math.h"
#include "tiles.h"

namespace rapt::inline RAPT_ABI {

namespace {

constexpr Real kInf = std::numeric_limits<Real>::infinity();

// The softmax of kTile queries over the keys seen so far. Lanes beyond the number of queries hold numbers that are
// never used.
struct OnlineSoftmax {
  alignas(64) Real max[kTile];
  alignas(64) Real sum[kTile];      // of exp(score − max)
  alignas(64) Real shift[kTile];    // max, or 0 while no key was seen, so that −∞ − (−∞) is never formed
  alignas(64) Real rescale[kTile];  // what earlier weights are worth under the new maximum

  OnlineSoftmax() {
    for (int64_t i = 0; i < kTile; ++i) {
      max[i] = -kInf;
      sum[i] = 0;
    }
  }

  // Takes in a tile of scores [key][query] and turns them into weights exp(score − max).
  void add(const Tile& tile, Real* scores) {
    alignas(64) Real highest[kTile], part[kTile];
    for (int64_t i = 0; i < kTile; ++i) highest[i] = max[i];
    for (int64_t j = 0; j < tile.nk; ++j) {
      Real* strip = scores + j * kTile;
      int64_t first = tile.diagonal + j;  // queries before it don't read this key
      if (first > 0) {
        for (int64_t i = 0; i < kTile; ++i) strip[i] = i < first ? -kInf : strip[i];
      }
      for (int64_t i = 0; i < kTile; ++i) highest[i] = strip[i] > highest[i] ? strip[i] : highest[i];
    }
    for (int64_t i = 0; i < kTile; ++i) {
      shift[i] = highest[i] == -kInf ? 0 : highest[i];
      rescale[i] = math::exp(max[i] - shift[i]);
      max[i] = highest[i];
      part[i] = 0;
    }
    for (int64_t j = 0; j < tile.nk; ++j) {
      Real* strip = scores + j * kTile;
      for (int64_t i = 0; i < kTile; ++i) {
        strip[i] = math::exp(strip[i] - shift[i]);
        part[i] += strip[i];
      }
    }
    for (int64_t i = 0; i < kTile; ++i) sum[i] = sum[i] * rescale[i] + part[i];
  }
};

struct Operands {
  Heads<const Real> q, k, v;
  Heads<Real> out;
  Real* lse;
};

// One tile of queries of one head against all keys that they read.
void forward_queries(const AttentionProblem& p, const Operands& x, int64_t b, int64_t h, int64_t q0) {
  int64_t kv_head = h / p.group(), nq = std::min(kTile, p.queries - q0);
  Real* queries_t = tile_memory(kTile * (p.dim + kTile + p.value_dim));
  Real *scores = queries_t + kTile * p.dim, *sum = scores + kTile * kTile;
  transpose(nq, p.dim, x.q(b, h, q0), x.q.row_stride, queries_t, kTile);
  if (nq < kTile) std::fill_n(scores, kTile * kTile, Real(0));  // lanes that stay unused, kept from being denormal
  OnlineSoftmax softmax;
  int64_t key_end = p.key_end(q0 + nq);
  for (int64_t k0 = 0; k0 < key_end; k0 += kTile) {
    Tile tile(p, q0, k0);
    tile_product(tile, p.dim, p.scale, x.k(b, kv_head, k0), x.k.row_stride, queries_t, scores);
    softmax.add(tile, scores);
    if (k0 > 0) {
      for (int64_t i = 0; i < nq; ++i) {
        Real rescale = softmax.rescale[i], *row = sum + i * p.value_dim;
        if (rescale == 1) continue;
        for (int64_t c = 0; c < p.value_dim; ++c) row[c] *= rescale;
      }
    } else if (!tile.full()) {
      std::fill_n(sum, nq * p.value_dim, Real(0));  // slices that read no key are left out below
    }
    for_query_slices(tile, [&](int64_t i, int64_t count, int64_t keys) {
      gemm_serial(true, false, count, p.value_dim, keys, 1, scores + i, kTile, x.v(b, kv_head, k0), x.v.row_stride,
                  k0 > 0 ? 1 : 0, sum + i * p.value_dim, p.value_dim);
    });
  }
  Real* lse = x.lse + (b * p.heads + h) * p.queries + q0;
  for (int64_t i = 0; i < nq; ++i) {
    Real *row = sum + i * p.value_dim, *out = x.out(b, h, q0 + i);
    bool no_keys = softmax.sum[i] == 0;
    Real inverse = 1 / softmax.sum[i];
    for (int64_t c = 0; c < p.value_dim; ++c) out[c] = no_keys ? 0 : row[c] * inverse;
    lse[i] = no_keys ? -kInf : softmax.max[i] + math::log(softmax.sum[i]);
  }
}

}  // namespace

void attention_forward(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options, Tensor& out,
                       Tensor& lse) {
  constexpr const char* op = "attention_forward";
  AttentionProblem p = attention_problem(op, q, k, v, options);
  check_shape(op, "lse", lse, {p.batch, p.heads, p.queries});
  check(lse.contiguous(), "{}: lse must be dense", op);
  Tensor q_rows = with_dense_rows(q), k_rows = with_dense_rows(k), v_rows = with_dense_rows(v);
  Operands x{read_heads(q_rows), read_heads(k_rows), read_heads(v_rows),
             write_heads(op, "out", out, {p.batch, p.heads, p.queries, p.value_dim}), lse.mutable_data()};
  // Under a causal mask the last queries have the most keys: they go first, so that the small tasks fill the gaps.
  int64_t heads = p.batch * p.heads, blocks = tiles(p.queries);
  parallel_tasks_dynamic(heads * blocks, [&](int64_t task) {
    int64_t head = task % heads, block = blocks - 1 - task / heads;
    forward_queries(p, x, head / p.heads, head % p.heads, block * kTile);
  });
}

}  // namespace rapt::inline RAPT_ABI

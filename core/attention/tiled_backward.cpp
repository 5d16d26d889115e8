#include <cstring>

#include "../lanes.h"
#include "../parallel.h"
#include "../transpose.h"
#include "../vector_math.h"
#include "relative.h"
#include "table_gradients.h"
#include "tiles.h"

namespace rapt::inline RAPT_ABI {

namespace {

struct BackwardOperands {
  Heads<const Real> q, k, v, out, dout;
  Heads<Real> dq, dk, dv;
  const Real *lse, *dlse;
  const BoundTables& bound;
};

// to[i] = a[i] · b[i] for at most kTile rows. The lanes of all rows are turned and added together: a sum across the
// lanes of a single row takes longer than its products.
void row_products(int64_t rows, int64_t columns, const Real* a, int64_t a_stride, const Real* b, int64_t b_stride,
                  Real* to) {
  using Vector [[gnu::vector_size(64)]] = Real;
  constexpr int64_t kLanes = 64 / sizeof(Real);
  alignas(64) Real lanes[kTile][kLanes], turned[kLanes][kTile];
  for (int64_t i = 0; i < rows; ++i) {
    const Real *left = a + i * a_stride, *right = b + i * b_stride;
    Vector sum = {};
    int64_t c = 0;
    for (; c + kLanes <= columns; c += kLanes) {
      Vector u, v;
      std::memcpy(&u, left + c, sizeof(Vector));
      std::memcpy(&v, right + c, sizeof(Vector));
      sum += u * v;
    }
    std::memcpy(lanes[i], &sum, sizeof(Vector));
    for (int64_t l = 0; c < columns; ++c, ++l) lanes[i][l] += left[c] * right[c];
  }
  transpose(rows, kLanes, lanes[0], kLanes, turned[0], kTile);
  for (int64_t i = 0; i < rows; ++i) to[i] = 0;
  for (int64_t l = 0; l < kLanes; ++l) {
    for (int64_t i = 0; i < rows; ++i) to[i] += turned[l][i];
  }
}

// What every tile of kTile queries of a head needs, computed once: q and dO transposed, and two numbers a query.
struct Prepared {
  const AttentionProblem& p;
  int64_t blocks = tiles(p.queries);
  Storage storage{p.batch * p.heads * blocks * size()};

  explicit Prepared(const AttentionProblem& problem) : p(problem) {}
  int64_t size() const { return kTile * (p.dim + p.value_dim + 3); }

  struct Block {
    Real *queries_t, *dout_t;  // (D, kTile), (Dv, kTile)
    Real *lse, *delta;  // (kTile); lse is +∞ where there are no keys or no query, so that weights come out as 0
    Real* finite;       // 0 or 1: whether q, and dO, have neither NaN nor infinities, and whether no lse is NaN
  };
  Block block(int64_t head, int64_t q0) const {
    Real* at = storage.data + (head * blocks + q0 / kTile) * size();
    Real* rows = at + kTile * (p.dim + p.value_dim);
    return {at, at + kTile * p.dim, rows, rows + kTile, rows + 2 * kTile};
  }

  void prepare(const BackwardOperands& x, int64_t b, int64_t h, int64_t q0) {
    int64_t nq = std::min(kTile, p.queries - q0), head = b * p.heads + h;
    Block to = block(head, q0);
    const Real *q = x.q(b, h, q0), *dout = x.dout(b, h, q0);
    transpose(nq, p.dim, q, x.q.row_stride, to.queries_t, kTile);
    transpose(nq, p.value_dim, dout, x.dout.row_stride, to.dout_t, kTile);
    to.finite[0] = Real(all_finite(nq, p.dim, q, x.q.row_stride));
    to.finite[1] = Real(all_finite(nq, p.value_dim, dout, x.dout.row_stride));
    bool divided = p.options().normalizer.kind != Normalizer::Kind::elementwise;
    for (int64_t i = 0; i < kTile; ++i) {
      to.lse[i] = kInf;
      to.delta[i] = 0;
    }
    to.finite[2] = 1;
    alignas(64) Real products[kTile];
    if (divided) row_products(nq, p.value_dim, x.out(b, h, q0), x.out.row_stride, dout, x.dout.row_stride, products);
    for (int64_t i = 0; i < nq; ++i) {
      int64_t row = head * p.queries + q0 + i;
      if (x.lse[row] == -kInf) continue;
      if (std::isnan(x.lse[row])) to.finite[2] = 0;
      to.lse[i] = x.lse[row];
      if (divided) to.delta[i] = products[i] - (x.dlse ? x.dlse[row] : 0);
    }
  }
};

// One strip: scores -> weights (dropped ones 0), and dweights dP -> gradients of the scores, P (dP − delta) for a
// softmax. Masked scores are −∞. `factors` of the dropout, or null; `lanes` are used. What is subtracted is read before
// the choice, here and below: a load in one arm becomes a masked one, whose other lanes are what the register held, and
// an operation on those may raise a flag.
void strip_gradients(const Normalizer& normalizer, const Prepared::Block& rows, const Real* factors, Lanes lanes,
                     Real* strip, Real* dstrip) {
  alignas(64) Real weights[kTile], slopes[kTile];
  if (factors) for_lanes(lanes, [&](int64_t i) { dstrip[i] *= factors[i]; });
  switch (normalizer.kind) {
    case Normalizer::Kind::softmax:
      for_lanes(lanes, [&](int64_t i) {
        Real weight = math::exp(strip[i] - rows.lse[i]);
        Real above_mean = dstrip[i] - rows.delta[i];
        strip[i] = weight;
        dstrip[i] = weight == 0 ? 0 : weight * above_mean;  // never 0 · ∞
      });
      break;
    case Normalizer::Kind::signed_softmax:
      for (int64_t i = 0; i < kTile; ++i) {
        Real score = strip[i], sign = Real(score > 0) - Real(score < 0);
        Real size = score == -kInf ? -kInf : std::fabs(score);  // the other infinity would overflow
        Real weight = math::exp(size - rows.lse[i]);
        Real above_mean = dstrip[i] - sign * rows.delta[i];
        strip[i] = sign * weight;
        dstrip[i] = weight == 0 ? 0 : weight * above_mean;
      }
      break;
    default:
      for (int64_t i = 0; i < kTile; ++i) slopes[i] = strip[i] == -kInf ? 0 : strip[i];
      normalizer.weight->slopes(kTile, slopes, weights, slopes);
      bool ratio = normalizer.kind == Normalizer::Kind::ratio;
      for (int64_t i = 0; i < kTile; ++i) {
        bool masked = strip[i] == -kInf || rows.lse[i] == kInf;
        Real factor = ratio ? std::exp(-rows.lse[i]) : Real(1);  // not cut off: sums of weights may be large
        Real weight = weights[i], slope = slopes[i], above_mean = dstrip[i] - rows.delta[i];
        strip[i] = masked ? 0 : weight * factor;
        dstrip[i] = masked || slope == 0 ? 0 : slope * factor * above_mean;
      }
  }
  if (factors) for_lanes(lanes, [&](int64_t i) { strip[i] *= factors[i]; });
}

// What one task works on: tiles, and the gradients of one tile of keys as dense rows.
struct Workspace {
  Real *scores, *dweights, *dk, *dv, *factors, *rest;
  uint8_t* keep;
  ScoreStages stages;
  const Table* tables;  // with the gradients that this task adds to

  static int64_t memory(const AttentionProblem& p, const BoundTables& bound) {
    return kTile * (3 * kTile + p.dim + p.value_dim) + (p.call.dropout ? kTile * kTile : 0) +
           RelativeTerm(p, bound, 0, 0, 0).memory() + DistanceWeights(p, bound).memory();
  }
  Workspace(const AttentionProblem& p, const BoundTables& bound, const Table* with_gradients)
      : stages(p.options()), tables(with_gradients) {
    int64_t dropout = p.call.dropout ? kTile * kTile : 0;
    scores = tile_memory(memory(p, bound));
    dweights = scores + kTile * kTile;
    dk = dweights + kTile * kTile;
    dv = dk + kTile * p.dim;
    keep = reinterpret_cast<uint8_t*>(dv + kTile * p.value_dim);
    factors = dv + kTile * p.value_dim + kTile * kTile;
    rest = factors + dropout;
    // lanes that are computed with and not used must be neither denormal nor infinite
    const AttentionOptions& o = p.options();
    const bool plain =
        o.score.empty() && !o.relative_keys && !o.relative_values && o.normalizer.kind == Normalizer::Kind::softmax;
    if (p.queries % kTile || !plain) std::fill_n(scores, 2 * kTile * kTile, Real(0));
  }
};

void write_rows(int64_t rows, int64_t columns, const Real* from, Real* to, int64_t to_stride) {
  for (int64_t j = 0; j < rows; ++j) std::copy_n(from + j * columns, columns, to + j * to_stride);
}

// The scores of a tile and the gradients of its weights -> weights, and gradients of the raw scores.
void tile_gradients(const AttentionProblem& p, const BackwardOperands& x, const Prepared::Block& rows, Workspace& work,
                    int64_t b, int64_t h, const Tile& tile) {
  const AttentionOptions& options = p.options();
  const bool modified = !options.score.empty();
  const bool whole = modified || options.relative_keys || options.relative_values;  // these read all of a strip
  if (p.call.dropout) p.call.dropout.factors(tile.strip(p, b, h, 0), p.heads, tile.nk, work.factors);
  for (int64_t j = 0; j < tile.nk; ++j) {
    Real *strip = work.scores + j * kTile, *dstrip = work.dweights + j * kTile;
    Strip at = tile.strip(p, b, h, j);
    if (modified) work.stages.apply(options, x.bound, at, strip);
    mask_strip(tile, j, strip);
    strip_gradients(options.normalizer, rows, p.call.dropout ? work.factors + j * kTile : nullptr,
                    whole ? Lanes{0, kTile} : lanes_read(tile, j), strip, dstrip);
    if (rows.finite[2] == 0) {  // the NaN of a row is in its weights for the keys that it reads, and no others
      for (int64_t i = 0; i < kTile; ++i) {
        if (!tile.reads(j, i)) strip[i] = dstrip[i] = 0;
      }
    }
    if (modified) {
      alignas(64) uint8_t dead[kTile];  // masked or without weight: no gradient, whatever the modifiers' slopes are
      for (int64_t i = 0; i < kTile; ++i) dead[i] = dstrip[i] == 0;
      work.stages.pull_back(options, x.bound, work.tables, at, dstrip);
      for (int64_t i = 0; i < kTile; ++i) dstrip[i] = dead[i] ? 0 : dstrip[i];
    }
  }
}

// Gradients of keys [k0, k0 + kTile) of one kv head, from all queries that read them, and what these keys add to dq.
// dq(h, i) is row i of head h.
template <class DQ>
void backward_keys(const AttentionProblem& p, const BackwardOperands& x, const Prepared& prepared, Workspace& work,
                   int64_t b, int64_t kv_head, int64_t k0, int64_t dq_stride, DQ dq) {
  const Real *k = x.k(b, kv_head, k0), *v = x.v(b, kv_head, k0);
  const int64_t nk = std::min(kTile, p.keys - k0);
  std::fill_n(work.dk, kTile * p.dim, Real(0));
  std::fill_n(work.dv, kTile * p.value_dim, Real(0));
  const bool finite_keys = all_finite(nk, p.dim, k, x.k.row_stride);
  DistanceWeights distances(p, x.bound);
  Real* rest = distances.use(work.rest);
  for (int64_t h = kv_head * p.group(); h < (kv_head + 1) * p.group(); ++h) {
    int64_t query_end = p.query_end(k0 + nk);
    for (int64_t q0 = p.query_begin(k0) / kTile * kTile; q0 < query_end; q0 += kTile) {
      Tile tile(p, q0, k0);
      classify(p, b, h, tile, work.keep);
      if (tile.cover == Cover::empty) continue;
      Prepared::Block rows = prepared.block(b * p.heads + h, q0);
      RelativeTerm term(p, x.bound, b, h, q0);
      term.use(rest);
      tile_product(tile, p.dim, p.scale, k, x.k.row_stride, rows.queries_t, work.scores);
      if (term) term.add_scores(tile, work.scores);
      tile_product(tile, p.value_dim, 1, v, x.v.row_stride, rows.dout_t, work.dweights);
      if (distances) distances.add_dweights(tile, p.offset(), rows.dout_t, work.dweights);
      tile_gradients(p, x, rows, work, b, h, tile);

      const Real *q = x.q(b, h, q0), *dout = x.dout(b, h, q0);
      Real* dq_rows = dq(h, q0);
      if (tile.full() || (finite_keys && rows.finite[0] != 0 && rows.finite[1] != 0)) {
        for_key_slices(tile, [&](int64_t j, int64_t count, int64_t i, int64_t end) {
          gemm_serial(false, false, count, p.value_dim, end - i, 1, work.scores + j * kTile + i, kTile,
                      dout + i * x.dout.row_stride, x.dout.row_stride, 1, work.dv + j * p.value_dim, p.value_dim);
          gemm_serial(false, false, count, p.dim, end - i, p.scale, work.dweights + j * kTile + i, kTile,
                      q + i * x.q.row_stride, x.q.row_stride, 1, work.dk + j * p.dim, p.dim);
        });
        for_query_slices(tile, [&](int64_t i, int64_t count, int64_t j, int64_t end) {
          gemm_serial(true, false, count, p.dim, end - j, p.scale, work.dweights + j * kTile + i, kTile,
                      k + j * x.k.row_stride, x.k.row_stride, 1, dq_rows + i * dq_stride, dq_stride);
        });
      } else {
        add_queries_to_keys(tile, work.scores, p.value_dim, 1, dout, x.dout.row_stride, work.dv, p.value_dim);
        add_queries_to_keys(tile, work.dweights, p.dim, p.scale, q, x.q.row_stride, work.dk, p.dim);
        add_keys_to_queries(tile, work.dweights, p.dim, p.scale, k, x.k.row_stride, dq_rows, dq_stride);
      }
      if (term) {
        term.pull_back(tile, work.dweights, work.tables[x.bound.relative_queries].gradient,
                       work.tables[x.bound.relative_keys].gradient);
      }
      if (distances && work.tables[x.bound.relative_values].gradient) {
        distances.clear();
        distances.add(tile, p.offset(), work.scores);
        distances.pull_back(tile.nq, dout, x.dout.row_stride, work.tables[x.bound.relative_values].gradient);
      }
    }
  }
  write_rows(nk, p.dim, work.dk, x.dk(b, kv_head, k0), x.dk.row_stride);
  write_rows(nk, p.value_dim, work.dv, x.dv(b, kv_head, k0), x.dv.row_stride);
}

// The keys are cut into chunks, so that there are enough tasks for many cores also with few heads. Each chunk sums a dq
// of its own, over the queries that its keys can be read by; there are few, to bound the memory that takes.
struct KeyChunks {
  struct Chunk {
    int64_t key_begin, key_end, query_begin, query_end;
    int64_t at;  // where its sums begin, in rows of all heads
  };
  std::vector<Chunk> all;
  int64_t rows = 0;  // of sums, of all chunks together

  explicit KeyChunks(const AttentionProblem& p) {
    constexpr int64_t kTasks = 64, kMost = 16;
    int64_t blocks = std::max<int64_t>(1, tiles(p.keys)), heads = std::max<int64_t>(1, p.batch * p.kv_heads);
    int64_t wanted = std::min({blocks, kMost, heads >= 16 ? 1 : (kTasks + heads - 1) / heads});
    int64_t each = (blocks + wanted - 1) / wanted * kTile;
    for (int64_t begin = 0; begin == 0 || begin < p.keys; begin += each) {
      int64_t end = std::min(p.keys, begin + each), first = p.query_begin(begin) / kTile * kTile;
      // whole tiles: their products also write, or add zeros to, rows that read none of these keys
      int64_t last = std::min(p.queries, tiles(p.query_end(end)) * kTile);
      all.push_back({begin, end, first, std::max(first, last), rows});
      rows += (all.back().query_end - first) * p.batch * p.heads;
    }
    if (all.size() == 1) rows = 0;  // writes to dq itself
  }
  int64_t count() const { return int64_t(all.size()); }
  // The sum of query `row` of a head, counted over batches.
  static int64_t sum_row(const Chunk& c, int64_t head, int64_t row) {
    return c.at + head * (c.query_end - c.query_begin) + row - c.query_begin;
  }
};

// −Σ over the rows of e^(sink − lse) · delta
void sink_gradient(const AttentionProblem& p, const Prepared& prepared, const Real* sink, const Real* lse,
                   Real* dsink) {
  for (int64_t h = 0; h < p.heads; ++h) {
    Real sum = 0;
    for (int64_t b = 0; b < p.batch; ++b) {
      int64_t head = b * p.heads + h;
      const Real* rows = lse + head * p.queries;
      for (int64_t q0 = 0; q0 < p.queries; q0 += kTile) {
        const Real* delta = prepared.block(head, q0).delta;
        sum += lane_sum(std::min(kTile, p.queries - q0), [&](int64_t i) {
          return rows[q0 + i] == -kInf ? Real(0) : math::exp(sink[h] - rows[q0 + i]) * delta[i];
        });
      }
    }
    dsink[h] -= sum;
  }
}

}  // namespace

BackwardCost tiled_backward_cost(const AttentionProblem& p) {
  KeyChunks chunks(p);
  BoundTables bound(p);
  TableGradients gradients(p, bound, {p.batch, p.kv_heads, chunks.count()}, p.call.tables);
  int64_t heads = p.batch * p.heads;
  int64_t rows = heads * tiles(p.queries) * kTile * (p.dim + p.value_dim + 3);
  return {gradients.groups(), (rows + chunks.rows * p.dim + gradients.copies_size()) * int64_t(sizeof(Real))};
}

void tiled_backward(const AttentionProblem& p, const Tensor& out, const Tensor& lse, const Tensor& dout,
                    const Tensor* dlse, Tensor& dq, Tensor& dk, Tensor& dv, std::span<Tensor> dtables) {
  constexpr const char* op = "attention backward";
  const Tensor &q = p.call.q, &k = p.call.k, &v = p.call.v;
  BoundTables bound(p);
  Tensor q_rows = with_dense_rows(q), k_rows = with_dense_rows(k), v_rows = with_dense_rows(v),
         out_rows = with_dense_rows(out), dout_rows = with_dense_rows(dout), lse_dense = contiguous(lse),
         dlse_dense = dlse ? contiguous(*dlse) : Tensor();
  BackwardOperands x{read_heads(q_rows),
                     read_heads(k_rows),
                     read_heads(v_rows),
                     read_heads(out_rows),
                     read_heads(dout_rows),
                     write_heads(op, "dq", dq, q.shape),
                     write_heads(op, "dk", dk, k.shape),
                     write_heads(op, "dv", dv, v.shape),
                     lse_dense.data(),
                     dlse ? dlse_dense.data() : nullptr,
                     bound};

  int64_t heads = p.batch * p.heads, blocks = tiles(p.queries);
  Prepared prepared(p);
  parallel_tasks(heads * blocks, [&](int64_t task) {
    int64_t head = task / blocks;
    prepared.prepare(x, head / p.heads, head % p.heads, task % blocks * kTile);
  });
  if (bound.sink < dtables.size() && dtables[bound.sink])
    sink_gradient(p, prepared, bound.tables[bound.sink].data, x.lse, dtables[bound.sink].mutable_data());

  // One task is one chunk of keys of one kv head with the queries of its group. The first chunks have the most queries
  // under a causal mask, and go first.
  KeyChunks chunks(p);
  const bool direct = chunks.count() == 1;
  Storage partial(chunks.rows * p.dim);
  TableGradients gradients(p, bound, {p.batch, p.kv_heads, chunks.count()}, dtables);
  if (gradients.groups() > 0) reserve_tile_memory(Workspace::memory(p, bound));
  gradients.run([&](int64_t b, int64_t kv_head, int64_t index, const Table* tables) {
    const KeyChunks::Chunk& chunk = chunks.all[size_t(index)];
    const int64_t dq_stride = direct ? x.dq.row_stride : p.dim;
    auto dq_row = [&](int64_t h, int64_t row) {
      return direct ? x.dq(b, h, row) : partial.data + KeyChunks::sum_row(chunk, b * p.heads + h, row) * p.dim;
    };
    Workspace work(p, bound, tables);
    for (int64_t h = kv_head * p.group(); h < (kv_head + 1) * p.group(); ++h) {
      const int64_t begin = direct ? 0 : chunk.query_begin, end = direct ? p.queries : chunk.query_end;
      for (int64_t i = begin; i < end; ++i) std::fill_n(dq_row(h, i), p.dim, Real(0));
    }
    for (int64_t k0 = chunk.key_begin; k0 < chunk.key_end; k0 += kTile)
      backward_keys(p, x, prepared, work, b, kv_head, k0, dq_stride, dq_row);
  });
  gradients.finish();
  if (direct) return;

  parallel_tasks(heads * blocks, [&](int64_t task) {
    int64_t head = task / blocks, q0 = task % blocks * kTile;
    for (int64_t i = q0; i < std::min(p.queries, q0 + kTile); ++i) {
      Real* sum = x.dq(head / p.heads, head % p.heads, i);
      std::fill_n(sum, p.dim, Real(0));
      for (const KeyChunks::Chunk& chunk : chunks.all) {
        if (i < chunk.query_begin || i >= chunk.query_end) continue;
        const Real* add = partial.data + KeyChunks::sum_row(chunk, head, i) * p.dim;
        for (int64_t c = 0; c < p.dim; ++c) sum[c] += add[c];
      }
    }
  });
}

}  // namespace rapt::inline RAPT_ABI

#include "../parallel.h"
#include "../transpose.h"
#include "table_gradients.h"
#include "tiles.h"

/// Attention by blocks of complete rows, for normalisers that need a whole row before they know a single weight. A
/// block is kTile queries with all keys they read, so memory is linear in the number of keys; the products are those of
/// the tiles.
namespace rapt::inline RAPT_ABI {

void RowBlock::drop(int64_t h, Real* matrix) const {
  if (!dropout) return;
  alignas(64) Real factors[4 * kTile];
  for (int64_t j = 0; j < width; j += 4) {  // key is a multiple of kTile
    int64_t n = std::min<int64_t>(4, width - j);
    dropout.factors(strip(h, j), all_heads, n, factors);
    for (int64_t e = 0; e < n * kTile; ++e) matrix[j * kTile + e] *= factors[e];
  }
}

namespace {

struct RowOperands {
  Heads<const Real> q, k, v;
  const BoundTables& bound;
};

RowBlock row_block(const AttentionProblem& p, int64_t b, int64_t h, int64_t heads, int64_t q0) {
  int64_t nq = std::min(kTile, p.queries - q0);
  int64_t begin = p.key_begin(q0) / kTile * kTile, end = std::max(begin, p.key_end(q0 + nq));
  return {b, h, heads, q0, nq, begin, end - begin, p.queries, p.keys, p.heads, p.call.dropout};
}

// scores (heads, width, kTile) after modifiers and mask. `raw`, if not null, gets them as they were before. Gives the
// runs of keys [first, second), whole tiles, that some head reads; the other tiles are empty.
using KeyRuns = std::vector<std::pair<int64_t, int64_t>>;
KeyRuns block_scores(const AttentionProblem& p, const RowOperands& x, const RowBlock& block, Real* queries_t, Real* raw,
                     Real* scores) {
  std::vector<uint8_t> read(size_t(tiles(block.width)));
  alignas(64) uint8_t keep[kTile * kTile];
  std::fill_n(scores, block.heads * block.width * kTile, Real(0));
  for (int64_t h = 0; h < block.heads; ++h) {
    int64_t head = block.head + h, kv_head = head / p.group();
    transpose(block.count, p.dim, x.q(block.batch, head, block.row), x.q.row_stride, queries_t, kTile);
    for (int64_t j0 = 0; j0 < block.width; j0 += kTile) {
      Tile tile(p, block.row, block.key + j0);
      tile.nk = std::min(kTile, block.width - j0);
      Real* to = scores + block.at(h, j0);
      classify(p, block.batch, head, tile, keep);
      if (tile.cover == Cover::empty) {
        std::fill_n(to, tile.nk * kTile, -kInf);
        continue;
      }
      read[size_t(j0 / kTile)] = 1;
      tile_product(tile, p.dim, p.scale, x.k(block.batch, kv_head, tile.k0), x.k.row_stride, queries_t, to);
      if (raw) std::copy_n(to, tile.nk * kTile, raw + block.at(h, j0));
      for (int64_t j = 0; j < tile.nk; ++j) {
        Real* strip = to + j * kTile;
        apply_scores(p.options(), x.bound, block.strip(h, j0 + j), strip);
        mask_strip(tile, j, strip);
      }
    }
  }
  KeyRuns runs;
  for (size_t t = 0; t < read.size(); ++t) {
    if (!read[t]) continue;
    const int64_t begin = int64_t(t) * kTile, end = std::min(begin + kTile, block.width);
    if (t == 0 || !read[t - 1]) runs.emplace_back(begin, end);
    runs.back().second = end;
  }
  return runs;
}

// to[i] += alpha · Σ_j weights[j][i] · from[j] for `keys` keys. Entries of exactly 0 keep NaN away.
void keys_to_queries(int64_t queries, int64_t keys, const Real* weights, int64_t dim, Real alpha, const Real* from,
                     int64_t from_stride, Real* to, int64_t to_stride) {
  if (all_finite(keys, dim, from, from_stride)) {
    gemm_serial(true, false, queries, dim, keys, alpha, weights, kTile, from, from_stride, 1, to, to_stride);
    return;
  }
  for (int64_t j = 0; j < keys; ++j) {
    for (int64_t i = 0; i < queries; ++i) {
      Real weight = alpha * weights[j * kTile + i];
      for (int64_t c = 0; weight != 0 && c < dim; ++c) to[i * to_stride + c] += weight * from[j * from_stride + c];
    }
  }
}

// to[j] += alpha · Σ_i weights[j][i] · from[i], likewise.
void queries_to_keys(int64_t queries, int64_t keys, const Real* weights, int64_t dim, Real alpha, const Real* from,
                     int64_t from_stride, Real* to, int64_t to_stride) {
  if (all_finite(queries, dim, from, from_stride)) {
    gemm_serial(false, false, keys, dim, queries, alpha, weights, kTile, from, from_stride, 1, to, to_stride);
    return;
  }
  for (int64_t j = 0; j < keys; ++j) {
    for (int64_t i = 0; i < queries; ++i) {
      Real weight = alpha * weights[j * kTile + i];
      for (int64_t c = 0; weight != 0 && c < dim; ++c) to[j * to_stride + c] += weight * from[i * from_stride + c];
    }
  }
}

// One task of the backward is a chunk of the queries of one kv head (or of all heads), and sums a dk and dv of its own.
struct RowChunks {
  int64_t tasks, count;  // of heads in a batch entry; chunks
  explicit RowChunks(const AttentionProblem& p) : tasks(p.options().normalizer.rows->all_heads() ? 1 : p.kv_heads) {
    int64_t heads = std::max<int64_t>(1, p.batch * tasks);
    count = std::clamp<int64_t>((16 + heads - 1) / heads, 1, std::max<int64_t>(1, tiles(p.queries)));
  }
};

}  // namespace

BackwardCost row_backward_cost(const AttentionProblem& p) {
  RowChunks chunks(p);
  BoundTables bound(p);
  TableGradients gradients(p, bound, {p.batch, chunks.tasks, chunks.count}, p.call.tables);
  int64_t partial = chunks.count * p.batch * p.kv_heads * p.keys * (p.dim + p.value_dim);
  return {gradients.groups(), (partial + gradients.copies_size()) * int64_t(sizeof(Real))};
}

void row_forward(const AttentionProblem& p, Tensor& out, Tensor& lse) {
  const RowRule& rule = *p.options().normalizer.rows;
  BoundTables bound(p);
  Tensor q_rows = with_dense_rows(p.call.q), k_rows = with_dense_rows(p.call.k), v_rows = with_dense_rows(p.call.v);
  RowOperands x{read_heads(q_rows), read_heads(k_rows), read_heads(v_rows), bound};
  Heads<Real> y = write_heads("attention", "out", out, out.shape);
  Real* log_sums = lse.mutable_data();

  int64_t heads = rule.all_heads() ? p.heads : 1, tasks = p.batch * p.heads / heads, blocks = tiles(p.queries);
  parallel_tasks_dynamic(tasks * blocks, [&](int64_t task) {
    int64_t first = task % tasks * heads, q0 = (blocks - 1 - task / tasks) * kTile;
    RowBlock block = row_block(p, first / p.heads, first % p.heads, heads, q0);
    Real* scores = tile_memory(heads * (block.width + 1) * kTile + kTile * p.dim);
    Real *row_lse = scores + heads * block.width * kTile, *queries_t = row_lse + heads * kTile;
    const KeyRuns runs = block_scores(p, x, block, queries_t, nullptr, scores);
    rule.forward(block, bound.tables.data() + bound.rows, scores, row_lse);
    for (int64_t h = 0; h < heads; ++h) {
      int64_t head = block.head + h, kv_head = head / p.group();
      Real* weights = scores + block.at(h, 0);
      if (!rule.drops_by_itself()) block.drop(h, weights);
      Real* rows = y(block.batch, head, q0);
      for (int64_t i = 0; i < block.count; ++i) std::fill_n(rows + i * y.row_stride, p.value_dim, Real(0));
      for (auto [begin, end] : runs) {
        for (int64_t j = begin; j < end; j += kTile) {
          keys_to_queries(block.count, std::min(kTile, end - j), weights + j * kTile, p.value_dim, 1,
                          x.v(block.batch, kv_head, block.key + j), x.v.row_stride, rows, y.row_stride);
        }
      }
      std::copy_n(row_lse + h * kTile, block.count, log_sums + (block.batch * p.heads + head) * p.queries + q0);
    }
  });
}

void row_backward(const AttentionProblem& p, const Tensor& dout, const Tensor* dlse, Tensor& dq, Tensor& dk, Tensor& dv,
                  std::span<Tensor> dtables) {
  constexpr const char* op = "attention backward";
  const AttentionOptions& options = p.options();
  const RowRule& rule = *options.normalizer.rows;
  BoundTables bound(p);
  Tensor q_rows = with_dense_rows(p.call.q), k_rows = with_dense_rows(p.call.k), v_rows = with_dense_rows(p.call.v),
         dout_rows = with_dense_rows(dout), dlse_dense = dlse ? contiguous(*dlse) : Tensor();
  RowOperands x{read_heads(q_rows), read_heads(k_rows), read_heads(v_rows), bound};
  Heads<const Real> dy = read_heads(dout_rows);
  Heads<Real> dqs = write_heads(op, "dq", dq, p.call.q.shape), dks = write_heads(op, "dk", dk, p.call.k.shape),
              dvs = write_heads(op, "dv", dv, p.call.v.shape);

  const RowChunks split(p);
  const int64_t at_once = rule.all_heads() ? p.heads : 1, blocks = tiles(p.queries), chunks = split.count;
  const int64_t k_matrix = p.keys * p.dim, v_matrix = p.keys * p.value_dim, matrices = p.batch * p.kv_heads;
  Storage partial(chunks * matrices * (k_matrix + v_matrix));
  auto dk_of = [&](int64_t chunk, int64_t matrix) {
    return partial.data + (chunk * matrices + matrix) * (k_matrix + v_matrix);
  };

  TableGradients gradients(p, bound, {p.batch, split.tasks, chunks}, dtables);
  gradients.run([&](int64_t b, int64_t task_head, int64_t chunk, const Table* tables) {
    const int64_t kv_begin = task_head, kv_end = rule.all_heads() ? p.kv_heads : task_head + 1;
    for (int64_t kv = kv_begin; kv < kv_end; ++kv)
      std::fill_n(dk_of(chunk, b * p.kv_heads + kv), k_matrix + v_matrix, Real(0));
    ScoreStages stages(options);
    for (int64_t h = kv_begin * p.group(); h < kv_end * p.group(); h += at_once) {
      for (int64_t index = chunk; index < blocks; index += chunks) {
        RowBlock block = row_block(p, b, h, at_once, index * kTile);
        const int64_t q0 = block.row, matrix = at_once * block.width * kTile;
        Real* scores = tile_memory(3 * matrix + at_once * kTile + kTile * std::max(p.dim, p.value_dim));
        Real *raw = scores + matrix, *gradient = raw + matrix, *row_dlse = gradient + matrix,
             *transposed = row_dlse + at_once * kTile;
        std::fill_n(raw, 2 * matrix + at_once * kTile, Real(0));  // lanes without a query are computed with too
        const KeyRuns runs = block_scores(p, x, block, transposed, raw, scores);
        for (int64_t a = 0; a < at_once; ++a) {
          int64_t head = h + a;
          transpose(block.count, p.value_dim, dy(b, head, q0), dy.row_stride, transposed, kTile);
          for (auto [begin, end] : runs) {
            gemm_serial(false, false, end - begin, block.count, p.value_dim, 1,
                        x.v(b, head / p.group(), block.key + begin), x.v.row_stride, transposed, kTile, 0,
                        gradient + block.at(a, begin), kTile);
          }
          if (!rule.drops_by_itself()) block.drop(a, gradient + block.at(a, 0));
          for (int64_t i = 0; dlse && i < block.count; ++i)
            row_dlse[a * kTile + i] = dlse_dense.data()[(b * p.heads + head) * p.queries + q0 + i];
        }
        rule.backward(block, tables + bound.rows, scores, gradient, dlse ? row_dlse : nullptr);
        for (int64_t a = 0; a < at_once; ++a) {
          const int64_t head = h + a, kv = head / p.group();
          Real *weights = scores + block.at(a, 0), *dscores = gradient + block.at(a, 0);
          if (!rule.drops_by_itself()) block.drop(a, weights);
          for (auto [begin, end] : runs) {
            for (int64_t j = begin; j < end && !options.score.empty(); ++j) {
              Real* strip = dscores + j * kTile;
              Strip at = block.strip(a, j);
              uint8_t dead[kTile];
              for (int64_t i = 0; i < kTile; ++i) dead[i] = strip[i] == 0;
              stages.apply(options, bound, at, raw + block.at(a, j));
              stages.pull_back(options, bound, tables, at, strip);
              for (int64_t i = 0; i < kTile; ++i) strip[i] = dead[i] ? 0 : strip[i];
            }
          }
          Real *dk_rows = dk_of(chunk, b * p.kv_heads + kv) + block.key * p.dim,
               *dv_rows = dk_of(chunk, b * p.kv_heads + kv) + k_matrix + block.key * p.value_dim;
          Real* dq_rows = dqs(b, head, q0);
          for (int64_t i = 0; i < block.count; ++i) std::fill_n(dq_rows + i * dqs.row_stride, p.dim, Real(0));
          for (auto [begin, end] : runs) {
            for (int64_t j = begin; j < end; j += kTile) {
              int64_t nk = std::min(kTile, end - j);
              queries_to_keys(block.count, nk, weights + j * kTile, p.value_dim, 1, dy(b, head, q0), dy.row_stride,
                              dv_rows + j * p.value_dim, p.value_dim);
              queries_to_keys(block.count, nk, dscores + j * kTile, p.dim, p.scale, x.q(b, head, q0), x.q.row_stride,
                              dk_rows + j * p.dim, p.dim);
              keys_to_queries(block.count, nk, dscores + j * kTile, p.dim, p.scale, x.k(b, kv, block.key + j),
                              x.k.row_stride, dq_rows, dqs.row_stride);
            }
          }
        }
      }
    }
  });
  gradients.finish();

  parallel_tasks(matrices * tiles(p.keys), [&](int64_t task) {
    int64_t matrix = task / tiles(p.keys), k0 = task % tiles(p.keys) * kTile;
    int64_t b = matrix / p.kv_heads, kv = matrix % p.kv_heads;
    for (int64_t j = k0; j < std::min(p.keys, k0 + kTile); ++j) {
      Real *dk_row = dks(b, kv, j), *dv_row = dvs(b, kv, j);
      std::fill_n(dk_row, p.dim, Real(0));
      std::fill_n(dv_row, p.value_dim, Real(0));
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const Real *from_k = dk_of(chunk, matrix) + j * p.dim,
                   *from_v = dk_of(chunk, matrix) + k_matrix + j * p.value_dim;
        for (int64_t c = 0; c < p.dim; ++c) dk_row[c] += from_k[c];
        for (int64_t c = 0; c < p.value_dim; ++c) dv_row[c] += from_v[c];
      }
    }
  });
}

}  // namespace rapt::inline RAPT_ABI

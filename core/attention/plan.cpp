
#include "../parallel.h"
#include "../transpose.h"
#include "../vector_math.h"
#include "relative.h"
#include "tiles.h"

namespace rapt::inline RAPT_ABI {

Tensor attention_weights(const AttentionCall& call, const Tensor& lse, bool mean_over_heads) {
  constexpr const char* op = "attention_weights";
  AttentionProblem p = attention_problem(op, call);
  const Normalizer& normalizer = call.options.normalizer;
  check(!normalizer.rows, "{}: not for the normaliser {}, whose weights don't follow from lse; use attention_dense", op,
        normalizer.name());
  check_shape(op, "lse", lse, {p.batch, p.heads, p.queries});
  BoundTables bound(p);
  Tensor q_rows = with_dense_rows(call.q), k_rows = with_dense_rows(call.k), lse_dense = contiguous(lse);
  Heads<const Real> q = read_heads(q_rows), k = read_heads(k_rows);
  Tensor weights =
      zeros(mean_over_heads ? Shape{p.batch, p.queries, p.keys} : Shape{p.batch, p.heads, p.queries, p.keys});
  const Real share = mean_over_heads && p.heads > 0 ? 1 / Real(p.heads) : 1;
  Real* to = weights.mutable_data();
  auto add_rows = [&](int64_t b, int64_t h, int64_t q0) {
    const int64_t head = b * p.heads + h;
    Real* rows = to + (mean_over_heads ? b : head) * p.queries * p.keys;
    RelativeTerm term(p, bound, b, h, q0);
    Real* scores = tile_memory(kTile * (kTile + p.dim) + term.memory());
    Real* queries_t = scores + kTile * kTile;
    term.use(queries_t + kTile * p.dim);
    transpose(std::min(kTile, p.queries - q0), p.dim, q(b, h, q0), q.row_stride, queries_t, kTile);
    std::vector<uint8_t> keep(kTile * kTile);
    for (int64_t k0 = 0; k0 < p.keys; k0 += kTile) {
      Tile tile(p, q0, k0);
      classify(p, b, h, tile, keep.data());
      if (tile.cover == Cover::empty) continue;
      tile_product(tile, p.dim, p.scale, k(b, h / p.group(), k0), k.row_stride, queries_t, scores);
      if (term) term.add_scores(tile, scores);
      for (int64_t j = 0; j < tile.nk; ++j) {
        Real* strip = scores + j * kTile;
        apply_scores(p.options(), bound, tile.strip(p, b, h, j), strip);
        mask_strip(tile, j, strip);
        for (int64_t i = 0; i < tile.nq; ++i) {
          Real s = strip[i], log_sum = lse_dense.data()[head * p.queries + q0 + i], weight = s;
          if (s == -kInf) continue;
          if (normalizer.kind == Normalizer::Kind::softmax) {
            weight = math::exp(s - log_sum);
          } else if (normalizer.kind == Normalizer::Kind::signed_softmax) {
            weight = math::exp(std::fabs(s) - log_sum) * (Real(s > 0) - Real(s < 0));
          } else {
            normalizer.weight->weights(1, &weight);
            if (normalizer.kind == Normalizer::Kind::ratio) weight = log_sum == -kInf ? 0 : weight * std::exp(-log_sum);
          }
          rows[(q0 + i) * p.keys + k0 + j] += share * weight;
        }
      }
    }
  };
  const int64_t together =
      mean_over_heads ? std::max<int64_t>(1, p.heads) : 1;  // heads of one task, one after the other
  parallel_tasks(p.batch * p.heads / together * tiles(p.queries), [&](int64_t task) {
    const int64_t first = task / tiles(p.queries) * together;
    for (int64_t head = first; head < first + together; ++head)
      add_rows(head / p.heads, head % p.heads, task % tiles(p.queries) * kTile);
  });
  return weights;
}

AttentionPlan plan_attention(const AttentionCall& call) {
  AttentionProblem p = attention_problem("attention", call);
  check_tiles_carry("attention", call.options);
  const AttentionOptions& o = call.options;
  AttentionPlan plan;
  const bool rows = o.normalizer.rows != nullptr;
  plan.kernel = rows ? "blocks of rows" : "tiles";
  plan.variant = fmt::format("mask {}, score {}, {}", o.mask.name(), o.score.name(), o.normalizer.name());
  if (o.relative_keys) plan.variant += ", relative keys";
  if (o.relative_values) plan.variant += ", relative values";
  if (call.dropout) plan.variant += fmt::format(", dropout {}", call.dropout.p);
  double area = 0;  // entries that the products work on, slices of tiles on the edge of the band included
  std::vector<uint8_t> keep(kTile * kTile);
  for (int64_t head = 0; head < p.batch * p.heads; ++head) {
    for (int64_t q0 = 0; q0 < p.queries; q0 += kTile) {
      for (int64_t k0 = 0; k0 < p.keys; k0 += kTile) {
        Tile tile(p, q0, k0);
        classify(p, head / p.heads, head % p.heads, tile, keep.data());
        ++plan.tiles;
        if (tile.cover == Cover::empty) {
          ++plan.skipped;
          continue;
        }
        ++(tile.cover == Cover::full ? plan.full : plan.partial);
        for_key_slices(tile,
                       [&](int64_t, int64_t count, int64_t i, int64_t end) { area += double(count * (end - i)); });
      }
    }
  }
  const int64_t heads = p.batch * p.heads, word = int64_t(sizeof(Real));
  plan.forward_operations = 2 * area * double(p.dim + p.value_dim);
  plan.backward_operations = 2 * area * double(3 * p.dim + 2 * p.value_dim);
  plan.forward_tasks = (rows && o.normalizer.rows->all_heads() ? p.batch : heads) * tiles(p.queries);
  plan.saved_bytes = heads * p.queries * (p.value_dim + 1) * word;
  BackwardCost backward = rows ? row_backward_cost(p) : tiled_backward_cost(p);
  plan.backward_tasks = backward.tasks;
  plan.backward_bytes = backward.bytes;
  return plan;
}

std::string to_string(const AttentionPlan& plan) {
  double mb = 1.0 / (1 << 20);
  return fmt::format(
      "{}, by {}\n"
      "tiles of {}x{}: {} = {} full + {} partial + {} skipped\n"
      "forward: {} tasks, {:.3g} GFLOP, {:.3g} MB kept for the backward\n"
      "backward: {} tasks, {:.3g} GFLOP, {:.3g} MB of working memory",
      plan.variant, plan.kernel, kTile, kTile, plan.tiles, plan.full, plan.partial, plan.skipped, plan.forward_tasks,
      plan.forward_operations * 1e-9, double(plan.saved_bytes) * mb, plan.backward_tasks,
      plan.backward_operations * 1e-9, double(plan.backward_bytes) * mb);
}

}  // namespace rapt::inline RAPT_ABI

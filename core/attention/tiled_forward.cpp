
#include "../parallel.h"
#include "../transpose.h"
#include "../vector_math.h"
#include "relative.h"
#include "tiles.h"

namespace rapt::inline RAPT_ABI {

namespace {

// The weights of kTile queries over the keys seen so far, up to a factor for each query. Lanes beyond the number of
// queries hold numbers that are never used.
struct RunningWeights {
  const Normalizer& normalizer;
  alignas(64) Real max[kTile];
  alignas(64) Real sum[kTile];      // of exp(score − max), or of the weights
  alignas(64) Real shift[kTile];    // max, or 0 while no key was seen, so that −∞ − (−∞) is never formed
  alignas(64) Real rescale[kTile];  // what earlier weights are worth under the new maximum
  bool rescales = false;

  explicit RunningWeights(const Normalizer& n) : normalizer(n) {
    for (int64_t i = 0; i < kTile; ++i) {
      max[i] = -kInf;
      sum[i] = 0;
    }
  }

  // Takes in a tile of scores [key][query], masked ones −∞, and turns them into weights. At the edge of a band only the
  // entries that for_query_slices hands out are used, unless `whole`.
  void add(const Tile& tile, bool whole, Real* scores) {
    switch (normalizer.kind) {
      case Normalizer::Kind::softmax: return add_exponentials(tile, whole, scores);
      case Normalizer::Kind::signed_softmax: return add_signed(tile.nk, scores);
      default: return add_values(tile.nk, scores);
    }
  }

  void add_exponentials(const Tile& tile, bool whole, Real* scores) {
    alignas(64) Real highest[kTile], part[kTile] = {};
    std::copy_n(max, kTile, highest);
    auto slices = [&](auto f) {
      if (tile.nq <= kSlice) return f(std::integral_constant<int64_t, kSlice>(), int64_t{0}, int64_t{0}, tile.nk);
      if (whole || tile.inside_band())
        return f(std::integral_constant<int64_t, kTile>(), int64_t{0}, int64_t{0}, tile.nk);
      for_query_slices(tile, [&](int64_t i, int64_t, int64_t j, int64_t end) {
        f(std::integral_constant<int64_t, kSlice>(), i, j, end);
      });
    };
    slices([&](auto width, int64_t first, int64_t begin, int64_t end) {
      alignas(64) Real high[width];  // in registers
      for (int64_t i = 0; i < width; ++i) high[i] = highest[first + i];
      for (int64_t j = begin; j < end; ++j) {
        const Real* strip = scores + j * kTile + first;
        for (int64_t i = 0; i < width; ++i) high[i] = strip[i] > high[i] ? strip[i] : high[i];
      }
      for (int64_t i = 0; i < width; ++i) highest[first + i] = high[i];
    });
    raise(highest);
    slices([&](auto width, int64_t first, int64_t begin, int64_t end) {
      alignas(64) Real added[width], by[width];
      for (int64_t i = 0; i < width; ++i) {
        added[i] = 0;
        by[i] = shift[first + i];
      }
      for (int64_t j = begin; j < end; ++j) {
        Real* strip = scores + j * kTile + first;
        for (int64_t i = 0; i < width; ++i) {
          Real weight = math::exp(strip[i] - by[i]);
          strip[i] = weight;
          added[i] += weight;
        }
      }
      for (int64_t i = 0; i < width; ++i) part[first + i] = added[i];
    });
    for (int64_t i = 0; i < kTile; ++i) sum[i] = sum[i] * rescale[i] + part[i];
  }

  // sign(s) · exp(|s| − max)
  void add_signed(int64_t keys, Real* scores) {
    alignas(64) Real highest[kTile], part[kTile];
    for (int64_t i = 0; i < kTile; ++i) highest[i] = max[i];
    for (int64_t j = 0; j < keys; ++j) {
      const Real* strip = scores + j * kTile;
      for (int64_t i = 0; i < kTile; ++i) {
        Real size = strip[i] == -kInf ? -kInf : std::fabs(strip[i]);
        highest[i] = size > highest[i] ? size : highest[i];
      }
    }
    raise(highest);
    for (int64_t i = 0; i < kTile; ++i) part[i] = 0;
    for (int64_t j = 0; j < keys; ++j) {
      Real* strip = scores + j * kTile;
      for (int64_t i = 0; i < kTile; ++i) {
        Real size = strip[i] == -kInf ? -kInf : std::fabs(strip[i]);  // the other infinity would overflow
        Real weight = math::exp(size - shift[i]);
        part[i] += weight;
        strip[i] = strip[i] < 0 ? -weight : strip[i] > 0 ? weight : strip[i] == 0 ? 0 : strip[i];
      }
    }
    for (int64_t i = 0; i < kTile; ++i) sum[i] = sum[i] * rescale[i] + part[i];
  }

  void add_values(int64_t keys, Real* scores) {
    for (int64_t j = 0; j < keys; ++j) {
      Real* strip = scores + j * kTile;
      alignas(64) Real weights[kTile];
      for (int64_t i = 0; i < kTile; ++i) weights[i] = strip[i] == -kInf ? 0 : strip[i];
      normalizer.weight->weights(kTile, weights);
      for (int64_t i = 0; i < kTile; ++i) {
        strip[i] = strip[i] == -kInf ? 0 : weights[i];
        sum[i] += strip[i];
      }
    }
  }

  void raise(const Real* highest) {
    rescales = true;
    for (int64_t i = 0; i < kTile; ++i) {
      shift[i] = highest[i] == -kInf ? 0 : highest[i];
      rescale[i] = math::exp(max[i] - shift[i]);
      max[i] = highest[i];
    }
  }

  // What the weighted sum of query i is multiplied with at the end, and the log-sum-exp.
  struct End {
    Real factor, lse;
  };
  End end(int64_t i, const Real* sink) const {
    if (normalizer.kind == Normalizer::Kind::elementwise) return {1, 0};
    bool no_keys = sum[i] == 0;
    if (normalizer.kind == Normalizer::Kind::ratio)
      return {math::inverse_or_zero(sum[i]), no_keys ? -kInf : math::log_positive(sum[i])};
    Real lse = no_keys ? -kInf : max[i] + math::log_positive(sum[i]);
    if (!sink) return {math::inverse_or_zero(sum[i]), lse};
    // one more term e^sink
    Real high = lse > *sink ? lse : *sink;
    Real all = high == -kInf ? -kInf : high + math::log(math::exp(lse - high) + math::exp(*sink - high));
    return {math::exp(lse - all) * math::inverse_or_zero(sum[i]), all};
  }
};

struct ForwardOperands {
  Heads<const Real> q, k, v;
  Heads<Real> out;
  Real* lse;
  const BoundTables& bound;
};

// What the term of a tile, the modifiers and the mask make of raw scores.
void finish_scores(const AttentionProblem& p, const ForwardOperands& x, int64_t b, int64_t h, const Tile& tile,
                   Real* scores) {
  for (int64_t j = 0; j < tile.nk; ++j) {
    Real* strip = scores + j * kTile;
    if (!p.options().score.empty() && tile.first_query(j) < tile.query_end(j))
      apply_scores(p.options(), x.bound, tile.strip(p, b, h, j), strip);
    mask_strip(tile, j, strip);
  }
}

int64_t memory_of_queries(const AttentionProblem& p, const BoundTables& bound) {
  return kTile * (p.dim + kTile + p.value_dim + (p.call.dropout ? kTile : 0)) +
         RelativeTerm(p, bound, 0, 0, 0).memory() + DistanceWeights(p, bound).memory();
}

// One tile of queries of one head against all keys that they read.
void forward_queries(const AttentionProblem& p, const ForwardOperands& x, int64_t b, int64_t h, int64_t q0) {
  const AttentionOptions& options = p.options();
  const bool dropout = bool(p.call.dropout);
  int64_t kv_head = h / p.group(), nq = std::min(kTile, p.queries - q0);
  RelativeTerm term(p, x.bound, b, h, q0);
  DistanceWeights distances(p, x.bound);
  Real* queries_t = tile_memory(memory_of_queries(p, x.bound));
  Real *scores = queries_t + kTile * p.dim, *sum = scores + kTile * kTile, *factors = sum + kTile * p.value_dim,
       *rest = factors + (dropout ? kTile * kTile : 0);
  rest = term.use(rest);
  distances.use(rest);
  alignas(64) uint8_t keep[kTile * kTile];
  transpose(nq, p.dim, x.q(b, h, q0), x.q.row_stride, queries_t, kTile);
  if (nq < kTile) std::fill_n(scores, kTile * kTile, Real(0));  // lanes that stay unused, kept from being denormal
  RunningWeights weights(options.normalizer);
  bool first = true;
  int64_t key_end = p.key_end(q0 + nq);
  for (int64_t k0 = p.key_begin(q0) / kTile * kTile; k0 < key_end; k0 += kTile) {
    Tile tile(p, q0, k0);
    classify(p, b, h, tile, keep);
    if (tile.cover == Cover::empty) continue;
    tile_product(tile, p.dim, p.scale, x.k(b, kv_head, k0), x.k.row_stride, queries_t, scores);
    if (term) term.add_scores(tile, scores);
    finish_scores(p, x, b, h, tile, scores);
    weights.add(tile, bool(distances), scores);
    if (first) {
      if (!tile.inside_band())
        std::fill_n(sum, nq * p.value_dim, Real(0));  // slices that read no key are left out below
    } else if (weights.rescales) {
      for (int64_t i = 0; i < nq; ++i) {
        Real rescale = weights.rescale[i], *row = sum + i * p.value_dim;
        if (rescale == 1) continue;
        for (int64_t c = 0; c < p.value_dim; ++c) row[c] *= rescale;
      }
    }
    if (dropout) {
      p.call.dropout.factors(tile.strip(p, b, h, 0), p.heads, tile.nk, factors);
      for_query_slices(tile, [&](int64_t i, int64_t count, int64_t j, int64_t end) {  // others may be −∞
        for (; j < end; ++j) {
          for (int64_t l = j * kTile + i; l < j * kTile + i + count; ++l) scores[l] *= factors[l];
        }
      });
    }
    if (distances) {
      if (!first && weights.rescales) distances.rescale(nq, weights.rescale);
      distances.add(tile, p.offset(), scores);
    }
    const Real* values = x.v(b, kv_head, k0);
    if (!tile.full() && !all_finite(tile.nk, p.value_dim, values, x.v.row_stride)) {
      if (first) std::fill_n(sum, nq * p.value_dim, Real(0));
      add_keys_to_queries(tile, scores, p.value_dim, 1, values, x.v.row_stride, sum, p.value_dim);
    } else {
      Real beta = first && tile.inside_band() ? 0 : 1;
      for_query_slices(tile, [&](int64_t i, int64_t count, int64_t j, int64_t end) {
        gemm_serial(true, false, count, p.value_dim, end - j, 1, scores + j * kTile + i, kTile,
                    values + j * x.v.row_stride, x.v.row_stride, beta, sum + i * p.value_dim, p.value_dim);
      });
    }
    first = false;
  }
  if (first) std::fill_n(sum, nq * p.value_dim, Real(0));
  if (distances) distances.add_values(nq, sum);
  const Real* sink = options.normalizer.sink ? x.bound.tables[x.bound.sink].data + h : nullptr;
  Real* lse = x.lse + (b * p.heads + h) * p.queries + q0;
  for (int64_t i = 0; i < nq; ++i) {
    Real *row = sum + i * p.value_dim, *out = x.out(b, h, q0 + i);
    auto [factor, log_sum] = weights.end(i, sink);
    for (int64_t c = 0; c < p.value_dim; ++c) out[c] = factor == 0 ? 0 : row[c] * factor;
    lse[i] = log_sum;
  }
}

}  // namespace

void tiled_forward(const AttentionProblem& p, Tensor& out, Tensor& lse) {
  BoundTables bound(p);
  Tensor q_rows = with_dense_rows(p.call.q), k_rows = with_dense_rows(p.call.k), v_rows = with_dense_rows(p.call.v);
  ForwardOperands x{read_heads(q_rows), read_heads(k_rows),
                    read_heads(v_rows), write_heads("attention", "out", out, out.shape),
                    lse.mutable_data(), bound};
  // Under a causal mask the last queries have the most keys: they go first, so that the small tasks fill the gaps.
  int64_t heads = p.batch * p.heads, blocks = tiles(p.queries);
  if (heads * blocks > 0) reserve_tile_memory(memory_of_queries(p, bound));
  parallel_tasks_dynamic(heads * blocks, [&](int64_t task) {
    int64_t head = task % heads, block = blocks - 1 - task / heads;
    forward_queries(p, x, head / p.heads, head % p.heads, block * kTile);
  });
}

}  // namespace rapt::inline RAPT_ABI

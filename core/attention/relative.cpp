#include "relative.h"

#include "../transpose.h"

namespace rapt::inline RAPT_ABI {

RelativeTerm::RelativeTerm(const AttentionProblem& p, const BoundTables& bound, int64_t b, int64_t h, int64_t q0) {
  if (bound.relative_queries == bound.tables.size()) return;
  const Table &q = bound.tables[bound.relative_queries], &k = bound.tables[bound.relative_keys];
  dim_ = q.shape[3];
  rows_ = p.queries;
  nq_ = std::min(kTile, p.queries - q0);
  scale_ = p.scale;
  query_at_ = ((b * p.heads + h) * p.queries + q0) * dim_;
  key_at_ = k.shape[0] > 1 ? h * k.shape[1] * dim_ : 0;
  queries_ = q.data + query_at_;
  keys_ = k.data + key_at_;
}

Real* RelativeTerm::use(Real* memory) {
  if (!*this) return memory;
  queries_t_ = memory;
  products_ = memory + kTile * dim_;
  transpose(nq_, dim_, queries_, dim_, queries_t_, kTile);
  return products_ + 2 * kTile * kTile;
}

void RelativeTerm::add_scores(const Tile& tile, Real* scores) {
  gemm_serial(false, false, tile.nq + tile.nk - 1, tile.nq, dim_, scale_, keys_ + first_distance(tile) * dim_, dim_,
              queries_t_, kTile, 0, products_, kTile);
  for (int64_t j = 0; j < tile.nk; ++j) {
    const Real* from = products_ + (j + tile.nq - 1) * kTile;
    for (int64_t i = 0; i < tile.nq; ++i) scores[j * kTile + i] += from[i - i * kTile];
  }
}

void RelativeTerm::pull_back(const Tile& tile, const Real* dscores, Real* dqueries, Real* dkeys) {
  int64_t distances = tile.nq + tile.nk - 1;
  std::fill_n(products_, distances * kTile, Real(0));
  for (int64_t j = 0; j < tile.nk; ++j) {
    Real* to = products_ + (j + tile.nq - 1) * kTile;
    for (int64_t i = 0; i < tile.nq; ++i) to[i - i * kTile] = dscores[j * kTile + i];
  }
  int64_t first = first_distance(tile) * dim_;
  if (dqueries) {
    gemm_serial(true, false, tile.nq, dim_, distances, scale_, products_, kTile, keys_ + first, dim_, 1,
                dqueries + query_at_, dim_);
  }
  if (dkeys) {
    gemm_serial(false, false, distances, dim_, tile.nq, scale_, products_, kTile, queries_, dim_, 1,
                dkeys + key_at_ + first, dim_);
  }
}

DistanceWeights::DistanceWeights(const AttentionProblem& p, const BoundTables& bound) {
  if (bound.relative_values == bound.tables.size()) return;
  const Table& t = bound.tables[bound.relative_values];
  values_ = t.data;
  count_ = t.shape[0];
  reach_ = count_ / 2;
  value_dim_ = p.value_dim;
}

Real* DistanceWeights::use(Real* memory) {
  if (!*this) return memory;
  sums_ = memory;
  products_ = memory + kTile * count_;
  clear();
  return memory + 2 * kTile * count_;
}

void DistanceWeights::add(const Tile& tile, int64_t offset, const Real* weights) {
  for (int64_t j = 0; j < tile.nk; ++j) {
    int64_t distance = tile.k0 + j - tile.q0 - offset;
    for (int64_t i = 0; i < tile.nq; ++i) sums_[i * count_ + slot(distance - i)] += weights[j * kTile + i];
  }
}

void DistanceWeights::rescale(int64_t queries, const Real* factors) {
  for (int64_t i = 0; i < queries; ++i) {
    for (int64_t u = 0; u < count_; ++u) sums_[i * count_ + u] *= factors[i];
  }
}

void DistanceWeights::add_values(int64_t queries, Real* out) const {
  gemm_serial(false, false, queries, value_dim_, count_, 1, sums_, count_, values_, value_dim_, 1, out, value_dim_);
}

void DistanceWeights::add_dweights(const Tile& tile, int64_t offset, const Real* dout_t, Real* dweights) {
  gemm_serial(false, false, count_, tile.nq, value_dim_, 1, values_, value_dim_, dout_t, kTile, 0, products_, kTile);
  for (int64_t j = 0; j < tile.nk; ++j) {
    int64_t distance = tile.k0 + j - tile.q0 - offset;
    for (int64_t i = 0; i < tile.nq; ++i) dweights[j * kTile + i] += products_[slot(distance - i) * kTile + i];
  }
}

void DistanceWeights::pull_back(int64_t queries, const Real* dout, int64_t dout_stride, Real* dvalues) const {
  gemm_serial(true, false, count_, value_dim_, queries, 1, sums_, count_, dout, dout_stride, 1, dvalues, value_dim_);
}

}  // namespace rapt::inline RAPT_ABI

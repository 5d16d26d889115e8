#pragma once
#include "tiles.h"

/// The two relative terms that need more of a tile than one score at a time.
namespace rapt::inline RAPT_ABI {

/// Adds scale · rq[i] · rk[key − row + N − 1] to scores: a tile of nq × nk entries meets only nq + nk − 1 distances,
/// one small product of which gives all it needs (Dai 2019).
class RelativeTerm {
 public:
  RelativeTerm(const AttentionProblem& p, const BoundTables& bound, int64_t b, int64_t h, int64_t q0);
  explicit operator bool() const { return queries_ != nullptr; }
  int64_t memory() const { return *this ? kTile * (dim_ + 2 * kTile) : 0; }
  Real* use(Real* memory);  ///< takes what it needs, gives what is left
  void add_scores(const Tile& tile, Real* scores);
  /// From the gradients of a tile's scores, adds to those of the two tables.
  void pull_back(const Tile& tile, const Real* dscores, Real* dqueries, Real* dkeys);

 private:
  int64_t first_distance(const Tile& tile) const { return tile.k0 - (tile.q0 + tile.nq - 1) + rows_ - 1; }

  const Real *queries_ = nullptr, *keys_ = nullptr;  // rows of this tile of queries; of this head
  int64_t dim_ = 0, rows_ = 0, query_at_ = 0, key_at_ = 0, nq_ = 0;
  Real scale_ = 0;
  Real *queries_t_ = nullptr, *products_ = nullptr;  // (D, kTile), (distances, kTile)
};

/// Weights summed by clipped distance, for values that depend on it (Shaw 2018).
class DistanceWeights {
 public:
  DistanceWeights(const AttentionProblem& p, const BoundTables& bound);
  explicit operator bool() const { return values_ != nullptr; }
  int64_t memory() const { return *this ? 2 * kTile * count_ : 0; }
  Real* use(Real* memory);
  void clear() { std::fill_n(sums_, kTile * count_, Real(0)); }
  void add(const Tile& tile, int64_t offset, const Real* weights);
  void rescale(int64_t queries, const Real* factors);
  void add_values(int64_t queries, Real* out) const;  ///< out (queries, Dv) += sums · values
  /// dweights[j][i] += dout[i] · values[distance]
  void add_dweights(const Tile& tile, int64_t offset, const Real* dout_t, Real* dweights);
  /// dvalues += sumsᵀ · dout, after clear and add
  void pull_back(int64_t queries, const Real* dout, int64_t dout_stride, Real* dvalues) const;

 private:
  int64_t slot(int64_t distance) const { return std::clamp<int64_t>(distance, -reach_, reach_) + reach_; }

  const Real* values_ = nullptr;
  int64_t count_ = 0, reach_ = 0, value_dim_ = 0;  // 2C + 1, C, Dv
  Real *sums_ = nullptr, *products_ = nullptr;     // (kTile, count), (count, kTile)
};

}  // namespace rapt::inline RAPT_ABI

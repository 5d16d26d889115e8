#include "tiles.h"

#include <limits>

#include "../lanes.h"

namespace rapt::inline RAPT_ABI {

namespace {
constexpr Real kInf = std::numeric_limits<Real>::infinity();
}

void classify(const AttentionProblem& p, int64_t b, int64_t h, Tile& tile, uint8_t* memory) {
  const Mask& mask = p.options().mask;
  tile.keep = nullptr;
  if (mask.everything()) {
    tile.cover = Cover::full;
    return;
  }
  if (tile.outside_band()) {
    tile.cover = Cover::empty;
    return;
  }
  if (mask.rule().is_band()) {
    tile.cover = tile.inside_band() ? Cover::full : Cover::partial;
    return;
  }
  int64_t position = tile.q0 + p.offset();
  tile.cover = mask.rule().classify({b, h, position, position + tile.nq, tile.k0, tile.k0 + tile.nk}, p.scores());
  if (tile.cover != Cover::partial) return;
  int64_t kept = 0;
  for (int64_t j = 0; j < tile.nk; ++j) {
    uint8_t* row = memory + j * kTile;
    mask.rule().keep(tile.strip(p, b, h, j), row);
    for (int64_t i = 0; i < tile.nq; ++i) kept += row[i] != 0;
    for (int64_t i = tile.nq; i < kTile; ++i) row[i] = 0;
  }
  if (kept == 0) {
    tile.cover = Cover::empty;
  } else if (kept == tile.nq * tile.nk) {
    tile.cover = Cover::full;
  } else {
    tile.keep = memory;
  }
}

void mask_strip(const Tile& tile, int64_t j, Real* strip) {
  if (tile.full()) return;
  if (tile.keep) {
    const uint8_t* keep = tile.keep + j * kTile;
    for (int64_t i = 0; i < kTile; ++i) strip[i] = keep[i] ? strip[i] : -kInf;
    return;
  }
  int64_t first = tile.diagonal + j, last = tile.last + j;
  if (first <= 0 && last >= kTile - 1) return;
  for (int64_t i = 0; i < kTile; ++i) strip[i] = i < first || i > last ? -kInf : strip[i];
}

bool all_finite(int64_t rows, int64_t columns, const Real* x, int64_t stride) {
  constexpr int64_t kLanes = 16, kUnits = 4;
  alignas(64) Real sums[kUnits][kLanes] = {};  // x − x is 0 or NaN
  Real rest = 0;
  int64_t r = 0;
  // Four rows at a time: each addition waits for the one before it.
  for (; r + kUnits <= rows; r += kUnits) {
    const Real* row = x + r * stride;
    for (int64_t c = 0; c + kLanes <= columns; c += kLanes) {
      for (int64_t u = 0; u < kUnits; ++u) {
        for (int64_t i = 0; i < kLanes; ++i) {
          Real value = row[u * stride + c + i];
          sums[u][i] += value - value;
        }
      }
    }
  }
  for (int64_t i = 0, whole = columns / kLanes * kLanes; i < rows; ++i) {
    for (int64_t c = i < r ? whole : 0; c < columns; ++c) rest += x[i * stride + c] - x[i * stride + c];
  }
  for (const auto& unit : sums) rest += lane_sum(kLanes, [&](int64_t i) { return unit[i]; });
  return rest == 0;
}

void add_keys_to_queries(const Tile& tile, const Real* weights, int64_t dim, Real alpha, const Real* from,
                         int64_t from_stride, Real* to, int64_t to_stride) {
  for (int64_t j = 0; j < tile.nk; ++j) {
    for (int64_t i = 0; i < tile.nq; ++i) {
      if (!tile.reads(j, i)) continue;
      Real weight = alpha * weights[j * kTile + i];
      for (int64_t c = 0; c < dim; ++c) to[i * to_stride + c] += weight * from[j * from_stride + c];
    }
  }
}

void add_queries_to_keys(const Tile& tile, const Real* weights, int64_t dim, Real alpha, const Real* from,
                         int64_t from_stride, Real* to, int64_t to_stride) {
  for (int64_t j = 0; j < tile.nk; ++j) {
    for (int64_t i = 0; i < tile.nq; ++i) {
      if (!tile.reads(j, i)) continue;
      Real weight = alpha * weights[j * kTile + i];
      for (int64_t c = 0; c < dim; ++c) to[j * to_stride + c] += weight * from[i * from_stride + c];
    }
  }
}

}  // namespace rapt::inline RAPT_ABI

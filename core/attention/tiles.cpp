#include "tiles.h"

#include <atomic>
#include <cstring>

#include "../parallel.h"

namespace rapt::inline RAPT_ABI {

void reserve_tile_memory(int64_t elements) {
  static std::atomic<int64_t> reserved = 0, team = 0;
  if (elements <= reserved && threads() <= team) return;
  elements = std::max<int64_t>(reserved, elements);
  parallel_tasks(threads(), [=](int64_t) { tile_memory(elements); });
  reserved = elements;
  team = threads();
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
  // x − x is 0 or NaN. Four rows at a time, since each addition waits for the one before it; sums in registers.
  using Vector [[gnu::vector_size(64)]] = Real;
  constexpr int64_t kLanes = 64 / sizeof(Real), kUnits = 4;
  const int64_t whole_rows = rows / kUnits * kUnits, whole_columns = columns / kLanes * kLanes;
  Vector sums[kUnits] = {};
  for (int64_t r = 0; r < whole_rows; r += kUnits) {
    for (int64_t c = 0; c < whole_columns; c += kLanes) {
      Vector v[kUnits];
      for (int64_t u = 0; u < kUnits; ++u) std::memcpy(&v[u], x + (r + u) * stride + c, sizeof(Vector));
      for (int64_t u = 0; u < kUnits; ++u) sums[u] += v[u] - v[u];  // NOLINT(misc-redundant-expression)
    }
  }
  Real rest = 0;
  auto add_rest = [&](int64_t begin, int64_t end, int64_t first_column) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t c = first_column; c < columns; ++c) rest += x[i * stride + c] - x[i * stride + c];
    }
  };
  if (whole_columns < columns) add_rest(0, whole_rows, whole_columns);
  add_rest(whole_rows, rows, 0);
  const Vector sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  for (int64_t i = 0; i < kLanes; ++i) rest += sum[i];
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

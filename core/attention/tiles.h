#pragma once
#include <algorithm>
#include <memory>

#include "../gemm.h"
#include "problem.h"

/// Tiles of the score matrix. A tile is kept transposed, a strip of queries for each key, so that the softmax runs over
/// strips lane by lane: maxima and sums over the keys need no horizontal reductions. And the only operands to transpose
/// are the queries (backward also dO), once each.
namespace rapt::inline RAPT_ABI {

/// Queries and keys in a tile. Tile and operands (16 KiB each for D = 64 in float) stay in the second-level cache.
inline constexpr int64_t kTile = 64;

inline int64_t tiles(int64_t n) { return (n + kTile - 1) / kTile; }

/// Memory of this thread for the tiles of one task, good until the next call. It is kept between tasks: they are short,
/// and asking the allocator for each would make many cores wait for one another.
inline Real* tile_memory(int64_t elements) {
  thread_local std::unique_ptr<Storage> memory;
  if (!memory || memory->capacity < elements) memory = std::make_unique<Storage>(elements);
  return memory->data;
}

/// Scores of queries [q0, q0 + nq) against keys [k0, k0 + nk).
struct Tile {
  int64_t q0, nq, k0, nk;
  /// The first query, counted from q0, that reads key k0 of a causal problem; key k0 + j is read from query
  /// diagonal + j on. −nk or below if every query reads every key.
  int64_t diagonal;

  Tile(const AttentionProblem& p, int64_t q_begin, int64_t k_begin)
      : q0(q_begin),
        nq(std::min(kTile, p.queries - q_begin)),
        k0(k_begin),
        nk(std::min(kTile, p.keys - k_begin)),
        diagonal(p.causal ? k_begin - p.offset() - q_begin : -kTile) {}

  bool full() const { return diagonal + nk - 1 <= 0; }
};

/// On the diagonal about half of a tile is masked. Its products go by slices of this many keys or queries, each only as
/// far as the mask lets it.
inline constexpr int64_t kSlice = 16;

/// f(j, count, i): keys [j, j + count) of the tile are read by queries from i on.
template <class F>
void for_key_slices(const Tile& tile, F f) {
  if (tile.full()) return f(int64_t{0}, tile.nk, int64_t{0});
  for (int64_t j = 0; j < tile.nk; j += kSlice) {
    int64_t i = std::max<int64_t>(0, tile.diagonal + j) / kSlice * kSlice;
    if (i < tile.nq) f(j, std::min(kSlice, tile.nk - j), i);
  }
}

/// f(i, count, j): queries [i, i + count) of the tile read keys below j.
template <class F>
void for_query_slices(const Tile& tile, F f) {
  if (tile.full()) return f(int64_t{0}, tile.nq, tile.nk);
  for (int64_t i = 0; i < tile.nq; i += kSlice) {
    int64_t count = std::min(kSlice, tile.nq - i), j = std::min(tile.nk, i + count - tile.diagonal);
    if (j > 0) f(i, count, j);
  }
}

/// scores[j][i] = scale · keys[j] · queries[i], where queries_t is (dim, kTile). Masked slices are left as they are.
inline void tile_product(const Tile& tile, int64_t dim, Real scale, const Real* keys, int64_t key_stride,
                         const Real* queries_t, Real* scores) {
  for_key_slices(tile, [&](int64_t j, int64_t count, int64_t i) {
    gemm_serial(false, false, count, tile.nq - i, dim, scale, keys + j * key_stride, key_stride, queries_t + i, kTile,
                0, scores + j * kTile + i, kTile);
  });
}

}  // namespace rapt::inline RAPT_ABI

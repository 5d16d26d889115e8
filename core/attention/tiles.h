#pragma once
#include <algorithm>
#include <memory>

#include "../gemm.h"
#include "problem.h"

/// Tiles of the score matrix. A tile is kept transposed, a strip of queries for each key, so that the softmax runs over
/// strips lane by lane: maxima and sums over the keys need no horizontal reductions. And the only operands to transpose
/// are the queries (backward also dO), once each.
namespace rapt::inline RAPT_ABI {

inline int64_t tiles(int64_t n) { return (n + kTile - 1) / kTile; }

/// Memory of this thread for the tiles of one task, good until the next call. It is kept between tasks: they are short,
/// and asking the allocator for each would make many cores wait for one another.
inline Real* tile_memory(int64_t elements) {
  thread_local std::unique_ptr<Storage> memory;
  if (!memory || memory->capacity < elements) {
    memory = std::make_unique<Storage>(elements);
    // lanes that nobody reads are computed with too: what is in them must be numbers
    std::fill_n(memory->data, memory->capacity, Real(0));
  }
  return memory->data;
}

/// The same of every thread, before tasks begin: to which of them a task falls is a matter of timing, and no later step
/// should find one that has none yet.
void reserve_tile_memory(int64_t elements);

/// Scores of queries [q0, q0 + nq) against keys [k0, k0 + nk). Key k0 + j is read by no query outside
/// [diagonal + j, last + j], counted from q0.
struct Tile {
  int64_t q0, nq, k0, nk, diagonal, last;
  Cover cover = Cover::partial;
  const uint8_t* keep = nullptr;  // [key][query], for a partial tile that is more than its band

  Tile(const AttentionProblem& p, int64_t q_begin, int64_t k_begin)
      : q0(q_begin),
        nq(std::min(kTile, p.queries - q_begin)),
        k0(k_begin),
        nk(std::min(kTile, p.keys - k_begin)),
        diagonal(k_begin - p.offset() - q_begin - p.band.high),
        last(k_begin - p.offset() - q_begin - p.band.low) {}

  bool full() const { return cover == Cover::full; }
  bool inside_band() const { return diagonal + nk - 1 <= 0 && last >= nq - 1; }
  bool outside_band() const { return diagonal >= nq || last + nk - 1 < 0; }
  int64_t first_query(int64_t j) const { return std::clamp<int64_t>(diagonal + j, 0, nq); }
  int64_t query_end(int64_t j) const { return std::clamp<int64_t>(last + j + 1, 0, nq); }
  bool reads(int64_t j, int64_t i) const {
    return full() || (keep ? keep[j * kTile + i] != 0 : i >= diagonal + j && i <= last + j);
  }
  Strip strip(const AttentionProblem& p, int64_t b, int64_t h, int64_t j) const {
    return {b, h, k0 + j, q0, nq, p.queries, p.keys};
  }
};

/// Finds out how much of the tile is read, and fills `memory` (kTile²) if it takes a bitmap to say which entries.
void classify(const AttentionProblem& p, int64_t b, int64_t h, Tile& tile, uint8_t* memory);

/// Sets what is masked in the strip of key j to −∞.
void mask_strip(const Tile& tile, int64_t j, Real* strip);

/// At the edges of the band about half of a tile is masked. Its products go by slices of this many keys or queries,
/// each only as far as the band lets it.
inline constexpr int64_t kSlice = 16;

/// The lanes of strip j that those products read: [begin, end), in steps of kSlice.
struct Lanes {
  int64_t begin, end;
};
inline Lanes lanes_read(const Tile& tile, int64_t j) {
  if (tile.inside_band()) return {0, kTile};
  int64_t first = j / kSlice * kSlice, last = std::min(first + kSlice, tile.nk) - 1;
  return {tile.first_query(first) / kSlice * kSlice, (tile.query_end(last) + kSlice - 1) / kSlice * kSlice};
}

/// f(i) for each lane; the inner loop has a fixed length, which vectorises without a remainder.
template <class F>
[[gnu::always_inline]] inline void for_lanes(Lanes lanes, F f) {
  for (int64_t i = lanes.begin; i < lanes.end; i += kSlice) {
    for (int64_t l = 0; l < kSlice; ++l) f(i + l);
  }
}

/// f(j, count, i, i_end): keys [j, j + count) of the tile are read by queries in [i, i_end) alone.
template <class F>
void for_key_slices(const Tile& tile, F f) {
  if (tile.inside_band()) return f(int64_t{0}, tile.nk, int64_t{0}, tile.nq);
  for (int64_t j = 0; j < tile.nk; j += kSlice) {
    int64_t count = std::min(kSlice, tile.nk - j);
    int64_t i = tile.first_query(j) / kSlice * kSlice;
    int64_t end = std::min(tile.nq, (tile.query_end(j + count - 1) + kSlice - 1) / kSlice * kSlice);
    if (i < end) f(j, count, i, end);
  }
}

/// f(i, count, j, j_end): queries [i, i + count) of the tile read keys in [j, j_end) alone.
template <class F>
void for_query_slices(const Tile& tile, F f) {
  if (tile.inside_band()) return f(int64_t{0}, tile.nq, int64_t{0}, tile.nk);
  for (int64_t i = 0; i < tile.nq; i += kSlice) {
    int64_t count = std::min(kSlice, tile.nq - i);
    int64_t j = std::clamp<int64_t>(i - tile.last, 0, tile.nk);
    int64_t end = std::clamp<int64_t>(i + count - tile.diagonal, 0, tile.nk);
    if (j < end) f(i, count, j, end);
  }
}

/// scores[j][i] = scale · keys[j] · queries[i], where queries_t is (dim, kTile). Masked slices are left as they are.
inline void tile_product(const Tile& tile, int64_t dim, Real scale, const Real* keys, int64_t key_stride,
                         const Real* queries_t, Real* scores) {
  for_key_slices(tile, [&](int64_t j, int64_t count, int64_t i, int64_t end) {
    gemm_serial(false, false, count, end - i, dim, scale, keys + j * key_stride, key_stride, queries_t + i, kTile, 0,
                scores + j * kTile + i, kTile);
  });
}

/// Whether every number of a (rows, columns) matrix is finite.
bool all_finite(int64_t rows, int64_t columns, const Real* x, int64_t stride);

/// to[i] += alpha · Σ_j weights[j][i] · from[j] over the entries that are read, in plain loops: for partial tiles with
/// NaN or infinities in `from`, which must not reach queries that don't read them.
void add_keys_to_queries(const Tile& tile, const Real* weights, int64_t dim, Real alpha, const Real* from,
                         int64_t from_stride, Real* to, int64_t to_stride);
/// to[j] += alpha · Σ_i weights[j][i] · from[i], likewise.
void add_queries_to_keys(const Tile& tile, const Real* weights, int64_t dim, Real alpha, const Real* from,
                         int64_t from_stride, Real* to, int64_t to_stride);

}  // namespace rapt::inline RAPT_ABI

#pragma once
#include <cstdint>

#include "../real.h"

namespace rapt::inline RAPT_ABI {

/// Queries and keys in a tile of the score matrix, a multiple of 16. Results depend on it by rounding alone, which
/// `./run check tiles` shows with another size.
#ifdef RAPT_TILE
inline constexpr int64_t kTile = RAPT_TILE;
#else
inline constexpr int64_t kTile = 64;
#endif

/// Where an entry of the score matrix stands: what a score modifier and a mask see.
struct At {
  int64_t batch, head;  ///< head: of the queries, 0 … H − 1
  int64_t query,
      key;      ///< positions in the sequence: query = row + keys − queries (aligned at the end), below 0 if M < N
  int64_t row;  ///< index of the query in q, 0 … N − 1
  int64_t queries, keys;  ///< N, M
};

/// Up to kTile entries of one key's column: rows [row, row + count). Tiles are kept and worked on by strips.
struct Strip {
  int64_t batch, head, key, row, count;
  int64_t queries, keys;

  At at(int64_t i) const { return {batch, head, row + i + keys - queries, key, row + i, queries, keys}; }
};

/// Queries [query_begin, query_end) by position (see At) against keys [key_begin, key_end) of one head.
struct Box {
  int64_t batch, head, query_begin, query_end, key_begin, key_end;
};

}  // namespace rapt::inline RAPT_ABI

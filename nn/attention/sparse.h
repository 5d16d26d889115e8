#pragma once
#include "grouped_query.h"

/// Causal attention that reads a few blocks of keys, chosen for each query by what is in them. The choice is a constant
/// for the gradient. Blocks are of positions [c·block, (c + 1)·block). What is read is a mask on the tiles: tiles of 64
/// queries that have chosen none of a tile's keys are skipped, so blocks of 64 keys and more save time, and queries
/// nearby that choose alike save most. The list of choices takes a byte for each query, block and head.
namespace rapt::inline RAPT_ABI {

/// The block of each query, and besides, of the blocks before it, the count − 1 with the largest importance (B, G, N,
/// complete blocks), for groups of H/G heads; all if there are fewer. The last row is query `keys` − 1. count ≥ 1.
Mask chosen_blocks(const Tensor& importance, int64_t heads, int64_t keys, int64_t block, int64_t count);

/// Attention within a mask: sliding window, dilated, Longformer (`window(w) | global(g)`), BigBird, a list of blocks.
/// No parameters besides GroupedQueryAttention's.
struct MaskedAttention : GroupedQueryAttention {
  MaskedAttention(int64_t dim, int64_t heads, const Mask& mask, GroupedQueryOptions options = {});
};

struct BigBirdOptions {
  int64_t block = 64;
  int64_t window = 3;            ///< blocks: a query's own, and window − 1 to each side
  int64_t global = 1;            ///< blocks at the beginning that read all and are read by all
  int64_t random = 2;            ///< blocks besides, drawn for each block of queries
  uint64_t seed = 0, layer = 0;  ///< what is drawn depends on both
  bool causal = true;            ///< draws from the blocks before the window alone
};

/// BigBird (Zaheer 2020): which blocks of positions a block of queries reads, for the sequence's first `positions`:
/// those in a window, global ones, and random ones, the same for all heads. Without a causal mask.
Mask bigbird(int64_t positions, const BigBirdOptions& options = {});

struct MixtureOfBlockOptions {
  GroupedQueryOptions common = {};
  int64_t block = 64;
  int64_t count = 4;  ///< of blocks that a query reads, its own among them
};

/// Mixture of block attention (MoBA, Lu 2025): the blocks are those with the largest q · mean of the block's keys, for
/// each head. No parameters besides GroupedQueryAttention's.
struct MixtureOfBlockAttention : GroupedQueryAttention {
  MixtureOfBlockAttention(int64_t dim, int64_t heads, MixtureOfBlockOptions options = {});
};

struct NativeSparseOptions {
  GroupedQueryOptions common = {};
  int64_t block = 32;
  int64_t count = 4;    ///< of selected blocks, the query's own among them
  int64_t window = 64;  ///< keys, the query's own among them
};

/// Native sparse attention (NSA, Yuan 2025): a sum, gated for each query and head, of attention to compressed blocks,
/// to selected blocks and to a window. A compressed key is a linear function of its block's keys, likewise the values;
/// those that end before the query are read. Selected are the blocks with the largest weights in that attention, summed
/// over the heads that share keys. Simpler than in the paper: blocks do not overlap, compressed and selected ones are
/// the same, and the three branches share keys and values. Parameters besides GroupedQueryAttention's:
/// sparse.compress_keys and sparse.compress_values, weight (D, block·D) and bias (D), which start as the mean;
/// sparse.gate, weight (3H, C) and bias (3H), in the order compressed, selected, window.
struct NativeSparseAttention : GroupedQueryAttention {
  NativeSparseAttention(int64_t dim, int64_t heads, NativeSparseOptions options = {});
};

}  // namespace rapt::inline RAPT_ABI

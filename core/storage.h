#pragma once
#include <cstdint>

#include "real.h"

namespace rapt::inline RAPT_ABI {

/// A block of numbers, 64-byte aligned, from a free list by size class: a training step reuses the blocks of the last
/// one.
struct Storage {
  Real* data = nullptr;
  int64_t capacity = 0;  ///< in elements, of the size class
  uint32_t version = 0;  ///< counts in-place writes; autograd compares it to find saved tensors that were changed

  explicit Storage(int64_t elements);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
};

/// What tensors hold and held, in bytes; and how many blocks were made since the program began because no free list had
/// one.
struct MemoryStats {
  int64_t new_blocks = 0;
  int64_t in_use = 0;
  int64_t peak = 0;    ///< largest in_use since the last reset_peak_memory
  int64_t cached = 0;  ///< on the free lists
};
MemoryStats memory_stats();
void reset_peak_memory();
/// Gives the free lists back to the system: large blocks, and the regions in which no small block is in use.
void release_cached_memory();

}  // namespace rapt::inline RAPT_ABI

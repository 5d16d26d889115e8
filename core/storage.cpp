#include "storage.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <limits>
#include <map>
#include <mutex>
#include <new>
#include <vector>

#include "check.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define RAPT_POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define RAPT_POISON 1
#endif
#endif
#ifdef RAPT_POISON
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

namespace rapt::inline RAPT_ABI {

namespace {

// Eight classes an octave, so that at most an eighth of a block is unused.
int64_t size_class(int64_t elements) {
  check(elements >= 0 && elements <= std::numeric_limits<int64_t>::max() / 16, "tensor: can't allocate {} elements",
        elements);
  constexpr int64_t kSmallest = 64 / sizeof(Real);
  int64_t n = std::max<int64_t>(elements, kSmallest);
  int64_t step = std::max<int64_t>(kSmallest, int64_t(std::bit_floor(uint64_t(n))) / 8);
  return (n + step - 1) / step * step;
}

// From the system, on large pages: with the many small ones of a matrix, and of all tensors of a step, the processor
// spends longer looking up addresses. A page that is never touched takes no memory.
constexpr size_t kPage = size_t{2} << 20;
char* ask_system(size_t bytes) {
  void* block = std::aligned_alloc(kPage, (bytes + kPage - 1) / kPage * kPage);
#ifdef MADV_HUGEPAGE
  if (block) madvise(block, bytes, MADV_HUGEPAGE);  // a wish; what was not granted changes no result
#endif
  return static_cast<char*>(block);
}

// Blocks below kOwnPages lie side by side in regions.
#ifdef RAPT_POISON
constexpr size_t kOwnPages = 0;  // AddressSanitizer guards what is beside a block of its own
#else
constexpr size_t kOwnPages = 2 * kPage;
#endif
constexpr size_t kRegion = 8 * kPage;
struct Region {
  size_t used = 0;
  int64_t blocks_in_use = 0;
};

class Pool {
 public:
  std::mutex mutex;
  MemoryStats stats;

  Real* take(int64_t capacity) {
    auto& blocks = free_blocks_[capacity];
    const size_t bytes = size_t(capacity) * sizeof(Real);
    Real* block = nullptr;
    if (!blocks.empty()) {
      block = blocks.back();
      blocks.pop_back();
      stats.cached -= int64_t(bytes);
      ASAN_UNPOISON_MEMORY_REGION(block, bytes);
    } else {
      block = make(bytes);
      if (!block) {  // what is cached may be what is missing
        free_cached();
        block = make(bytes);
      }
      check(block != nullptr, "tensor: out of memory asking for {} bytes ({} in use)", bytes, stats.in_use);
      ++stats.new_blocks;
    }
    if (bytes < kOwnPages) ++region_of(block).blocks_in_use;
    stats.in_use += int64_t(bytes);
    stats.peak = std::max(stats.peak, stats.in_use);
    return block;
  }

  void give_back(Real* block, int64_t capacity) {
    const size_t bytes = size_t(capacity) * sizeof(Real);
    free_blocks_[capacity].push_back(block);
    if (bytes < kOwnPages) --region_of(block).blocks_in_use;
    ASAN_POISON_MEMORY_REGION(block, bytes);
    stats.in_use -= int64_t(bytes);
    stats.cached += int64_t(bytes);
  }

  void free_cached() {
    for (auto& [capacity, blocks] : free_blocks_) {
      const size_t bytes = size_t(capacity) * sizeof(Real);
      std::erase_if(blocks, [&, bytes](Real* block) {
        if (bytes < kOwnPages && region_of(block).blocks_in_use > 0) return false;
        if (bytes >= kOwnPages) {
          ASAN_UNPOISON_MEMORY_REGION(block, bytes);
          std::free(block);
        }
        stats.cached -= int64_t(bytes);
        return true;
      });
    }
    std::erase_if(regions_, [](const auto& region) {
      if (region.second.blocks_in_use > 0) return false;
      std::free(region.first);
      return true;
    });
  }

 private:
  std::map<int64_t, std::vector<Real*>> free_blocks_;  // by capacity
  std::map<char*, Region> regions_;                    // by where they begin
  char* filling_ = nullptr;                            // the region that new blocks come from

  Region& region_of(Real* block) { return std::prev(regions_.upper_bound(reinterpret_cast<char*>(block)))->second; }

  Real* make(size_t bytes) {
#ifdef RAPT_POISON
    return static_cast<Real*>(std::aligned_alloc(64, bytes));
#endif
    if (bytes >= kOwnPages) return reinterpret_cast<Real*>(ask_system(bytes));
    auto region = regions_.find(filling_);
    if (region == regions_.end() || region->second.used + bytes > kRegion) {
      char* begin = ask_system(kRegion);
      if (!begin) return nullptr;
      region = regions_.try_emplace(filling_ = begin).first;
    }
    char* block = region->first + region->second.used;
    region->second.used += bytes;
    return reinterpret_cast<Real*>(block);
  }
};

// Never destroyed: tensors in static variables may outlive everything else.
Pool& pool() {
  static Pool* p = new Pool;
  return *p;
}

}  // namespace

Storage::Storage(int64_t elements) : capacity(size_class(elements)) {
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  data = p.take(capacity);
#ifndef NDEBUG
  std::fill_n(data, capacity, std::numeric_limits<Real>::quiet_NaN());  // reading what was never written shows
#endif
}

Storage::~Storage() {
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  p.give_back(data, capacity);
}

MemoryStats memory_stats() {
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  return p.stats;
}

void reset_peak_memory() {
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  p.stats.peak = p.stats.in_use;
}

void release_cached_memory() {
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  p.free_cached();
}

}  // namespace rapt::inline RAPT_ABI

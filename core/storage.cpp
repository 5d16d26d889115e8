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

Real* ask_system(size_t bytes) {
  constexpr size_t kPage = size_t{2} << 20;  // a large page: matrices of many small ones make the processor look up
                                             // addresses more than compute
  if (bytes < 2 * kPage) return static_cast<Real*>(std::aligned_alloc(64, bytes));
  void* block = std::aligned_alloc(kPage, (bytes + kPage - 1) / kPage * kPage);
#ifdef MADV_HUGEPAGE
  if (block) madvise(block, bytes, MADV_HUGEPAGE);  // a wish; what was not granted changes no result
#endif
  return static_cast<Real*>(block);
}

struct Pool {
  std::mutex mutex;
  std::map<int64_t, std::vector<Real*>> free_blocks;
  MemoryStats stats;
};

void free_cached(Pool& p) {
  for (auto& [capacity, blocks] : p.free_blocks) {
    for (Real* block : blocks) {
      ASAN_UNPOISON_MEMORY_REGION(block, capacity * sizeof(Real));
      std::free(block);
    }
    blocks.clear();
  }
  p.stats.cached = 0;
}

// Never destroyed: tensors in static variables may outlive everything else.
Pool& pool() {
  static Pool* p = new Pool;
  return *p;
}

}  // namespace

Storage::Storage(int64_t elements) : capacity(size_class(elements)) {
  int64_t bytes = capacity * int64_t(sizeof(Real));
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  auto& blocks = p.free_blocks[capacity];
  if (!blocks.empty()) {
    data = blocks.back();
    blocks.pop_back();
    p.stats.cached -= bytes;
    ASAN_UNPOISON_MEMORY_REGION(data, bytes);
  } else {
    data = ask_system(size_t(bytes));
    if (!data) {  // what is cached may be what is missing
      free_cached(p);
      data = ask_system(size_t(bytes));
    }
    check(data != nullptr, "tensor: out of memory asking for {} bytes ({} in use)", bytes, p.stats.in_use);
    ++p.stats.system_allocations;
  }
  p.stats.in_use += bytes;
  p.stats.peak = std::max(p.stats.peak, p.stats.in_use);
#ifndef NDEBUG
  std::fill_n(data, capacity, std::numeric_limits<Real>::quiet_NaN());  // reading what was never written shows
#endif
}

Storage::~Storage() {
  int64_t bytes = capacity * int64_t(sizeof(Real));
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  p.free_blocks[capacity].push_back(data);
  ASAN_POISON_MEMORY_REGION(data, bytes);
  p.stats.in_use -= bytes;
  p.stats.cached += bytes;
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
  free_cached(p);
}

}  // namespace rapt::inline RAPT_ABI

#include "gemm.h"

#include <cblas.h>
#include <omp.h>
#ifdef RAPT_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#endif

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <string_view>

#include "check.h"
#include "lanes.h"
#include "parallel.h"
#include "storage.h"
#include "transpose.h"

// Parts of OpenBLAS beyond CBLAS. Weak, so that any other CBLAS links; then they are null.
extern "C" {
char* openblas_get_corename() __attribute__((weak));
char* openblas_get_config() __attribute__((weak));
int openblas_get_parallel() __attribute__((weak));
void openblas_set_num_threads(int) __attribute__((weak));
void gotoblas_dynamic_init() __attribute__((weak));
void gotoblas_dynamic_quit() __attribute__((weak));
}

namespace rapt::inline RAPT_ABI {

namespace {

#ifdef RAPT_DOUBLE
constexpr auto blas_gemm = cblas_dgemm;
#else
constexpr auto blas_gemm = cblas_sgemm;
#endif

// ---- which kernels OpenBLAS runs ----

enum Level { kOld, kAvx2, kAvx512 };

Level cpu_level() {
#ifdef __x86_64__
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    return kAvx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kAvx2;
#endif
  return kOld;
}

// What the kernels of this name use. A name that isn't known is newer than this list.
Level kernel_level(std::string_view core) {
  for (auto name : {"Haswell", "Zen", "Excavator"}) {
    if (core == name) return kAvx2;
  }
  for (auto name : {"Prescott", "Core2", "Penryn", "Dunnington", "Nehalem", "Sandybridge", "Atom", "Nano", "Athlon",
                    "Opteron", "Opteron_SSE3", "Barcelona", "Bobcat", "Bulldozer", "Piledriver", "Steamroller"}) {
    if (core == name) return kOld;
  }
  return kAvx512;
}

// An OpenBLAS that is older than the CPU doesn't recognise it and falls to kernels for SSE3, 4 to 5 times slower. What
// the CPU can do decides instead. A core type that the user chose stays.
void prepare_blas() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (openblas_get_parallel && openblas_get_parallel() == 1) openblas_set_num_threads(1);  // its own threads
    if (!openblas_get_corename || std::getenv("OPENBLAS_CORETYPE")) return;
    Level cpu = cpu_level();
    if (kernel_level(openblas_get_corename()) >= cpu) return;
    const char* wanted = cpu == kAvx512 ? "SkylakeX" : "Haswell";
    if (gotoblas_dynamic_init && gotoblas_dynamic_quit) {
      setenv("OPENBLAS_CORETYPE", wanted, 1);
      gotoblas_dynamic_quit();
      gotoblas_dynamic_init();
      unsetenv("OPENBLAS_CORETYPE");
    }
    if (kernel_level(openblas_get_corename()) < cpu) {
      std::fprintf(stderr,
                   "rapt: OpenBLAS runs its %s kernels, which are slow on this CPU. Set OPENBLAS_CORETYPE=%s in the "
                   "environment, or install a newer OpenBLAS.\n",
                   openblas_get_corename(), wanted);
    }
  });
}

int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

// ---- one call on this thread ----

// Outside a parallel region an OpenMP BLAS would start threads of its own and cut the work by their number.
class OneThread {
 public:
  OneThread() : threads_(omp_in_parallel() ? 0 : omp_get_max_threads()) {
    if (threads_ > 1) omp_set_num_threads(1);
  }
  ~OneThread() {
    if (threads_ > 1) omp_set_num_threads(threads_);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int threads_;
};

constexpr CBLAS_TRANSPOSE order(bool t) { return t ? CblasTrans : CblasNoTrans; }

// y = alpha · A x + beta · y for a matrix (rows, k). A model that samples multiplies each weight and each key in its
// cache with one vector for every token: as fast as memory is read, which OpenBLAS is not on all machines.
void rows_times_vector(int64_t rows, int64_t k, Real alpha, const Real* a, int64_t lda, const Real* x, int64_t x_step,
                       Real beta, Real* y, int64_t y_step) {
  constexpr int64_t kGathered = 256;
  Real gathered[kGathered];
  const int64_t length = x_step == 1 ? k : kGathered;
  for (int64_t p = 0; p < k; p += length) {
    const int64_t n = std::min(length, k - p);
    const Real* part = x + p;
    if (x_step != 1) {
      for (int64_t i = 0; i < n; ++i) gathered[i] = x[(p + i) * x_step];
      part = gathered;
    }
    for (int64_t r = 0; r < rows; ++r) {
      const Real* row = a + r * lda + p;
      Real dot = alpha * lane_sum(n, [=](int64_t i) { return part[i] * row[i]; });
      y[r * y_step] = beta == 0 ? dot : dot + beta * y[r * y_step];
    }
    beta = 1;
  }
}

// y = alpha · xᵀ B + beta · y for a matrix (k, n): 64 columns at a time, in registers.
void vector_times_rows(int64_t n, int64_t k, Real alpha, const Real* x, int64_t x_step, const Real* b, int64_t ldb,
                       Real beta, Real* y, int64_t y_step) {
  constexpr int kColumns = 64;
  for (int64_t j = 0; j < n; j += kColumns) {
    alignas(64) Real sum[kColumns] = {};
    const int columns = int(std::min<int64_t>(kColumns, n - j));
    auto add_rows = [&](int width) {
      for (int64_t p = 0; p < k; ++p) {
        const Real factor = x[p * x_step], *row = b + p * ldb + j;
#pragma omp simd
        for (int c = 0; c < width; ++c) sum[c] += factor * row[c];
      }
    };
    columns == kColumns ? add_rows(kColumns) : add_rows(columns);
    for (int c = 0; c < columns; ++c) {
      Real* at = y + (j + c) * y_step;
      *at = beta == 0 ? alpha * sum[c] : alpha * sum[c] + beta * *at;
    }
  }
}

// Sizes are checked, and not 0.
void one_call(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, Real alpha, const Real* a, int64_t lda,
              const Real* b, int64_t ldb, Real beta, Real* c, int64_t ldc) {
  if (m == 1 || n == 1) {  // one of them is a vector, with its elements `step` apart
    const bool row = m == 1, rows_of_matrix = row ? trans_b : !trans_a;
    const Real *vector = row ? a : b, *matrix = row ? b : a;
    const int64_t step = row ? (trans_a ? lda : 1) : (trans_b ? 1 : ldb), matrix_step = row ? ldb : lda;
    if (rows_of_matrix) {
      rows_times_vector(row ? n : m, k, alpha, matrix, matrix_step, vector, step, beta, c, row ? 1 : ldc);
    } else {
      vector_times_rows(row ? n : m, k, alpha, vector, step, matrix, matrix_step, beta, c, row ? 1 : ldc);
    }
    return;
  }
  OneThread one_thread;
  blas_gemm(CblasRowMajor, order(trans_a), order(trans_b), int(m), int(n), int(k), alpha, a, int(lda), b, int(ldb),
            beta, c, int(ldc));
}

void scale(int64_t m, int64_t n, Real beta, Real* c, int64_t ldc) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) c[i * ldc + j] = beta == 0 ? 0 : beta * c[i * ldc + j];
  }
}

void check_sizes(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, int64_t lda, int64_t ldb, int64_t ldc) {
  constexpr int64_t kMax = std::numeric_limits<int>::max();
  check(m >= 0 && n >= 0 && k >= 0 && std::max({m, n, k, lda, ldb, ldc}) <= kMax,
        "gemm: sizes and strides must be in [0, 2^31), got m {}, n {}, k {}, lda {}, ldb {}, ldc {}", m, n, k, lda, ldb,
        ldc);
  check(lda >= std::max<int64_t>(1, trans_a ? m : k) && ldb >= std::max<int64_t>(1, trans_b ? k : n) &&
            ldc >= std::max<int64_t>(1, n),
        "gemm: rows overlap: lda {}, ldb {}, ldc {} for m {}, n {}, k {}", lda, ldb, ldc, m, n, k);
}

// ---- one block of C on this thread ----

// The AVX-512 kernels of OpenBLAS have a second way for products of up to 10^6 multiplications: it reads the operands
// where they are instead of copying them first, and is 10 to 20 % faster. So a block is made of products of that size.
constexpr int64_t kSide = 64;    // rows and columns of C in one product
constexpr int64_t kDepth = 192;  // and steps along the inner axis; 64 · 64 · 192 < 10^6
bool has_small_kernels() {
  static const bool yes = openblas_get_corename && kernel_level(openblas_get_corename()) == kAvx512;
  return yes;
}

// Rows so far apart that each lies on a page of its own are first copied side by side.
constexpr int64_t kFar = 4096 / sizeof(Real);

void copy_rows(int64_t rows, int64_t columns, const Real* src, int64_t src_row, Real* dst, int64_t dst_row) {
  for (int64_t i = 0; i < rows; ++i) std::copy_n(src + i * src_row, columns, dst + i * dst_row);
}

// `n` in about `count` equal pieces, multiples of `unit` so that vectors and tiles stay whole.
int64_t piece(int64_t n, int64_t count, int64_t unit) { return pieces(pieces(n, count), unit) * unit; }

// Numbers that a block of m rows copies its operands to.
int64_t scratch_size(bool trans_a, bool trans_b, int64_t m, int64_t lda, int64_t ldb) {
  const bool pack_a = trans_a && lda >= kFar, pack_b = trans_b || ldb >= kFar;
  return ((pack_a ? pieces(m, kSide) : 0) + (pack_b ? 1 : 0)) * kSide * kDepth;
}

void block_by_tiles(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, Real alpha, const Real* a, int64_t lda,
                    const Real* b, int64_t ldb, Real beta, Real* c, int64_t ldc, Real* scratch) {
  const int64_t depth = piece(k, pieces(k, kDepth), 8);  // at most kDepth
  const bool pack_a = trans_a && lda >= kFar, pack_b = trans_b || ldb >= kFar;
  Real *packed_b = scratch, *packed_a = scratch + (pack_b ? kSide * kDepth : 0);
  for (int64_t p = 0; p < k; p += depth) {
    const int64_t steps = std::min(depth, k - p);
    for (int64_t i = 0; pack_a && i < m; i += kSide) {
      copy_rows(steps, std::min(kSide, m - i), a + p * lda + i, lda, packed_a + i * depth, kSide);
    }
    for (int64_t j = 0; j < n; j += kSide) {
      const int64_t columns = std::min(kSide, n - j);
      if (trans_b) {
        transpose(columns, steps, b + j * ldb + p, ldb, packed_b, kSide);
      } else if (pack_b) {
        copy_rows(steps, columns, b + p * ldb + j, ldb, packed_b, kSide);
      }
      const Real* b_tile = pack_b ? packed_b : b + p * ldb + j;
      for (int64_t i = 0; i < m; i += kSide) {
        const Real* a_tile = pack_a ? packed_a + i * depth : trans_a ? a + p * lda + i : a + i * lda + p;
        one_call(trans_a, false, std::min(kSide, m - i), columns, steps, alpha, a_tile, pack_a ? kSide : lda, b_tile,
                 pack_b ? kSide : ldb, p == 0 ? beta : 1, c + i * ldc + j, ldc);
      }
    }
  }
}

// ---- large products ----

// oneDNN packs more of the operands at a time and reuses it longer: 5 to 15 % faster than the tiles above where all
// axes are long and B lies as it is multiplied. A transposed B it packs slowly; turned once it is faster, with enough
// rows of A to pay for that.
constexpr int64_t kLarge = 1 << 26;  // multiplications
constexpr int64_t kRowsToTurn = 1024;
#if defined(RAPT_ONEDNN) && !defined(RAPT_DOUBLE)
constexpr bool kHasOneDnn = true;

void large_block(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, Real alpha, const Real* a, int64_t lda,
                 const Real* b, int64_t ldb, Real beta, Real* c, int64_t ldc) {
  OneThread one_thread;
  dnnl_status_t status =
      dnnl_sgemm(trans_a ? 'T' : 'N', trans_b ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  check(status == dnnl_success, "gemm: oneDNN returned {} for ({}, {}) x ({}, {})", int(status), m, k, k, n);
}
#else
constexpr bool kHasOneDnn = false;
constexpr auto large_block = one_call;  // is_large never holds
#endif

bool is_large(bool trans_b, int64_t m, int64_t n, int64_t k) {
  return kHasOneDnn && m * n >= kLarge / k && std::min(m, n) >= kSide && (!trans_b || m >= kRowsToTurn);
}

// ---- the cut ----

// Blocks of rows x columns of C, and the inner axis in parts of `inner`. Measured on the products of training steps of
// small GPTs: blocks of 256 x 192 are as fast as any (384 x 384 of large products), 16 tasks keep two cores evenly busy
// and let more help, and parts of the inner axis pay where it is much longer than the others, or where blocks of 64 x
// 64 are still too few (gradients of small weights).
struct Partition {
  int64_t rows, columns, inner;
};
Partition partition(int64_t m, int64_t n, int64_t k, bool large) {
  constexpr int64_t kTasks = 16;
  if (m * n <= (1 << 17) / k) return {m, n, k};  // shorter than waking a thread
  int64_t parts = k >= 16 * std::max(m, n) ? std::min<int64_t>(8, pieces(k, 256)) : 1;
  int64_t down = pieces(m, large ? 384 : 256), across = pieces(n, large ? 384 : 192);
  while (down * across * parts < kTasks) {
    int64_t rows = pieces(m, down), columns = pieces(n, across);
    if (std::max(rows, columns) <= kSide) {
      parts = std::max(parts, std::min(pieces(kTasks, down * across), pieces(k, 256)));
      break;
    }
    (rows >= columns ? down : across) *= 2;
  }
  return {piece(m, down, 16), piece(n, across, kSide), piece(k, parts, 16)};
}

std::atomic<int64_t> calls, multiplications;

}  // namespace

void gemm_serial(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, Real alpha, const Real* a, int64_t lda,
                 const Real* b, int64_t ldb, Real beta, Real* c, int64_t ldc) {
  check_sizes(trans_a, trans_b, m, n, k, lda, ldb, ldc);
  if (m == 0 || n == 0) return;
  if (k == 0) return scale(m, n, beta, c, ldc);
  prepare_blas();
  one_call(trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void gemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, Real alpha, const Real* a, int64_t lda,
          const Real* b, int64_t ldb, Real beta, Real* c, int64_t ldc) {
  check_sizes(trans_a, trans_b, m, n, k, lda, ldb, ldc);
  if (m == 0 || n == 0) return;
  if (k == 0) return scale(m, n, beta, c, ldc);
  prepare_blas();
  calls.fetch_add(1, std::memory_order_relaxed);
  multiplications.fetch_add(m * n * k, std::memory_order_relaxed);
  const bool large = is_large(trans_b, m, n, k);
  const bool turn = large && trans_b;
  Storage turned(turn ? k * n : 0);
  if (turn) {
    parallel_for(n, kSide, [&](int64_t begin, int64_t end) {
      transpose(end - begin, k, b + begin * ldb, ldb, turned.data + begin, n);
    });
    trans_b = false, b = turned.data, ldb = n;
  }
  auto [rows, columns, inner] = partition(m, n, k, large);
  int64_t across = pieces(n, columns), blocks = pieces(m, rows) * across, parts = pieces(k, inner);
  // Scratch memory of each thread, asked for by this one: how many need it at the same moment is a matter of timing.
  const bool tiled = !large && has_small_kernels(), alone = omp_in_parallel();
  const int64_t scratch_each = tiled ? scratch_size(trans_a, trans_b, rows, lda, ldb) : 0;
  Storage scratch(scratch_each * (alone ? 1 : threads()));
  Storage partial((parts - 1) * m * n);  // the products of the parts after the first, summed below in order
  auto block = [&, rows = rows, columns = columns, inner = inner](int64_t task) {
    int64_t part = task / blocks, i = task % blocks / across * rows, j = task % across * columns, p = part * inner;
    Real* out = part == 0 ? c + i * ldc + j : partial.data + (part - 1) * m * n + i * n + j;
    const int64_t block_rows = std::min(rows, m - i);
    auto compute = [&](auto block_of, auto... memory) {
      block_of(trans_a, trans_b, block_rows, std::min(columns, n - j), std::min(inner, k - p), alpha,
               trans_a ? a + p * lda + i : a + i * lda + p, lda, trans_b ? b + j * ldb + p : b + p * ldb + j, ldb,
               part == 0 ? beta : 0, out, part == 0 ? ldc : n, memory...);
    };
    if (large) {
      compute(large_block);
    } else if (tiled && block_rows >= kSide / 2) {
      compute(block_by_tiles, scratch.data + (alone ? 0 : omp_get_thread_num() * scratch_each));
    } else {
      compute(one_call);
    }
  };
  // One row reads each weight once, and memory doesn't serve all cores alike.
  m == 1 ? parallel_tasks_dynamic(blocks * parts, block) : parallel_tasks(blocks * parts, block);
  if (parts == 1) return;
  parallel_for(m, std::max<int64_t>(1, 16384 / n), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t part = 1; part < parts; ++part) {
        const Real* add = partial.data + (part - 1) * m * n + i * n;
        for (int64_t j = 0; j < n; ++j) c[i * ldc + j] += add[j];
      }
    }
  });
}

GemmStats gemm_stats() { return {calls, multiplications}; }

std::string blas_description() {
  prepare_blas();
  std::string text = "CBLAS";
  if (openblas_get_config && openblas_get_corename) {
    std::string config = openblas_get_config();  // "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH …"
    size_t end = config.find(' ', config.find(' ') + 1);
    text = fmt::format("{} with {} kernels", config.substr(0, end), openblas_get_corename());
  }
#if defined(RAPT_ONEDNN) && !defined(RAPT_DOUBLE)
  const dnnl_version_t* v = dnnl_version();
  text += fmt::format(", oneDNN {}.{}.{} for large products", v->major, v->minor, v->patch);
#endif
  return text;
}

}  // namespace rapt::inline RAPT_ABI

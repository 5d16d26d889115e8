#pragma once
#include <cstdint>
#include <exception>

#include "real.h"

namespace rapt::inline RAPT_ABI {

/// Number of threads that parallel work uses: set_threads if called, else what OpenMP says (OMP_NUM_THREADS, or all
/// cores).
int threads();
/// Sets it, from 1 to kMostThreads. Results never depend on it.
constexpr int kMostThreads = 1024;
void set_threads(int n);

namespace detail {
/// Runs task(context, i) for i in [0, tasks) on the threads; rethrows the first exception.
void run_tasks(int64_t tasks, void (*task)(void* context, int64_t i), void* context, bool dynamic);
}  // namespace detail

/// f(i) for every task i in [0, tasks). Tasks are fixed by shapes alone, so any number of threads gives the same bits.
/// Neighbouring tasks go to the same thread (static schedule), so that rows stay with the core that made them.
template <class F>
void parallel_tasks(int64_t tasks, F f) {
  if (tasks == 1) return f(int64_t{0});
  detail::run_tasks(
      tasks, [](void* c, int64_t i) { (*static_cast<F*>(c))(i); }, &f, false);
}

/// The same for tasks of unequal size: handed out one by one in order.
template <class F>
void parallel_tasks_dynamic(int64_t tasks, F f) {
  if (tasks == 1) return f(int64_t{0});
  detail::run_tasks(
      tasks, [](void* c, int64_t i) { (*static_cast<F*>(c))(i); }, &f, true);
}

/// f(begin, end) over [0, n) in pieces of `grain` elements (the last one shorter).
template <class F>
void parallel_for(int64_t n, int64_t grain, F f) {
  if (n <= 0) return;
  if (n <= grain) return f(int64_t{0}, n);
  parallel_tasks((n + grain - 1) / grain, [&](int64_t i) {
    int64_t begin = i * grain;
    f(begin, begin + grain < n ? begin + grain : n);
  });
}

}  // namespace rapt::inline RAPT_ABI

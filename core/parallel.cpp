#include "parallel.h"

#include <omp.h>

#include <algorithm>
#include <exception>

#include "check.h"

namespace rapt::inline RAPT_ABI {

namespace {
int chosen_threads = 0;
}

int threads() { return chosen_threads > 0 ? chosen_threads : std::min(omp_get_max_threads(), kMostThreads); }

void set_threads(int n) {
  check<UsageError>(n >= 1 && n <= kMostThreads, "threads: expected a number from 1 to {}, got {}", kMostThreads, n);
  chosen_threads = n;
}

void detail::run_tasks(int64_t tasks, void (*task)(void*, int64_t), void* context, bool dynamic) {
  if (tasks <= 0) return;
  const int team = threads();  // also for fewer tasks: libgomp ends and restarts threads when the team's size changes
  if (team == 1 || omp_in_parallel()) {
    for (int64_t i = 0; i < tasks; ++i) task(context, i);
    return;
  }
  std::exception_ptr failure;  // an exception must not leave an OpenMP region
  auto guarded = [&](int64_t i) {
    try {
      task(context, i);
    } catch (...) {
#pragma omp critical(rapt_task_failure)
      if (!failure) failure = std::current_exception();
    }
  };
  if (dynamic) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(team)
    for (int64_t i = 0; i < tasks; ++i) guarded(i);
  } else {
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t i = 0; i < tasks; ++i) guarded(i);
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace rapt::inline RAPT_ABI

#pragma once
#include <cstdint>
#include <string>

#include "../core/check.h"

namespace rapt::inline RAPT_ABI {

enum class ScheduleKind { constant, linear, cosine, wsd };
/// By name: constant, linear, cosine, or wsd (warmup–stable–decay). Throws Error that lists them.
ScheduleKind schedule_kind(const std::string& name);

/// The learning rate as a pure function of the step.
struct Schedule {
  ScheduleKind kind = ScheduleKind::cosine;
  double peak = 1e-3;
  double minimum = 0;           ///< reached at `steps`; not used by constant
  int64_t warmup = 0;           ///< steps over which the rate rises to the peak: peak · (step + 1) / (warmup + 1)
  int64_t steps = 1;            ///< of the whole training
  double decay_fraction = 0.2;  ///< wsd: the last part of the steps, in which the rate falls linearly
};

/// The rate of step `step`, the first one being 0.
double learning_rate(const Schedule& schedule, int64_t step);

}  // namespace rapt::inline RAPT_ABI

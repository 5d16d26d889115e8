#include "schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace rapt::inline RAPT_ABI {

ScheduleKind schedule_kind(const std::string& name) {
  if (name == "constant") return ScheduleKind::constant;
  if (name == "linear") return ScheduleKind::linear;
  if (name == "cosine") return ScheduleKind::cosine;
  if (name == "wsd") return ScheduleKind::wsd;
  throw Error(fmt::format("schedule: there is no \"{}\"; known are constant, linear, cosine, wsd", name));
}

double learning_rate(const Schedule& s, int64_t step) {
  if (step < s.warmup) return s.peak * double(step + 1) / double(s.warmup + 1);
  // from 0 at the beginning of the fall to 1 at the end of the training
  auto progress = [&](double from) {
    return std::clamp((double(step) - from) / std::max(1.0, double(s.steps) - from), 0.0, 1.0);
  };
  const double fall = s.peak - s.minimum;
  switch (s.kind) {
    case ScheduleKind::constant: return s.peak;
    case ScheduleKind::linear: return s.peak - fall * progress(double(s.warmup));
    case ScheduleKind::cosine:
      return s.minimum + fall * 0.5 * (1 + std::cos(std::numbers::pi * progress(double(s.warmup))));
    case ScheduleKind::wsd:
      return s.peak - fall * progress(std::max(double(s.warmup), double(s.steps) * (1 - s.decay_fraction)));
  }
  return s.peak;
}

}  // namespace rapt::inline RAPT_ABI

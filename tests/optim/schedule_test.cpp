#include <gtest/gtest.h>
#include <rapt/optim/schedule.h>

#include <string>

#include "../autograd/golden.h"

namespace rapt {
namespace {

constexpr ScheduleKind kScheduleKinds[] = {ScheduleKind::constant, ScheduleKind::linear, ScheduleKind::cosine,
                                           ScheduleKind::wsd};

TEST(Schedule, WarmsUp) {
  for (ScheduleKind kind : kScheduleKinds) {
    Schedule s{.kind = kind, .peak = 1, .warmup = 4, .steps = 100};
    for (int64_t step = 0; step < 4; ++step) EXPECT_DOUBLE_EQ(learning_rate(s, step), double(step + 1) / 5);
    EXPECT_DOUBLE_EQ(learning_rate(s, 4), 1);
    s.warmup = 0;
    EXPECT_DOUBLE_EQ(learning_rate(s, 0), 1);
  }
}

TEST(Schedule, EndsAtTheMinimum) {
  for (ScheduleKind kind : kScheduleKinds) {
    Schedule s{.kind = kind, .peak = 1, .minimum = 0.1, .warmup = 10, .steps = 50};
    bool constant = kind == ScheduleKind::constant;
    for (int64_t step : {50, 51, 1000}) EXPECT_DOUBLE_EQ(learning_rate(s, step), constant ? 1 : 0.1);
    EXPECT_GT(learning_rate(s, 49), 0.1);
    for (int64_t step = 10; step < 60; ++step) EXPECT_LE(learning_rate(s, step + 1), learning_rate(s, step));
  }
}

TEST(Schedule, BetweenPeakAndMinimum) {
  Schedule s{.kind = ScheduleKind::cosine, .peak = 3, .minimum = 1, .warmup = 10, .steps = 50};
  EXPECT_DOUBLE_EQ(learning_rate(s, 30), 2);  // half way
  EXPECT_NEAR(learning_rate(s, 20), 1 + 2 * 0.8535533905932737, 1e-12);
  s.kind = ScheduleKind::linear;
  EXPECT_DOUBLE_EQ(learning_rate(s, 20), 2.5);
  EXPECT_DOUBLE_EQ(learning_rate(s, 40), 1.5);
}

TEST(Schedule, WarmupStableDecay) {
  Schedule s{.kind = ScheduleKind::wsd, .peak = 2, .minimum = 1, .warmup = 10, .steps = 100, .decay_fraction = 0.25};
  for (int64_t step : {10, 50, 74, 75}) EXPECT_DOUBLE_EQ(learning_rate(s, step), 2);
  EXPECT_DOUBLE_EQ(learning_rate(s, 80), 1.8);
  EXPECT_DOUBLE_EQ(learning_rate(s, 99), 1.04);
  EXPECT_DOUBLE_EQ(learning_rate(s, 100), 1);
  s.decay_fraction = 1;  // the fall begins where the warm-up ends
  EXPECT_DOUBLE_EQ(learning_rate(s, 10), 2);
  EXPECT_DOUBLE_EQ(learning_rate(s, 55), 1.5);
}

TEST(Schedule, AWarmupLongerThanTheTraining) {
  for (ScheduleKind kind : kScheduleKinds) {
    Schedule s{.kind = kind, .peak = 1, .warmup = 10, .steps = 5};
    for (int64_t step = 0; step < 10; ++step) EXPECT_DOUBLE_EQ(learning_rate(s, step), double(step + 1) / 11);
    for (int64_t step = 10; step < 14; ++step) EXPECT_GE(learning_rate(s, step), 0);
  }
}

TEST(Schedule, ByName) {
  const char* names[] = {"constant", "linear", "cosine", "wsd"};
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(schedule_kind(names[i]), kScheduleKinds[i]);
  try {
    schedule_kind("cosin");
    FAIL();
  } catch (const Error& error) {
    std::string what = error.what();
    EXPECT_NE(what.find("\"cosin\""), std::string::npos);
    for (const char* name : names) EXPECT_NE(what.find(name), std::string::npos) << name;
  }
}

TEST(Schedule, IsWhatPyTorchComputes) {
  int checked = 0;
  for (const Json& c : golden().at("schedules")) {
    std::string name = c.at("schedule");
    const Json& o = c.at("options");
    Schedule s;
    if (name == "cosine") {
      s = {.kind = ScheduleKind::cosine, .peak = o.at("peak"), .minimum = o.at("floor"), .steps = o.at("steps")};
    } else if (name == "linear") {
      s = {.kind = ScheduleKind::linear, .peak = o.at("first"), .minimum = o.at("last"), .steps = o.at("steps")};
    } else {
      continue;
    }
    ++checked;
    for (size_t step = 0; step < c.at("rates").size(); ++step) {
      EXPECT_NEAR(learning_rate(s, int64_t(step)), c.at("rates")[step], 1e-11) << name << " " << step;
    }
  }
  EXPECT_EQ(checked, 2);
}

}  // namespace
}  // namespace rapt

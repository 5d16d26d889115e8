#include <gtest/gtest.h>
#include <rapt/core/parallel.h>
#include <rapt/nn/module.h>
#include <rapt/watch/trap_nan.h>

#include <cfenv>
#include <limits>

#include "../autograd/attention_variants.h"
#include "../autograd/op_table.h"

namespace rapt {
namespace {

// What was raised since the flags were cleared; with one thread, all work is this thread's.
std::string raised() {
  std::string text;
  for (auto [flag, name] : {std::pair(FE_INVALID, "invalid "), std::pair(FE_DIVBYZERO, "division by zero "),
                            std::pair(FE_OVERFLOW, "overflow ")}) {
    if (std::fetestexcept(flag)) text += name;
  }
  return text;
}

class Flags : public testing::Test {
 protected:
  int before = threads();
  void SetUp() override { set_threads(1); }
  void TearDown() override { set_threads(before); }
};

TEST_F(Flags, NoOperationRaisesOneOnOrdinaryNumbers) {
  for (int64_t n : {1, 3, 16, 37, 200}) {
    for (const OpRow& row : op_table(n)) {
      if (n < row.options.smallest) continue;
      std::vector<Tensor> inputs = make_inputs(row);
      std::feclearexcept(FE_ALL_EXCEPT);
      run_row(row, inputs);
      EXPECT_EQ(raised(), "") << row.name << " with n = " << n;
    }
  }
}

TEST_F(Flags, NoAttentionRaisesOneWhateverTheMask) {
  for (int64_t tile : {9, 64}) {
    for (const AttentionSetting& setting : attention_settings(tile)) {
      for (const AttentionVariant& variant : attention_variants()) {
        std::feclearexcept(FE_ALL_EXCEPT);
        attend(variant, setting, false);
        EXPECT_EQ(raised(), "") << variant.name << ", " << setting.name << ", " << tile;
      }
    }
  }
}

TEST_F(Flags, MasksOfMinusInfinityRaiseNone) {
  const Real inf = std::numeric_limits<Real>::infinity();
  for (int64_t n : {1, 7, 40}) {
    Tensor x = uniform({5, n, 33}, -3, 3);
    for (int64_t i = 0; i < x.numel(); ++i) {
      if (i % 3 == 0 || i / (n * 33) == 2) x.mutable_data()[i] = -inf;
    }
    std::feclearexcept(FE_ALL_EXCEPT);
    for (int dim : {0, 1, 2}) {
      Tensor leaf = requires_grad(x.detach());
      backward(sum(softmax(leaf, dim)));
      EXPECT_EQ(raised(), "") << "softmax over " << dim << " of " << to_string(x.shape);
      std::feclearexcept(FE_ALL_EXCEPT);
      max(x, dim), logsumexp(x, dim);
      EXPECT_EQ(raised(), "") << "max and logsumexp over " << dim << " of " << to_string(x.shape);
      std::feclearexcept(FE_ALL_EXCEPT);
      backward(sum(exp(log_softmax(leaf, dim))));
      EXPECT_EQ(raised(), "") << "log_softmax over " << dim << " of " << to_string(x.shape);
      std::feclearexcept(FE_ALL_EXCEPT);
    }
  }
}

class TrapNanDeathTest : public testing::Test {
 protected:
  void SetUp() override { testing::FLAGS_gtest_death_test_style = "threadsafe"; }
};

void trapped(const std::function<void()>& f) {
  Scope scope(std::make_shared<const std::string>("blocks.1.mlp"));
  TrapNan trap;
  f();
}

TEST_F(TrapNanDeathTest, NamesTheOperationModuleAndLine) {
  EXPECT_EXIT(trapped([] {
                log(from_values({3}, {1, -1, 2}));
              }),
              testing::KilledBySignal(SIGFPE),
              "rapt: an .*\n  in log \\(.*trap_nan_test.cpp:[0-9]+, in blocks.1.mlp\\)\n.*addr2line -Cfie /.* 0x");
  EXPECT_EXIT(trapped([] { log(zeros({20})); }), testing::KilledBySignal(SIGFPE), "made an Inf\n  in log ");
  EXPECT_EXIT(trapped([] { exp(full({40}, 1000)); }), testing::KilledBySignal(SIGFPE), "an overflow .*\n  in exp ");
  EXPECT_EXIT(trapped([] { sqrt(full({3}, -1)); }), testing::KilledBySignal(SIGFPE), "an invalid .*\n  in sqrt ");
  EXPECT_EXIT(trapped([] { ones({3}) / zeros({3}); }), testing::KilledBySignal(SIGFPE), "by zero .*\n  in div");
}

TEST_F(TrapNanDeathTest, NamesABackward) {
  EXPECT_EXIT(trapped([] { backward(sum(sqrt(requires_grad(zeros({3}))))); }), testing::KilledBySignal(SIGFPE),
              "in backward of sqrt \\(.*trap_nan_test.cpp:[0-9]+, in blocks.1.mlp\\)");
}

TEST_F(TrapNanDeathTest, StopsEveryThread) {
  auto far_off = [] {
    set_threads(4);
    Tensor x = ones({1 << 20});
    x.set({(1 << 20) - 5}, 1000);  // in the last thread's part
    exp(x);
  };
  EXPECT_EXIT(trapped(far_off), testing::KilledBySignal(SIGFPE), "in exp ");
}

TEST_F(TrapNanDeathTest, SaysWhenNoOperationRuns) {
  auto outside = [] {
    tanh(ones({2}));
    volatile Real zero = 0;
    zero = zero / zero;
  };
  EXPECT_EXIT(trapped(outside), testing::KilledBySignal(SIGFPE), "in no operation: .*after tanh");
}

TEST(TrapNan, IsOffAgainAfterwards) {
  Tensor x = full({3}, -1);
  { TrapNan trap; }
  Tensor y = log(x);
  EXPECT_NE(y.data()[0], y.data()[0]);
}

TEST(TrapNan, LetsWrittenInfinitiesPass) {
  Tensor x = full({40}, -std::numeric_limits<Real>::infinity());
  TrapNan trap;
  Tensor y = exp(x * 2 - 1);
  EXPECT_EQ(y.data()[3], 0);
}

TEST(TrapNan, IsOneAtATime) {
  TrapNan trap;
  EXPECT_THROW(TrapNan(), Error);
}

}  // namespace
}  // namespace rapt

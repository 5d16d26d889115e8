#include <gtest/gtest.h>
#include <rapt/autograd/observer.h>
#include <rapt/autograd/ops.h>

#include <string>
#include <vector>

namespace rapt {
namespace {

// What an observer is told, a word or two for each call.
struct Diary final : Observer {
  std::vector<std::string> lines;
  void begin(const Operation& o) override {
    lines.push_back(fmt::format("begin {}{}{}", o.backward ? "backward " : "", o.name,
                                o.outer ? fmt::format(" in {}", o.outer->name) : ""));
  }
  void end(const Operation& o) override { lines.push_back(fmt::format("end {}", o.name)); }
  void failed(const Operation& o) override { lines.push_back(fmt::format("failed {}", o.name)); }
};

using Lines = std::vector<std::string>;

TEST(Observer, IsToldOfForwardAndBackward) {
  Tensor x = requires_grad(from_values({2}, {1, 2}));
  Diary diary;
  backward(sum(exp(x)));
  EXPECT_EQ(diary.lines, (Lines{"begin exp", "end exp", "begin sum", "end sum", "begin backward sum", "end sum",
                                "begin backward exp", "end exp", "begin backward leaf", "end leaf"}));
}

TEST(Observer, IsToldNothingBeforeAndAfterItsLife) {
  Tensor x = from_values({2}, {1, 2});
  exp(x);
  Diary outer;
  {
    Diary inner;
    exp(x);
    EXPECT_EQ(inner.lines.size(), 2u);
  }
  tanh(x);
  EXPECT_EQ(outer.lines, (Lines{"begin exp", "end exp", "begin tanh", "end tanh"}));
}

TEST(Observer, MayEndBeforeOneThatIsYounger) {
  auto first = std::make_unique<Diary>();
  Diary second;
  first.reset();
  exp(ones({2}));
  EXPECT_EQ(second.lines.size(), 2u);
}

// Fails, forward or backward, inside of a recorded operation of its own.
struct Failing {
  static constexpr auto name = "failing";
  bool forward_fails = false;
  Tensor forward(std::span<const Tensor> x) {
    check(!forward_fails, "no");
    return exp(x[0]);
  }
  std::vector<Tensor> backward(const Tensor&, Needs) const { throw Error("never"); }
};

TEST(Observer, SeesPartsAndFailures) {
  Tensor x = requires_grad(ones({2}));
  Diary diary;
  EXPECT_THROW(record(Failing{true}, {x}), Error);
  EXPECT_EQ(diary.lines, (Lines{"begin failing", "failed failing"}));
  diary.lines.clear();
  Tensor y = record(Failing{}, {x});
  EXPECT_EQ(diary.lines, (Lines{"begin failing", "begin exp in failing", "end exp", "end failing"}));
  diary.lines.clear();
  EXPECT_THROW(backward(sum(y)), Error);
  EXPECT_EQ(diary.lines.back(), "failed failing");
  diary.lines.clear();
  exp(x);
  EXPECT_EQ(diary.lines[0], "begin exp") << "nothing is left running";
}

TEST(Observer, MayThrowAndTheOthersAreToldNevertheless) {
  struct Stern final : Observer {
    void end(const Operation&) override { throw Error("enough"); }
  };
  Diary before;
  Stern stern;
  Diary after;
  EXPECT_THROW(exp(ones({2})), Error);
  EXPECT_EQ(before.lines, (Lines{"begin exp", "end exp"}));
  EXPECT_EQ(after.lines, (Lines{"begin exp", "end exp"}));
}

TEST(Observer, SeesInputsResultsNodesModulesAndCosts) {
  struct Look final : Observer {
    int seen = 0;
    void end(const Operation& o) override {
      if (o.backward) return;
      ++seen;
      EXPECT_EQ(o.describe(), fmt::format("matmul ({}:{}, in net.up)", o.where.file, o.where.line));
      EXPECT_NE(std::string(o.where.file).find("observer_test"), std::string::npos);
      ASSERT_EQ(o.inputs.size(), 2u);
      EXPECT_FALSE(o.inputs[0].node);
      EXPECT_EQ(o.inputs[0].shape, Shape({3, 4}));
      ASSERT_EQ(o.results.size(), 1u);
      EXPECT_EQ(o.results[0].shape, Shape({3, 5}));
      EXPECT_EQ(o.results[0].node.get(), o.node);
      EXPECT_EQ(o.cost.forward, 2.0 * 3 * 4 * 5);
      EXPECT_EQ(o.cost.backward, 2.0 * 3 * 4 * 5) << "one of two inputs wants a gradient";
    }
  };
  Scope scope(std::make_shared<const std::string>("net.up"));
  Tensor a = requires_grad(ones({3, 4}));
  Look look;
  matmul(a, ones({4, 5}));
  EXPECT_EQ(look.seen, 1);
}

}  // namespace
}  // namespace rapt

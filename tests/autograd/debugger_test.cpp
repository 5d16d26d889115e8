#include <gtest/gtest.h>
#include <rapt/autograd/debugger.h>
#include <rapt/autograd/ops.h>

#include <cmath>
#include <string>
#include <vector>

#include "../expect.h"
#include "op_table.h"

// What debuggers call and read. That they can read it: tests/debug.

namespace rapt {
namespace {

// While it lives, nodes keep their inputs and results.
struct KeepValues {
  KeepValues() { detail::keep_values = true; }
  ~KeepValues() { detail::keep_values = false; }
};

std::string check_of(const Tensor& y) { return detail::check_node(y.node.get()); }
struct Crooked {
  static constexpr auto name = "crooked";
  Saved x;
  Tensor forward(std::span<const Tensor> in) {
    x = Saved(in[0]);
    return in[0] * in[0];
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const { return {dy * x.get() * 1.9}; }
};

TEST(Debugger, NodesKeepValuesUntilTheyHaveRun) {
  Tensor x = requires_grad(arange(3));
  Tensor without = exp(x);
  EXPECT_TRUE(without.node->kept.empty());
  KeepValues keep;
  Tensor y = x * 2;
  ASSERT_EQ(y.node->kept.size(), 3u);
  EXPECT_EQ(y.node->kept[0].to_vector(), x.to_vector());
  EXPECT_EQ(y.node->kept[2].to_vector(), y.to_vector());
  for (const Tensor& t : y.node->kept) EXPECT_FALSE(t.node) << "what is kept would hold the graph";
  backward(sum(y));
  EXPECT_TRUE(y.node->kept.empty());
}

TEST(Debugger, FindsNoFaultWithAnyOperation) {
  KeepValues keep;
  int checked = 0;
  for (const OpRow& row : op_table(3)) {
    std::vector<Tensor> leaves;
    for (const Tensor& x : make_inputs(row)) leaves.push_back(requires_grad(x));
    Tensor y = row.function(leaves);
    std::string text = check_of(y);
    EXPECT_EQ(text.find("WRONG"), std::string::npos) << row.name << ": " << text;
    checked += text.find("ok") != std::string::npos;
  }
  EXPECT_GT(checked, 40);
}

TEST(Debugger, FindsAWrongBackward) {
  KeepValues keep;
  Tensor x = requires_grad(arange(5));
  expect_contains(check_of(record(Crooked{}, {x})), "WRONG");
  expect_contains(check_of(x * x), "ok");
}

TEST(Debugger, CheckLeavesTheNodeAlone) {
  KeepValues keep;
  Tensor x = requires_grad(arange(5));
  Tensor y = softmax(x);
  expect_contains(check_of(y), "ok");
  backward(y, arange(5));
  Tensor twin = requires_grad(arange(5));
  backward(softmax(twin), arange(5));
  EXPECT_EQ(gradient(x).to_vector(), gradient(twin).to_vector());
}

TEST(Debugger, SaysWhyANodeIsNotChecked) {
  Tensor x = requires_grad(arange(5));
  expect_contains(check_of(x), "leaf");
  expect_contains(check_of(exp(x)), "not kept");
  KeepValues keep;
  Tensor y = exp(x);
  backward(sum(y));
  expect_contains(check_of(y), "differentiated already");
  expect_contains(check_of(log(x * NAN)), "not finite");
  Tensor q = requires_grad(ones({1, 1, 4, 2}));
  expect_contains(check_of(attention_with_lse(q, q, q).lse), "attention_lse can't be run a second time");
  Tensor z = exp(x);
  x.set({0}, 7);
  expect_contains(check_of(z), "another result");
}

}  // namespace
}  // namespace rapt

#include "../../nn/module.h"

#include <gtest/gtest.h>

#include "../../autograd/grad_check.h"
#include "../../core/random.h"
#include "../../nn/layers.h"

namespace rapt {
namespace {

struct Gated : Module {
  Linear up, gate;
  Gated(int64_t d, int64_t h) : up(child<Linear>("up", d, h)), gate(child<Linear>("gate", d, h)) {}
  Tensor operator()(const Tensor& x) const { return up(x) * silu(gate(x)); }
};

struct Pair : Module {
  Gated first, second;
  Tensor scale;
  Pair() : first(child<Gated>("first", 3, 4)), second(child<Gated>("second", 4, 2)), scale(param("scale", ones({2}))) {}
  Tensor operator()(const Tensor& x) const { return second(first(x)) * scale; }
};

std::vector<std::string> names(const Module& m) {
  std::vector<std::string> out;
  for (const NamedTensor& p : m.parameters()) out.push_back(p.name);
  return out;
}

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Module, NamesAreFlatAndInTheOrderOfConstruction) {
  Pair pair;
  EXPECT_EQ(names(pair), (std::vector<std::string>{"first.up.weight", "first.up.bias", "first.gate.weight",
                                                   "first.gate.bias", "second.up.weight", "second.up.bias",
                                                   "second.gate.weight", "second.gate.bias", "scale"}));
  EXPECT_EQ(pair.parameter_count(), 2 * (3 * 4 + 4) + 2 * (4 * 2 + 2) + 2);
}

TEST(Module, TheListHoldsTheWeightsThemselves) {
  Pair pair;
  Tensor listed = pair.parameters().back().tensor;
  fill(listed, 0);
  EXPECT_EQ(pair(ones({1, 3})).at({0, 0}), 0);
}

TEST(Module, PathsAreCompletedByTheParents) {
  Pair pair;
  EXPECT_EQ(*pair.second.gate.path(), "second.gate");
  EXPECT_EQ(*pair.path(), "");
  Pair moved = std::move(pair);
  EXPECT_EQ(*moved.first.up.path(), "first.up");
}

TEST(Module, NodesKnowTheirModule) {
  Pair pair;
  Tensor y = pair.first.up(ones({1, 3}));
  ASSERT_TRUE(y.node);
  EXPECT_EQ(*y.node->module, "first.up");
}

TEST(Module, ErrorsNameTheModule) {
  Pair pair;
  EXPECT_NE(error_of([&] { pair(ones({1, 5})); }).find("(in first."), std::string::npos);
}

TEST(Module, ANameIsGivenOnce) {
  struct Twice : Module {
    Twice() {
      param("weight", ones({1}));
      param("weight", ones({1}));
    }
  };
  EXPECT_NE(error_of([] { Twice twice; }).find("weight"), std::string::npos);
}

TEST(Module, GradientsFlowToEveryParameter) {
  Pair pair;
  backward(sum(pair(ones({2, 3}))));
  for (const NamedTensor& p : pair.parameters()) EXPECT_TRUE(gradient(p.tensor)) << p.name;
  pair.zero_gradients();
  for (const NamedTensor& p : pair.parameters()) EXPECT_FALSE(gradient(p.tensor)) << p.name;
}

TEST(Module, AParameterWithoutAnOptimizerIsNamedOnce) {
  unclaimed_parameters();
  Pair pair;
  for (const NamedTensor& p : pair.parameters()) {
    if (p.name != "scale") claim_parameter(p.tensor);
  }
  backward(sum(pair(ones({2, 3}))));
  std::vector<std::string> unclaimed = unclaimed_parameters();
  ASSERT_EQ(unclaimed.size(), 1u);
  EXPECT_EQ(unclaimed[0], "scale");
  backward(sum(pair(ones({2, 3}))));
  EXPECT_TRUE(unclaimed_parameters().empty());
}

TEST(Module, LoadingListsAllProblemsTogetherAndChangesNothing) {
  Pair pair;
  std::vector<NamedTensor> values;
  for (const NamedTensor& p : pair.parameters()) values.push_back({p.name, zeros(p.tensor.shape)});
  values[0].name = "first.upp.weight";
  values[1].tensor = zeros({5});
  std::vector<Real> before = pair.parameters()[2].tensor.to_vector();
  std::string error = error_of([&] { load_parameters(pair.parameters(), values); });
  EXPECT_NE(error.find("missing: first.up.weight (4, 3)"), std::string::npos) << error;
  EXPECT_NE(error.find("unexpected: first.upp.weight (4, 3)"), std::string::npos) << error;
  EXPECT_NE(error.find("misshapen: first.up.bias is (5,) instead of (4,)"), std::string::npos) << error;
  EXPECT_EQ(pair.parameters()[2].tensor.to_vector(), before);
  values[0].name = "first.up.weight";
  values[1].tensor = full({4}, 7);
  load_parameters(pair.parameters(), values);
  EXPECT_EQ(pair.first.up.bias.at({3}), 7);
}

TEST(Module, EvalModeTurnsDropoutOffAndRecordsNothing) {
  Dropout drop(0.5);
  Tensor x = requires_grad(ones({100}));
  EXPECT_NE(drop(x).to_vector(), x.to_vector());
  EvalMode eval;
  EXPECT_EQ(drop(x).to_vector(), x.to_vector());
  EXPECT_FALSE((x * 2.0).node);
}

TEST(Layers, SequentialRunsItsPartsInOrder) {
  Sequential net;
  net.add<Linear>("in", 2, 3).add([](const Tensor& x) { return relu(x); }).add<Linear>("out", 3, 1);
  EXPECT_EQ(names(net), (std::vector<std::string>{"in.weight", "in.bias", "out.weight", "out.bias"}));
  Tensor x = uniform({4, 2}, -1, 1);
  Tensor by_hand = linear(relu(linear(x, net.parameters()[0].tensor, net.parameters()[1].tensor)),
                          net.parameters()[2].tensor, net.parameters()[3].tensor);
  EXPECT_EQ(net(x).to_vector(), by_hand.to_vector());
}

TEST(Layers, MlpGradients) {
  manual_seed(3);
  Mlp mlp(3, 5);
  auto result = grad_check(
      [&](const std::vector<Tensor>& x) { return linear(gelu(linear(x[0], x[1], x[2])), x[3], x[4]); },
      {normal({2, 3}), mlp.up.weight.detach(), mlp.up.bias.detach(), mlp.down.weight.detach(), mlp.down.bias.detach()});
  EXPECT_TRUE(result) << result.message;
}

}  // namespace
}  // namespace rapt

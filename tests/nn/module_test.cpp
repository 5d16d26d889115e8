#include "../../nn/module.h"

#include <gtest/gtest.h>

#include "../../autograd/grad_check.h"
#include "../../core/random.h"
#include "../../nn/layers.h"
#include "../expect.h"
#include "parameters.h"

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

TEST(Module, AParameterWithoutAnOptimizerIsNamed) {
  Pair pair;
  std::vector<NamedTensor> known = pair.parameters();
  for (const NamedTensor& p : known) {
    if (p.name != "scale") claim_parameter(p.tensor);
  }
  EXPECT_TRUE(unclaimed_parameters(known).empty());
  backward(sum(pair(ones({2, 3}))));
  std::vector<std::string> unclaimed = unclaimed_parameters(known);
  ASSERT_EQ(unclaimed.size(), 1u);
  EXPECT_EQ(unclaimed[0].find("scale (2,) (made in Pair at tests/nn/module_test.cpp:"), 0u) << unclaimed[0];
  expect_contains(unclaimed[0], ", used by mul (tests/nn/module_test.cpp:");
  Pair other;  // had its gradient in another pass
  backward(sum(other(ones({2, 3}))));
  EXPECT_TRUE(unclaimed_parameters(std::vector<NamedTensor>{{"x", requires_grad(ones({1}))}}).empty());
  claim_parameter(pair.scale);
  EXPECT_TRUE(unclaimed_parameters(known).empty());
}

TEST(Module, AnUnregisteredPartIsNamedWithWhereItWasUsed) {
  struct Tail : Module {
    Linear forgotten{4, 2};
    Linear known;
    Tail() : known(child<Linear>("known", 4, 4)) {}
    Tensor operator()(const Tensor& input) const {
      return run([&](const Tensor& x) { return forgotten(known(x)); }, input);
    }
  };
  struct Body : Module {
    Tail tail;
    Body() : tail(child<Tail>("tail")) {}
  };
  Body body;
  for (const NamedTensor& p : body.parameters()) claim_parameter(p.tensor);
  backward(sum(body.tail(ones({1, 4}))));
  std::vector<std::string> unclaimed = unclaimed_parameters(body.parameters());
  ASSERT_EQ(unclaimed.size(), 2u);
  EXPECT_EQ(unclaimed[0].find("weight (2, 4) (made in Linear at nn/linear.cpp:"), 0u) << unclaimed[0];
  expect_contains(unclaimed[0], ", used by linear (nn/linear.cpp:");
  expect_contains(unclaimed[0], ", in tail)");
  EXPECT_EQ(unclaimed[1].find("bias (2,) "), 0u) << unclaimed[1];
}

TEST(Module, WhatComesTooLateIsRefused) {
  struct Late : Module {
    Sequential net;
    Late() : net(child<Sequential>("net")) { net.add<Linear>("in", 2, 3); }
  };
  std::string error = error_of([] { Late late; });
  EXPECT_NE(error.find("net (Sequential) is part of another module already"), std::string::npos) << error;
  EXPECT_NE(error.find("in"), std::string::npos) << error;
  struct InTime : Module {
    Sequential net;
    InTime() : net(child<Sequential>("net", make())) {}
    static Sequential make() {
      Sequential made;
      made.add<Linear>("in", 2, 3);
      return made;
    }
  };
  EXPECT_EQ(names(InTime()), (std::vector<std::string>{"net.in.weight", "net.in.bias"}));
}

TEST(Module, PartsOfOneNameAreRefused) {
  struct Twice : Module {
    Dropout a, b;
    Twice() : a(child<Dropout>("drop", 0.1)), b(child<Dropout>("drop", 0.1)) {}
  };
  EXPECT_NE(error_of([] { Twice twice; }).find("there is a part drop (Dropout) already"), std::string::npos);
}

TEST(Module, AParameterAndAPartOfOneNameAreRefused) {
  struct ParameterFirst : Module {
    Tensor w;
    Dropout drop;
    ParameterFirst() : w(param("w", ones({2, 3}))), drop(child<Dropout>("w", 0.1)) {}
  };
  expect_contains(error_of([] { ParameterFirst module; }), "there is a parameter w (2, 3) already");
  struct PartFirst : Module {
    Linear linear;
    Tensor w;
    PartFirst() : linear(child<Linear>("w", 1, 1)), w(param("w", ones({1}))) {}
  };
  expect_contains(error_of([] { PartFirst module; }), "there is a part w (Linear) already");
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
  values[2].tensor = zeros({3, 4});  // the other way round
  error = error_of([&] { load_parameters(pair.parameters(), values); });
  EXPECT_NE(error.find("first.gate.weight is (3, 4) instead of (4, 3); transposed?"), std::string::npos) << error;
  values[2].tensor = zeros({4, 3});
  load_parameters(pair.parameters(), values);
  EXPECT_EQ(pair.first.up.bias.at({3}), 7);
}

TEST(Module, LoadingPartlyReports) {
  Pair pair;
  std::vector<NamedTensor> values{{"first.up.weight", full({4, 3}, 7)},
                                  {"first.up.bias", zeros({5})},
                                  {"second.up.weight", zeros({4, 2})},
                                  {"other", zeros({2})}};
  LoadReport report = load_parameters(pair.parameters(), values, {.partly = true});
  EXPECT_FALSE(report.complete());
  EXPECT_EQ(report.loaded, (std::vector<std::string>{"first.up.weight"}));
  EXPECT_EQ(pair.first.up.weight.at({0, 0}), 7);
  EXPECT_EQ(report.missing.size(), 6u);
  ASSERT_EQ(report.misshapen.size(), 2u);
  EXPECT_FALSE(report.misshapen[0].transposed());
  EXPECT_TRUE(report.misshapen[1].transposed());
  ASSERT_EQ(report.unexpected.size(), 1u);
  EXPECT_EQ(report.unexpected[0].name, "other");
  EXPECT_EQ(to_string(report).find("misshapen: first.up.bias is (5,) instead of (4,)\n"
                                   "misshapen: second.up.weight is (4, 2) instead of (2, 4); transposed?\n"
                                   "missing: first.gate.weight (4, 3)\n"),
            0u)
      << to_string(report);
  values.push_back(values[0]);  // which of the two is meant?
  EXPECT_NE(error_of([&] { load_parameters(pair.parameters(), values, {.partly = true}); }).find("given twice"),
            std::string::npos);
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

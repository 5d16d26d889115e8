#include <gtest/gtest.h>
#include <rapt/core/random.h>
#include <rapt/nn/linear.h>
#include <rapt/optim/adamw.h>
#include <rapt/optim/muon.h>
#include <rapt/optim/sgd.h>

#include <cmath>

// Groups of parameters, frozen ones, and those that were forgotten.

namespace rapt {
namespace {

bool is_bias(const NamedTensor& p) { return p.name.ends_with("bias"); }

std::vector<NamedTensor> weight_and_bias() {
  return {{"weight", requires_grad(ones({2, 2}))}, {"bias", requires_grad(ones({2, 2}))}};
}

template <class O, class C>
std::vector<double> after_one_step(C config, const std::function<void(Optimizer&)>& change) {
  std::vector<NamedTensor> p = weight_and_bias();
  O optimizer(p, config);
  change(optimizer);
  for (const NamedTensor& q : p) set_gradient(q.tensor, full({2, 2}, Real(0.5)));
  optimizer.step();
  return {double(p[0].tensor.at({1, 1})), double(p[1].tensor.at({1, 1}))};
}

TEST(Groups, HaveTheirOwnRateAndDecay) {
  auto none = [](Optimizer&) {};
  auto tenfold = [](Optimizer& o) { o.set_group(is_bias, {.learning_rate = 10}); };
  auto no_decay = [](Optimizer& o) { o.set_group(is_bias, {.weight_decay = 0}); };
  auto check = [&](auto run, double rate, double decay, double slope) {
    std::vector<double> plain = run(none), fast = run(tenfold), free = run(no_decay);
    EXPECT_NEAR(plain[0], 1 - rate * (slope + decay), 1e-5);
    EXPECT_NEAR(plain[1], plain[0], 1e-7);
    EXPECT_NEAR(fast[0], plain[0], 1e-7);
    EXPECT_NEAR(fast[1], 1 - 10 * rate * (slope + decay), 1e-5);
    EXPECT_NEAR(free[0], plain[0], 1e-7);
    EXPECT_NEAR(free[1], 1 - rate * slope, 1e-5);
  };
  check([](auto f) { return after_one_step<SGD>(SGDConfig{.learning_rate = 0.01, .weight_decay = 0.25}, f); }, 0.01,
        0.25, 0.5);
  // of Adam, the first step is the sign of the gradient
  check([](auto f) { return after_one_step<AdamW>(AdamWConfig{.learning_rate = 0.01, .weight_decay = 0.25}, f); }, 0.01,
        0.25, 1);
  MuonConfig muon{.learning_rate = 0.01, .weight_decay = 0.25};
  muon.adamw = {.learning_rate = 0.01, .weight_decay = 0.25};
  EXPECT_NEAR(after_one_step<Muon>(muon, tenfold)[1], 1 - 0.1 * 1.25, 1e-5);  // left to AdamW
  auto slow = [](Optimizer& o) { o.set_group([](const NamedTensor& p) { return !is_bias(p); }, {.learning_rate = 0}); };
  EXPECT_EQ(after_one_step<Muon>(muon, slow)[0], 1);
}

TEST(Groups, GoWithAnySchedule) {
  std::vector<NamedTensor> p = weight_and_bias();
  SGD optimizer(p, {.learning_rate = 1});
  optimizer.set_group(is_bias, {.learning_rate = 0.5});
  optimizer.set_learning_rate(0.1);
  for (const NamedTensor& q : p) set_gradient(q.tensor, ones({2, 2}));
  optimizer.step();
  EXPECT_NEAR(p[0].tensor.at({0, 0}), 0.9, 1e-6);
  EXPECT_NEAR(p[1].tensor.at({0, 0}), 0.95, 1e-6);
  EXPECT_EQ(optimizer.learning_rate(), 0.1);  // as it was set
}

TEST(Groups, AnEmptyOneIsAnError) {
  SGD optimizer(weight_and_bias());
  EXPECT_THROW(optimizer.set_group([](const NamedTensor& p) { return p.name == "biass"; }, {}), Error);
  EXPECT_THROW(optimizer.set_group(is_bias, {.learning_rate = -1}), Error);
}

struct Broken : Optimizer {
  explicit Broken(std::vector<NamedTensor> p) : Optimizer(std::move(p), 0.5) {}
  void update(size_t, Tensor&, const Tensor&) override { throw Error("broken"); }
};

TEST(Groups, ARateSurvivesAnUpdateThatThrows) {
  std::vector<NamedTensor> p = weight_and_bias();
  Broken optimizer(p);
  optimizer.set_group([](const NamedTensor&) { return true; }, {.learning_rate = 3});
  set_gradient(p[0].tensor, ones({2, 2}));
  EXPECT_THROW(optimizer.step(), Error);
  EXPECT_EQ(optimizer.learning_rate(), 0.5);
}

TEST(Frozen, ParametersAreLeftAlone) {
  std::vector<NamedTensor> p = weight_and_bias();
  AdamW optimizer(p, {.learning_rate = 0.1, .weight_decay = 0.5});
  freeze(p[0].tensor);
  set_gradient(p[0].tensor, ones({2, 2}));  // from before, say
  set_gradient(p[1].tensor, ones({2, 2}));
  optimizer.step();
  EXPECT_EQ(p[0].tensor.at({0, 0}), 1);
  EXPECT_NE(p[1].tensor.at({0, 0}), 1);
}

// Its second layer is a member like any other, but was not made with child.
struct Forgetful : Module {
  Linear first, second;
  Forgetful() : first(child<Linear>("first", 2, 3)), second(3, 1) {}
  Tensor operator()(const Tensor& x) const { return second(first(x)); }
};

TEST(Forgotten, ParametersStopTheStepAndAreNamed) {
  Forgetful model;
  SGD optimizer(model.parameters());
  backward(sum(model(ones({4, 2}))));
  const std::vector<Real> before = model.first.weight.to_vector();
  try {
    optimizer.step();
    FAIL() << "the second layer is not trained";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("weight (1, 3) (made in Linear at "), text.npos) << text;
    EXPECT_NE(text.find("linear.cpp:"), text.npos) << text;
    EXPECT_NE(text.find("bias (1,)"), text.npos) << text;
    EXPECT_NE(text.find("with child"), text.npos) << text;
    EXPECT_EQ(text.find("first"), text.npos) << text;
  }
  EXPECT_EQ(model.first.weight.to_vector(), before);
  EXPECT_EQ(optimizer.steps(), 0);
  optimizer.zero_gradients();
  model.second.freeze();  // so it was meant
  backward(sum(model(ones({4, 2}))));
  optimizer.step();
  EXPECT_EQ(optimizer.steps(), 1);
}

TEST(Forgotten, ParametersOfAnotherOptimizerOrAnotherPassAreNot) {
  Linear critic(3, 1), maker(2, 3), unrelated(2, 1);
  SGD first(critic.parameters()), second(maker.parameters());
  backward(sum(unrelated(ones({1, 2}))));
  backward(sum(critic(maker(ones({1, 2})))));
  EXPECT_NO_THROW(second.step());
}

}  // namespace
}  // namespace rapt

#include <gtest/gtest.h>
#include <rapt/core/parallel.h>
#include <rapt/core/random.h>
#include <rapt/optim/adamw.h>
#include <rapt/optim/muon.h>
#include <rapt/optim/optimizer.h>
#include <rapt/optim/sgd.h>

#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../../nn/layers.h"
#include "../autograd/golden.h"
#include "../expect.h"

namespace rapt {
namespace {

using Parameters = std::vector<NamedTensor>;

Parameters some_parameters(uint64_t seed = 1) {
  manual_seed(seed);
  Parameters all;
  for (auto [name, shape] : {std::pair{"embedding.weight", Shape{7, 4}},
                             {"up.weight", Shape{6, 4}},
                             {"down.weight", Shape{4, 6}},
                             {"up.bias", Shape{6}},
                             {"scale", Shape{}}}) {
    all.push_back({name, requires_grad(normal(shape))});
  }
  return all;
}

void set_random_gradients(const Parameters& parameters, uint64_t seed) {
  manual_seed(seed, 100);
  for (const NamedTensor& p : parameters) set_gradient(p.tensor, normal(p.tensor.shape));
}

using Make = std::function<std::unique_ptr<Optimizer>(Parameters)>;
struct Kind {
  const char* name;
  Make make;
};
const Kind kOptimizers[] = {
    {"SGD", [](Parameters p) { return std::make_unique<SGD>(std::move(p)); }},
    {"SGD with momentum",
     [](Parameters p) {
       return std::make_unique<SGD>(std::move(p), SGDConfig{.momentum = 0.9, .nesterov = true, .weight_decay = 0.1});
     }},
    {"AdamW", [](Parameters p) { return std::make_unique<AdamW>(std::move(p), AdamWConfig{.learning_rate = 0.1}); }},
    {"Muon", [](Parameters p) { return std::make_unique<Muon>(std::move(p)); }},
};

std::vector<std::vector<Real>> values(const Parameters& parameters) {
  std::vector<std::vector<Real>> all;
  for (const NamedTensor& p : parameters) all.push_back(p.tensor.to_vector());
  return all;
}

TEST(Optimizer, AParameterWithoutGradientIsLeftAlone) {
  for (const Kind& kind : kOptimizers) {
    SCOPED_TRACE(kind.name);
    Parameters p = some_parameters();
    auto before = values(p);
    auto optimizer = kind.make(p);
    set_gradient(p[1].tensor, ones(p[1].tensor.shape));
    set_gradient(p[3].tensor, ones(p[3].tensor.shape));
    optimizer->step();
    auto after = values(p);
    for (size_t i = 0; i < p.size(); ++i) EXPECT_EQ(before[i] == after[i], i != 1 && i != 3) << p[i].name;
    optimizer->zero_gradients();
    for (const NamedTensor& q : p) EXPECT_FALSE(gradient(q.tensor)) << q.name;
    optimizer->step();
    EXPECT_EQ(values(p), after);
    EXPECT_EQ(optimizer->steps(), 2);
  }
}

TEST(Optimizer, AStepIsAChangeInPlace) {
  for (const Kind& kind : kOptimizers) {
    Parameters p = some_parameters();
    auto optimizer = kind.make(p);
    uint32_t version = p[1].tensor.storage->version;
    const Real* data = p[1].tensor.data();
    set_random_gradients(p, 1);
    optimizer->step();
    EXPECT_GT(p[1].tensor.storage->version, version) << kind.name;
    EXPECT_EQ(p[1].tensor.data(), data) << kind.name;
  }
}

// 6 steps are 3, a stop, and 3 more, bit for bit; and the state matters.
TEST(Optimizer, GoesOnExactlyFromItsState) {
  for (const Kind& kind : kOptimizers) {
    SCOPED_TRACE(kind.name);
    Parameters straight = some_parameters(), stopped = some_parameters(), forgetful = some_parameters();
    auto first = kind.make(straight), second = kind.make(stopped), third = kind.make(forgetful);
    std::vector<NamedTensor> saved;
    for (uint64_t step = 0; step < 6; ++step) {
      if (step == 3) {
        for (const NamedTensor& s : second->state()) saved.push_back({s.name, clone(s.tensor)});
        second = kind.make(stopped);
        second->load_state(saved);
        EXPECT_EQ(second->steps(), 3);
        third = kind.make(forgetful);
      }
      for (auto [parameters, optimizer] : {std::pair{&straight, &first}, {&stopped, &second}, {&forgetful, &third}}) {
        set_random_gradients(*parameters, step);
        (*optimizer)->step();
      }
    }
    EXPECT_EQ(values(stopped), values(straight));
    EXPECT_EQ(values(forgetful) == values(straight), saved.size() == 1);  // plain SGD has nothing to forget
  }
}

TEST(Optimizer, ItsStateIsNamed) {
  Parameters p = some_parameters();
  std::vector<std::string> names;
  for (const NamedTensor& s : Muon(p).state()) names.push_back(s.name);
  EXPECT_EQ(names, std::vector<std::string>({"steps", "muon.momentum.up.weight", "muon.momentum.down.weight",
                                             "adamw.m.embedding.weight", "adamw.m.up.bias", "adamw.m.scale",
                                             "adamw.v.embedding.weight", "adamw.v.up.bias", "adamw.v.scale"}));
}

TEST(Optimizer, RefusesAnotherState) {
  Parameters p = some_parameters();
  AdamW optimizer(p, {.learning_rate = 0.1});
  set_random_gradients(p, 1);
  optimizer.step();
  std::vector<NamedTensor> good;
  for (const NamedTensor& s : optimizer.state()) good.push_back({s.name, clone(s.tensor)});
  set_random_gradients(p, 2);
  optimizer.step();
  std::vector<std::vector<Real>> state = values(optimizer.state());
  auto refused = [&](const std::vector<NamedTensor>& bad) -> std::string {
    try {
      optimizer.load_state(bad);
      return "loaded";
    } catch (const DataError& error) {
      EXPECT_EQ(values(optimizer.state()), state);  // nothing has changed
      return error.what();
    }
  };
  std::vector<NamedTensor> bad = good;
  bad.pop_back();
  bad.push_back({"adamw.v.other", zeros({2})});
  bad[1].tensor = zeros({7, 5});
  EXPECT_EQ(refused(bad),
            "optimizer: the saved state is not of this optimizer and these parameters:\n"
            "  misshapen: adamw.m.embedding.weight is (7, 5) instead of (7, 4)\n"
            "  missing: adamw.v.scale ()\n"
            "  unexpected: adamw.v.other (2,)");
  bad = good;
  bad.push_back(good[2]);
  EXPECT_NE(refused(bad).find("given twice: adamw.m.up.weight"), std::string::npos);
  for (auto [high, low] : {std::pair{0.0, 0.5}, {-1.0, 0.0}, {0.0, double(NAN)}, {0.0, 2e6}, {1e30, 0.0}}) {
    bad = good;
    bad[0].tensor = from_values({2}, {high, low});
    EXPECT_NE(refused(bad).find("is no count"), std::string::npos) << high << ", " << low;
  }
  bad = good;
  bad[0].tensor = zeros({3});
  EXPECT_NE(refused(bad).find("misshapen: steps"), std::string::npos);
  optimizer.load_state(good);
  EXPECT_EQ(optimizer.steps(), 1);
}

TEST(Optimizer, CountsPastTheIntegersOfFloat) {
  Parameters p = some_parameters();
  SGD optimizer(p);
  optimizer.load_state({{"steps", from_values({2}, {100, 7})}});
  EXPECT_EQ(optimizer.steps(), 100 * (int64_t{1} << 20) + 7);
  optimizer.step();
  EXPECT_EQ(optimizer.state()[0].tensor.to_vector(), std::vector<Real>({100, 8}));
}

TEST(Optimizer, RefusesWhatItCannotUpdate) {
  Parameters p = some_parameters();
  EXPECT_THROW(SGD({}), Error);
  EXPECT_THROW(SGD({p[0], p[1], p[0]}), Error);         // twice
  EXPECT_THROW(SGD({{"frozen", normal({3})}}), Error);  // wants no gradient
  EXPECT_THROW(SGD(p, {.nesterov = true}), Error);      // of no momentum
  EXPECT_THROW(SGD(p, {.momentum = 1}), Error);
  EXPECT_THROW(AdamW(p, {.beta2 = 1}), Error);
  EXPECT_THROW(Muon(p, {.learning_rate = 0}), Error);
  EXPECT_THROW(Muon(p, {}, [](const NamedTensor&) { return true; }), Error);  // a bias is no matrix
}

struct Plain : Module {
  Linear linear;
  Tensor shift = requires_grad(ones({3}));  // should have been a param
  Plain() : linear(child<Linear>("linear", 2, 3)) {}
  Tensor operator()(const Tensor& input) const {
    return run([&](const Tensor& x) { return linear(x) * shift; }, input);
  }
};
struct Outer : Module {
  Plain plain;
  Outer() : plain(child<Plain>("plain")) {}
};

TEST(Optimizer, NamesALeafThatNobodyUpdates) {
  Outer model;
  SGD optimizer(model.parameters(), {.learning_rate = 0.1});
  auto step = [&] {
    for (int micro = 0; micro < 2; ++micro) backward(sum(model.plain(ones({1, 2}))));
    optimizer.step();
    optimizer.zero_gradients();
  };
  step();  // it could be something whose gradient is only looked at
  const std::vector<Real> before = model.plain.linear.weight.to_vector();
  std::string error = error_of(step);
  expect_contains(error, "a leaf of requires_grad, (3,) (made in ");
  expect_contains(error, " at tests/optim/optimizer_test.cpp:");
  expect_contains(error, ", used by mul (tests/optim/optimizer_test.cpp:");
  expect_contains(error, ", in plain)");
  EXPECT_EQ(model.plain.linear.weight.to_vector(), before);
  freeze(model.plain.shift);
  optimizer.zero_gradients();
  for (int i = 0; i < 3; ++i) step();
}

// Gradients that are looked at, or used by hand.
TEST(Optimizer, LeavesOtherLeavesAlone) {
  manual_seed(1);
  Linear model(2, 3);
  SGD optimizer(model.parameters(), {.learning_rate = 0.1});
  Tensor kept = requires_grad(normal({4, 2})), by_hand = requires_grad(zeros({2})), probe = requires_grad(ones({4, 2}));
  Tensor second = requires_grad(zeros({3}));
  SGD other({{"second", second}}, {.learning_rate = 0.1});
  for (int step = 0; step < 4; ++step) {
    Tensor x = requires_grad(normal({4, 2}));  // an input of this step
    backward(sum(model(x + kept + by_hand) + second));
    EXPECT_TRUE(gradient(x));
    for (int64_t i = 0; i < 2; ++i) by_hand.mutable_data()[i] -= Real(0.1) * gradient(by_hand).data()[i];
    EXPECT_EQ(gradients(sum(model(probe)), {probe}).front().shape, probe.shape);  // leaves nothing in it
    optimizer.step();
    other.step();
    optimizer.zero_gradients();
    other.zero_gradients();
    set_gradient(kept, {});
    set_gradient(by_hand, zeros({2}));
  }
  for (int step = 0; step < 2; ++step) {  // frozen in between
    backward(sum(model(kept)));
    optimizer.step();
    optimizer.zero_gradients();
    freeze(kept);
    freeze(kept, false);
  }
}

TEST(Optimizer, ResultsDoNotDependOnThreads) {
  for (const Kind& kind : kOptimizers) {
    SCOPED_TRACE(kind.name);
    std::vector<std::vector<Real>> expected;
    for (int n : {1, 2, 5}) {
      int before = threads();
      set_threads(n);
      manual_seed(3);
      Parameters p{{"a.weight", requires_grad(normal({150, 200}))}, {"bias", requires_grad(normal({40000}))}};
      auto optimizer = kind.make(p);
      for (uint64_t step = 0; step < 3; ++step) {
        set_random_gradients(p, step);
        optimizer->step();
      }
      set_threads(before);
      if (n == 1) expected = values(p);
      EXPECT_EQ(values(p), expected) << n;
    }
  }
}

// f(w) = Σ (w − target)²
TEST(Optimizer, AQuadraticIsMinimised) {
  struct Run {
    const char* name;
    Make make;
    int steps;
  };
  const Run runs[] = {
      {"SGD", [](Parameters p) { return std::make_unique<SGD>(std::move(p), SGDConfig{.learning_rate = 0.1}); }, 60},
      {"SGD with momentum",
       [](Parameters p) {
         return std::make_unique<SGD>(std::move(p), SGDConfig{.learning_rate = 0.05, .momentum = 0.8});
       },
       120},
      {"AdamW",
       [](Parameters p) {
         return std::make_unique<AdamW>(std::move(p), AdamWConfig{.learning_rate = 0.1, .weight_decay = 0});
       },
       300},
      {"Muon", [](Parameters p) { return std::make_unique<Muon>(std::move(p), MuonConfig{.learning_rate = 0.1}); },
       300},
  };
  for (const Run& run : runs) {
    manual_seed(8);
    Parameters p{{"a.weight", requires_grad(normal({5, 3}))}};
    Tensor target = normal({5, 3});
    auto optimizer = run.make(p);
    const double rate = optimizer->learning_rate();
    double loss = 0, first = 0;
    for (int step = 0; step <= run.steps; ++step) {
      optimizer->set_learning_rate(rate * (1 - double(step) / (run.steps + 1)));  // to let the steps become small
      Tensor difference = p[0].tensor - target;
      Tensor l = sum(difference * difference);
      loss = double(l.item());
      if (step == 0) first = loss;
      backward(l);
      optimizer->step();
      optimizer->zero_gradients();
    }
    EXPECT_GT(first, 1) << run.name;
    EXPECT_LT(loss, 1e-3) << run.name;
  }
}

// ---- against PyTorch ----

// The eight values that PyTorch's optimizer gives to a small vector; `config` reads its options.
template <class Optim, class Config>
void expect_trajectory(const Json& c, Config config, const Shape& shape) {
  const Json& all = golden().at("optimizers");
  Tensor w = requires_grad(clone(reshape(golden_tensor(all.at("start")), shape)));
  Optim optimizer({{"w", w}}, config);
  Tensor gradients = golden_tensor(all.at("gradients")), expected = golden_tensor(c.at("values"));
  for (int64_t step = 0; step < expected.shape[0]; ++step) {
    set_gradient(w, clone(reshape(select(gradients, 0, step), shape)));
    optimizer.step();
    for (int64_t i = 0; i < w.numel(); ++i) {
      EXPECT_NEAR(w.data()[i], expected.at({step, i}), sizeof(Real) == 8 ? 1e-10 : 2e-6) << "step " << step;
    }
  }
}

TEST(OptimizerGolden, IsWhatPyTorchComputes) {
  int checked = 0;
  for (const Json& c : golden().at("optimizers").at("cases")) {
    std::string name = c.at("optimizer");
    const Json& o = c.at("options");
    SCOPED_TRACE(name + " " + o.dump());
    if (name == "AdamW" && !o.contains("amsgrad")) {
      AdamWConfig config{.learning_rate = o.at("lr"),
                         .beta1 = o.at("betas")[0],
                         .beta2 = o.at("betas")[1],
                         .epsilon = o.at("eps"),
                         .weight_decay = o.at("weight_decay")};
      expect_trajectory<AdamW>(c, config, {2, 2});  // a matrix: weight decay
      if (config.weight_decay == 0) expect_trajectory<AdamW>(c, config, {4});
      ++checked;
    }
    if (name == "SGD" && !o.contains("dampening")) {
      SGDConfig config{.learning_rate = o.at("lr"),
                       .momentum = o.value("momentum", 0.0),
                       .nesterov = o.value("nesterov", false),
                       .weight_decay = o.value("weight_decay", 0.0)};
      expect_trajectory<SGD>(c, config, {4});
      ++checked;
    }
  }
  EXPECT_GE(checked, 6);
}

}  // namespace
}  // namespace rapt

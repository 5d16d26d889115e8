#include <gtest/gtest.h>
#include <rapt/core/random.h>
#include <rapt/nn/layers.h>

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "../expect.h"
#include "op_table.h"

// Gradients of gradients: each operation that has them, against differences of first gradients; and what they are for.

namespace rapt {
namespace {

double dot(const Tensor& a, const Tensor& b) {
  std::vector<Real> x = a.to_vector(), y = b.to_vector();
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += double(x[i]) * double(y[i]);
  return sum;
}

double dot(Inputs a, Inputs b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += dot(a[i], b[i]);
  return sum;
}

std::vector<Tensor> moved(Inputs x, Inputs direction, double by) {
  std::vector<Tensor> to;
  for (size_t i = 0; i < x.size(); ++i) to.push_back(x[i].detach() + direction[i] * by);
  return to;
}

std::vector<Tensor> like(Inputs x) {
  std::vector<Tensor> random;
  for (const Tensor& t : x) random.push_back(normal(t.shape));
  return random;
}

// d/dt f(t) at 0
template <class F>
double difference(F f, double h = 1e-3) {
  return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h);
}

void add_names(const std::shared_ptr<Node>& node, std::set<const Node*>& seen, std::set<std::string>& names) {
  if (!node || !seen.insert(node.get()).second) return;
  if (!node->is_leaf()) names.insert(node->name());
  for (const auto& input : node->inputs) add_names(input, seen, names);
}

std::set<std::string> names_below(const Tensor& y) {
  std::set<const Node*> seen;
  std::set<std::string> names;
  add_names(y.node, seen, names);
  return names;
}

struct Gradients {
  Tensor y;
  std::vector<Tensor> of;  // of the inputs, then of the cotangent: y itself
};

// d <y, c> / d (inputs, c), where the last of x is c
Gradients first(const OpRow& row, Inputs x, bool create_graph) {
  std::vector<Tensor> leaves;
  for (const Tensor& t : x) leaves.push_back(requires_grad(t.detach()));
  const Tensor c = leaves.back();
  std::vector<Tensor> inputs(leaves.begin(), leaves.end() - 1);
  manual_seed(5);
  Tensor y = row.function(inputs);
  std::vector<Tensor> g = gradients(y, inputs, c, {.create_graph = create_graph});
  return {y, g};
}

TEST(SecondOrder, OfEveryOperationThatIsListedAndOfNoOther) {
  const std::set<std::string> listed(twice_differentiable().begin(), twice_differentiable().end());
  EXPECT_EQ(listed.size(), twice_differentiable().size());
  std::set<std::string> met;
  for (const OpRow& row : op_table(3)) {
    SCOPED_TRACE(row.name);
    std::vector<Tensor> x = make_inputs(row);
    std::vector<Tensor> leaves;
    for (const Tensor& t : x) leaves.push_back(requires_grad(t));
    manual_seed(5);
    const Tensor y = row.function(leaves);
    std::set<std::string> unlisted = names_below(y);
    std::erase_if(unlisted, [&](const std::string& name) { return listed.contains(name); });
    x.push_back(random_cotangent(y.shape));
    if (!unlisted.empty()) {
      try {
        first(row, x, true);
        ADD_FAILURE() << "the unlisted " << *unlisted.begin() << " was differentiated twice";
      } catch (const Error& error) {
        const std::string text = error.what();
        bool named = false;
        for (const std::string& name : unlisted) named |= text.find("second-order gradients of " + name) != text.npos;
        EXPECT_TRUE(named) << text;
      }
      continue;
    }
    for (const std::string& name : names_below(y)) met.insert(name);
    // the inputs and the cotangent are leaves of the first gradient
    std::vector<Tensor> all;
    for (const Tensor& t : x) all.push_back(requires_grad(t.detach()));
    std::vector<Tensor> inputs(all.begin(), all.end() - 1);
    manual_seed(5);
    const std::vector<Tensor> g = gradients(row.function(inputs), inputs, all.back(), {.create_graph = true});
    const std::vector<Tensor> plain = first(row, x, false).of;
    for (size_t i = 0; i < g.size(); ++i) {
      EXPECT_NEAR(dot(g[i] - plain[i], g[i] - plain[i]), 0, kDouble ? 1e-20 : 1e-8) << "gradient " << i;
    }
    const std::vector<Tensor> r = like(g), u = like(x);
    Tensor s = scalar(0);
    for (size_t i = 0; i < g.size(); ++i) s = s + sum(g[i] * r[i]);
    for (const std::string& name : names_below(s)) {
      EXPECT_TRUE(listed.contains(name)) << "its gradient needs " << name << ", which is not listed";
      met.insert(name);
    }
    if (!kDouble) continue;
    const double analytic = s.node ? dot(gradients(s, all), u) : 0;
    const double numeric = difference([&](double t) { return dot(first(row, moved(x, u, t), false).of, r); });
    EXPECT_NEAR(analytic, numeric, 1e-7 * std::max(1.0, std::abs(numeric)));
  }
  for (const std::string& name : listed) EXPECT_TRUE(met.contains(name)) << name << " is listed but was never met";
}

struct Network : Module {
  Linear in, middle, out;
  Network() : in(child<Linear>("in", 3, 8)), middle(child<Linear>("middle", 8, 8)), out(child<Linear>("out", 8, 1)) {}
  Tensor operator()(const Tensor& x) const { return out(softplus(middle(tanh(in(x))))); }
  std::vector<Tensor> tensors() const {
    std::vector<Tensor> all;
    for (const NamedTensor& p : parameters()) all.push_back(p.tensor);
    return all;
  }
};

// Moves the weights along a direction, and back when it ends.
struct Moved {
  std::vector<Tensor> weights, before;
  Moved(std::vector<Tensor> w, Inputs direction, double by) : weights(std::move(w)) {
    for (size_t i = 0; i < weights.size(); ++i) {
      before.push_back(clone(weights[i]));
      copy_into(weights[i], before[i] + direction[i] * by);
    }
  }
  ~Moved() {
    for (size_t i = 0; i < weights.size(); ++i) copy_into(weights[i], before[i]);
  }
};

TEST(SecondOrder, GradientPenalty) {
  if (!kDouble) GTEST_SKIP() << "differences of a gradient need double precision";
  manual_seed(3);
  Network net;
  const Tensor points = normal({5, 3});
  // (‖∇ₓ f‖ − 1)², as of a critic that is to be 1-Lipschitz (Gulrajani 2017)
  auto penalty = [&] {
    Tensor x = requires_grad(points);
    Tensor g = gradients(sum(net(x)), {x}, {.create_graph = true}).front();
    return mean(pow(sqrt(sum(g * g, {-1})) - 1, 2));
  };
  net.zero_gradients();
  backward(penalty());
  std::vector<Tensor> direction = like(net.tensors()), analytic;
  // the penalty does not depend on the last bias at all
  for (const NamedTensor& p : net.parameters()) {
    EXPECT_EQ(bool(gradient(p.tensor)), p.name != "out.bias") << p.name;
    analytic.push_back(gradient(p.tensor) ? gradient(p.tensor) : zeros(p.tensor.shape));
  }
  const double numeric = difference(
      [&](double t) {
        Moved at(net.tensors(), direction, t);
        return double(penalty().item());
      },
      kDouble ? 2e-4 : 2e-2);
  EXPECT_NEAR(dot(analytic, direction), numeric, (kDouble ? 1e-8 : 2e-2) * std::max(1.0, std::abs(numeric)));
}

TEST(SecondOrder, HessianTimesVector) {
  manual_seed(4);
  Network net;
  const Tensor x = normal({6, 3}), target = normal({6, 1});
  auto loss = [&] { return mean(pow(net(x) - target, 2)); };
  std::vector<Tensor> v = like(net.tensors());
  std::vector<Tensor> g = gradients(loss(), net.tensors(), {.create_graph = true});
  Tensor along = scalar(0);
  for (size_t i = 0; i < g.size(); ++i) along = along + sum(g[i] * v[i]);
  const std::vector<Tensor> product = gradients(along, net.tensors());
  const double h = kDouble ? 1e-4 : 1e-2;
  auto gradient_at = [&](double t) {
    Moved at(net.tensors(), v, t);
    return gradients(loss(), net.tensors());
  };
  const std::vector<Tensor> ahead = gradient_at(h), behind = gradient_at(-h);
  for (size_t i = 0; i < product.size(); ++i) {
    const std::vector<Real> a = product[i].to_vector(), b = ((ahead[i] - behind[i]) / (2 * h)).to_vector();
    for (size_t j = 0; j < a.size(); ++j) {
      EXPECT_NEAR(a[j], b[j], (kDouble ? 1e-6 : 3e-2) * std::max<double>(1, std::abs(b[j])));
    }
  }
  for (const NamedTensor& p : net.parameters()) EXPECT_FALSE(gradient(p.tensor)) << "nothing is left in " << p.name;
}

TEST(SecondOrder, AsOftenAsOneLikes) {
  Tensor x = requires_grad(from_values({1}, {0.7}));
  Tensor y = pow(x, 5.0);
  double expected = std::pow(0.7, 5);
  for (int n = 0; n < 4; ++n) {
    y = gradients(y, {x}, {.create_graph = true}).front();
    expected *= (5 - n) / 0.7;
    EXPECT_NEAR(y.item(), expected, 1e-4 * expected);
  }
}

TEST(SecondOrder, BackwardLeavesGradientsThatCanBeDifferentiated) {
  Tensor x = requires_grad(from_values({1}, {3}));
  backward(x * x * x, {.create_graph = true});
  Tensor g = gradient(x);
  EXPECT_EQ(g.item(), 27);
  set_gradient(x, {});
  backward(g);
  EXPECT_EQ(gradient(x).item(), 18);
}

TEST(SecondOrder, TheGraphIsGoneWithItsResults) {
  Tensor x = requires_grad(from_values({2}, {1, 2}));
  {
    Tensor y = sum(exp(x) * x);
    Tensor g = gradients(y, {x}, {.create_graph = true}).front();
    EXPECT_GT(x.node.use_count(), 1);
  }
  EXPECT_EQ(x.node.use_count(), 1);
}

TEST(SecondOrder, RefusedNamesOperationLineAndWhatToRead) {
  Tensor x = requires_grad(from_values({1}, {1}));
  const int line = __LINE__ + 1;
  Tensor y = gelu(x);
  try {
    backward(sum(y), {.create_graph = true});
    FAIL() << "gelu has no second gradient";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("second-order gradients of gelu are not available"), text.npos) << text;
    EXPECT_NE(text.find(fmt::format("second_order_test.cpp:{}", line)), text.npos) << text;
    EXPECT_NE(text.find("twice_differentiable()"), text.npos) << text;
  }
}

TEST(Gradients, OfResultsOnTheWayAndOfWhatDoesNotMatter) {
  Tensor a = requires_grad(from_values({2}, {1, 2})), b = requires_grad(from_values({2}, {3, 4}));
  Tensor unused = requires_grad(ones({3}));
  Tensor middle = a * b;
  std::vector<Tensor> g = gradients(sum(middle * middle), {middle, b, unused});
  EXPECT_EQ(g[0].to_vector(), (std::vector<Real>{6, 16}));
  EXPECT_EQ(g[1].to_vector(), (std::vector<Real>{6, 32}));
  EXPECT_EQ(g[2].to_vector(), (std::vector<Real>{0, 0, 0}));
  for (const Tensor& leaf : {a, b, unused}) EXPECT_FALSE(gradient(leaf));
  EXPECT_THROW(gradients(sum(a * b), {ones({2})}), Error);
  EXPECT_THROW(gradients(a * b, {a}), Error);  // no scalar
}

// What is older than everything wanted is not gone through.
TEST(Gradients, StopWhereNothingIsWanted) {
  Tensor x = requires_grad(ones({2}));
  Tensor early = x * 3;
  Tensor late = early * early;
  bool reached = false;
  add_hook(early, [&](const Tensor& g) {
    reached = true;
    return g;
  });
  EXPECT_EQ(gradients(sum(late * 2), {late}).front().to_vector(), (std::vector<Real>{2, 2}));
  EXPECT_FALSE(reached);
}

}  // namespace
}  // namespace rapt

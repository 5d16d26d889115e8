#include <gtest/gtest.h>
#include <rapt/autograd/ops.h>
#include <rapt/core/parallel.h>
#include <rapt/core/random.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "../expect.h"
#include "golden.h"

namespace rapt {
namespace {

Tokens random_targets(const Shape& shape, int64_t V, uint64_t seed = 9) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < shape.numel(); ++i) ids.push_back(int32_t(Random{seed, 0}.below(V, uint64_t(i))));
  return {shape, ids};
}

// Σ over rows / rows that count of −Σ q ln p, and its gradient in the logits, in double.
struct Reference {
  double loss = 0;
  std::vector<double> gradient;
};
Reference reference(const std::vector<double>& logits, const Tokens& targets, int64_t V, CrossEntropyOptions options) {
  Reference result;
  result.gradient.assign(logits.size(), 0);
  double count = 0;
  for (int32_t t : targets.ids) count += t != options.ignore_index;
  for (size_t r = 0; r < targets.ids.size(); ++r) {
    if (targets.ids[r] == options.ignore_index) continue;
    const double* x = logits.data() + int64_t(r) * V;
    double largest = -INFINITY, sum = 0;
    for (int64_t i = 0; i < V; ++i) largest = std::max(largest, x[i]);
    for (int64_t i = 0; i < V; ++i) sum += std::exp(x[i] - largest);
    for (int64_t i = 0; i < V; ++i) {
      double log_p = x[i] - largest - std::log(sum);
      double q = options.label_smoothing / double(V) + (i == targets.ids[r] ? 1 - options.label_smoothing : 0);
      result.loss -= q * log_p / count;
      result.gradient[r * size_t(V) + size_t(i)] = (std::exp(log_p) - q) / count;
    }
  }
  return result;
}

std::vector<double> doubles(const Tensor& x) {
  std::vector<Real> values = x.to_vector();
  return {values.begin(), values.end()};
}

void expect_close_to_largest(const Tensor& actual, const std::vector<double>& expected, double tolerance,
                             const char* what) {
  std::vector<Real> values = actual.to_vector();
  ASSERT_EQ(values.size(), expected.size()) << what;
  double largest = 0;
  for (double v : expected) largest = std::max(largest, std::fabs(v));
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_NEAR(values[i], expected[i], tolerance * largest) << what << ", element " << i;
  }
}

struct LossCase {
  int64_t rows, V;
  CrossEntropyOptions options;
};
const LossCase kCases[] = {{1, 1, {}},
                           {5, 3, {}},
                           {7, 65, {.label_smoothing = 0.2}},
                           {40, 300, {.ignore_index = 7}},
                           {300, 130, {.ignore_index = 0, .label_smoothing = 0.1}},
                           {9, 20000, {.label_smoothing = 0.1}}};

TEST(CrossEntropy, IsItsFormula) {
  for (const LossCase& c : kCases) {
    SCOPED_TRACE(fmt::format("{} rows, {} classes", c.rows, c.V));
    manual_seed(2);
    Tensor x = requires_grad(normal({c.rows, c.V}, 0, 4));
    Tokens targets = random_targets({c.rows}, c.V);
    Reference expected = reference(doubles(x), targets, c.V, c.options);
    Tensor loss = cross_entropy(x, targets, c.options);
    EXPECT_EQ(loss.shape, Shape{});
    EXPECT_NEAR(loss.item(), expected.loss, (kDouble ? 1e-12 : 2e-6) * std::max(1.0, expected.loss));
    backward(loss * 3);
    for (double& g : expected.gradient) g *= 3;
    expect_close_to_largest(gradient(x), expected.gradient, kDouble ? 1e-12 : 2e-6, "gradient");
  }
}

TEST(LinearCrossEntropy, IsCrossEntropyOfTheProduct) {
  for (const LossCase& c : kCases) {
    SCOPED_TRACE(fmt::format("{} rows, {} classes", c.rows, c.V));
    const int64_t C = 6;
    manual_seed(2);
    Tensor x = requires_grad(normal({c.rows, C})), w = requires_grad(normal({c.V, C}, 0, 2));
    std::vector<double> xs = doubles(x), ws = doubles(w), logits(size_t(c.rows * c.V), 0);
    for (int64_t r = 0; r < c.rows; ++r) {
      for (int64_t v = 0; v < c.V; ++v) {
        for (int64_t i = 0; i < C; ++i) logits[size_t(r * c.V + v)] += xs[size_t(r * C + i)] * ws[size_t(v * C + i)];
      }
    }
    Tokens targets = random_targets({c.rows}, c.V);
    Reference expected = reference(logits, targets, c.V, c.options);
    std::vector<double> dx(xs.size(), 0), dw(ws.size(), 0);
    for (int64_t r = 0; r < c.rows; ++r) {
      for (int64_t v = 0; v < c.V; ++v) {
        double d = 3 * expected.gradient[size_t(r * c.V + v)];
        for (int64_t i = 0; i < C; ++i) {
          dx[size_t(r * C + i)] += d * ws[size_t(v * C + i)];
          dw[size_t(v * C + i)] += d * xs[size_t(r * C + i)];
        }
      }
    }
    Tensor loss = linear_cross_entropy(x, w, targets, c.options);
    EXPECT_NEAR(loss.item(), expected.loss, (kDouble ? 1e-12 : 3e-6) * std::max(1.0, expected.loss));
    backward(loss * 3);
    expect_close_to_largest(gradient(x), dx, kDouble ? 1e-11 : 1e-5, "dx");
    expect_close_to_largest(gradient(w), dw, kDouble ? 1e-11 : 1e-5, "dweight");

    NoGrad no_grad;
    EXPECT_EQ(linear_cross_entropy(x, w, targets, c.options).item(), loss.item());
  }
}

// More rows than one chunk of logits; the chunks' losses and gradients must add up.
TEST(LinearCrossEntropy, ManyChunks) {
  const int64_t rows = 150, C = 5, V = 20000;
  manual_seed(4);
  Tensor x = requires_grad(normal({3, 50, C})), w = requires_grad(normal({V, C}));
  Tokens targets = random_targets({3, 50}, V);
  for (int64_t i = 60; i < 75; ++i) targets.ids[size_t(i)] = -100;
  Tensor fused = linear_cross_entropy(x, w, targets);
  backward(fused);
  std::vector<double> dx = doubles(gradient(x)), dw = doubles(gradient(w));
  set_gradient(x, {});
  set_gradient(w, {});
  Tensor apart = cross_entropy(matmul(x, transpose(w, 0, 1)), targets);
  backward(apart);
  EXPECT_NEAR(fused.item(), apart.item(), kDouble ? 1e-12 : 1e-5);
  expect_close_to_largest(gradient(x), dx, kDouble ? 1e-12 : 1e-5, "dx");
  expect_close_to_largest(gradient(w), dw, kDouble ? 1e-12 : 1e-5, "dweight");
  for (int64_t i = 0; i < rows; ++i) EXPECT_EQ(gradient(x).to_vector()[size_t(i * C)] == 0, i >= 60 && i < 75) << i;
}

TEST(LinearCrossEntropy, HoldsNoLogits) {
  const int64_t rows = 4096, C = 4, V = 3000;
  Tensor x = requires_grad(normal({rows, C})), w = requires_grad(normal({V, C}));
  reset_peak_memory();
  int64_t before = memory_stats().in_use;
  backward(linear_cross_entropy(x, w, random_targets({rows}, V)));
  EXPECT_LT(memory_stats().peak - before, int64_t(sizeof(Real)) * rows * V / 4);
}

TEST(CrossEntropy, NoTargetsCostNothing) {
  Tensor x = requires_grad(normal({3, 4})), w = requires_grad(normal({5, 4}));
  Tokens none{{3}, {-100, -100, -100}};
  Tensor loss = cross_entropy(x, none) + linear_cross_entropy(x, w, none);
  EXPECT_EQ(loss.item(), 0);
  backward(loss);
  EXPECT_EQ(gradient(x).to_vector(), std::vector<Real>(12, 0));
  EXPECT_EQ(gradient(w).to_vector(), std::vector<Real>(20, 0));
  EXPECT_EQ(cross_entropy(zeros({0, 4}), {{0}, {}}).item(), 0);
  EXPECT_EQ(linear_cross_entropy(zeros({0, 4}), w, {{0}, {}}).item(), 0);
}

TEST(CrossEntropy, ImpossibleClassesCostNothingUnlessAskedFor) {
  Tensor values = zeros({1, 3});
  values.set({0, 1}, -kInf);
  Tensor x = requires_grad(values);
  Tensor loss = cross_entropy(x, {{1}, {0}});
  EXPECT_NEAR(loss.item(), std::log(2.0), 1e-6);
  backward(loss);
  EXPECT_EQ(gradient(x).to_vector(), std::vector<Real>({Real(-0.5), 0, Real(0.5)}));
  EXPECT_EQ(cross_entropy(x, {{1}, {1}}).item(), kInf);
}

TEST(CrossEntropy, SaysWhatDoesNotFit) {
  auto message = [](auto f) -> std::string {
    try {
      f();
      return "nothing thrown";
    } catch (const Error& error) {
      return error.what();
    }
  };
  Tensor x = zeros({2, 3, 4});
  EXPECT_EQ(message([&] {
              cross_entropy(x, {{2, 3}, {0, 1, 2, 3, 4, 0}});
            }),
            "cross_entropy: target 4 at position (1, 1) of (2, 3) is outside [0, 4)");
  EXPECT_EQ(message([&] {
              linear_cross_entropy(x, zeros({9, 4}), {{2, 3}, {0, 1, -1, 3, 4, 0}});
            }),
            "linear_cross_entropy: target -1 at position (0, 2) of (2, 3) is outside [0, 9)");
  EXPECT_EQ(message([&] {
              cross_entropy(x, {{6}, {0, 0, 0, 0, 0, 0}});
            }),
            "cross_entropy: targets are (6,), but (2, 3, 4) needs (2, 3)");
  EXPECT_THROW(linear_cross_entropy(x, zeros({9, 5}), {{2, 3}, {0, 0, 0, 0, 0, 0}}), Error);
  EXPECT_THROW(cross_entropy(x, {{2, 3}, {0, 0, 0, 0, 0, 0}}, {.label_smoothing = 1}), Error);
  EXPECT_THROW(cross_entropy(scalar(1), {{}, {0}}), Error);
}

TEST(LossGolden, IsWhatPyTorchComputes) {
  int checked = 0;
  for (const Json& c : golden().at("operations")) {
    const Json& options = c.at("options");
    if (c.at("operation") != "cross_entropy" || options.contains("reduction")) continue;
    SCOPED_TRACE(c.at("case").get<std::string>());
    ++checked;
    CrossEntropyOptions o{.ignore_index = options.value("ignore_index", -100),
                          .label_smoothing = options.value("label_smoothing", 0.0)};
    Tokens targets = golden_tokens(c.at("inputs").at("targets"));
    Tensor x = requires_grad(golden_tensor(c.at("inputs").at("logits"))), dy = golden_tensor(c.at("cotangent"));
    // through cross_entropy, and through the fused operation: logits · 1ᵀ
    for (bool fused : {false, true}) {
      set_gradient(x, {});
      Tensor y = fused ? linear_cross_entropy(x, eye(x.shape[-1]), targets, o) : cross_entropy(x, targets, o);
      // PyTorch's label smoothing spreads over all classes too, so its options are ours
      expect_golden(reshape(y, c.at("output").at("shape").empty() ? Shape{} : Shape{1}), c.at("output"));
      backward(y, reshape(dy, {}));
      expect_golden(gradient(x), c.at("gradients").at("logits"));
    }
  }
  EXPECT_GE(checked, 5);
}

}  // namespace
}  // namespace rapt

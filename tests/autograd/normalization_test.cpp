#include <gtest/gtest.h>
#include <rapt/autograd/ops.h>
#include <rapt/core/random.h>
#include <rapt/core/view.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "../expect.h"
#include "golden.h"

namespace rapt {
namespace {

constexpr double kNormTolerance = sizeof(Real) == 8 ? 1e-11 : 5e-6;

void expect_close(const Tensor& actual, const std::vector<double>& expected, double tolerance,
                  const std::string& what) {
  std::vector<Real> values = actual.to_vector();
  ASSERT_EQ(values.size(), expected.size()) << what;
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_NEAR(values[i], expected[i], tolerance * std::max(1.0, std::fabs(expected[i]))) << what << ", element " << i;
  }
}

// Mean and 1 / √(variance + epsilon) of a row, or 0 and 1 / √(mean square + epsilon).
struct Statistics {
  double mean, rstd;
};
Statistics statistics(const Real* x, int64_t C, double epsilon, bool centred) {
  double mean = 0, square = 0;
  for (int64_t i = 0; i < C && centred; ++i) mean += double(x[i]) / double(C);
  for (int64_t i = 0; i < C; ++i) square += (double(x[i]) - mean) * (double(x[i]) - mean) / double(C);
  return {mean, 1 / std::sqrt(square + epsilon)};
}

// layer_norm and rms_norm and their gradients, term by term.
void check_norm(int64_t rows, int64_t C, bool centred) {
  SCOPED_TRACE(fmt::format("{} rows of {}", rows, C));
  const double epsilon = 0.03;
  manual_seed(uint64_t(rows));
  Tensor x = requires_grad(normal({rows, C}, 1, 2)), weight = requires_grad(normal({C}, 1));
  Tensor bias = requires_grad(normal({C})), dy = normal({rows, C});
  Tensor y = centred ? layer_norm(x, weight, bias, epsilon) : rms_norm(x, weight, epsilon);
  backward(y, dy);
  std::vector<double> ys(size_t(rows * C)), dx(ys.size()), dweight(size_t(C), 0), dbias(size_t(C), 0);
  for (int64_t r = 0; r < rows; ++r) {
    const Real *xr = x.data() + r * C, *dyr = dy.data() + r * C;
    auto [mean, rstd] = statistics(xr, C, epsilon, centred);
    for (int64_t i = 0; i < C; ++i) {
      double n = (double(xr[i]) - mean) * rstd;
      ys[size_t(r * C + i)] = n * double(weight.data()[i]) + (centred ? double(bias.data()[i]) : 0);
      dweight[size_t(i)] += double(dyr[i]) * n;
      dbias[size_t(i)] += double(dyr[i]);
      // d n_j / d x_i = rstd · (δ_ij − 1/C − n_i n_j / C); without centring there is no 1/C
      double sum = 0;
      for (int64_t j = 0; j < C; ++j) {
        double nj = (double(xr[j]) - mean) * rstd;
        double jacobian = rstd * (double(i == j) - (centred ? 1 / double(C) : 0) - n * nj / double(C));
        sum += double(dyr[j]) * double(weight.data()[j]) * jacobian;
      }
      dx[size_t(r * C + i)] = sum;
    }
  }
  expect_close(y, ys, kNormTolerance, "y");
  expect_close(gradient(x), dx, kNormTolerance, "dx");
  expect_close(gradient(weight), dweight, 10 * kNormTolerance, "dweight");
  if (centred) expect_close(gradient(bias), dbias, 10 * kNormTolerance, "dbias");
}

TEST(LayerNorm, IsItsFormula) {
  for (int64_t C : {2, 7, 64, 65, 200}) check_norm(5, C, true);
  check_norm(700, 70, true);  // several groups of rows
}

TEST(RmsNorm, IsItsFormula) {
  for (int64_t C : {1, 7, 64, 65, 200}) check_norm(5, C, false);
  check_norm(700, 70, false);
}

TEST(LayerNorm, WeightAndBiasMayBeMissing) {
  Tensor x = requires_grad(normal({4, 10})), w = ones({10}), b = zeros({10}), dy = normal({4, 10});
  Tensor all = layer_norm(x, w, b);
  backward(all, dy);
  std::vector<Real> dx = gradient(x).to_vector();
  for (auto [weight, bias] : {std::pair{Tensor(), Tensor()}, {w, Tensor()}, {Tensor(), b}}) {
    set_gradient(x, {});
    Tensor y = layer_norm(x, weight, bias);
    EXPECT_EQ(y.to_vector(), all.to_vector());
    backward(y, dy);
    EXPECT_EQ(gradient(x).to_vector(), dx);
  }
  EXPECT_EQ(rms_norm(x, {}).to_vector(), rms_norm(x, w).to_vector());
}

TEST(LayerNorm, AConstantRowHasNoDirection) {
  Tensor x = requires_grad(full({2, 300}, 3)), bias = full({300}, Real(0.5));
  Tensor y = layer_norm(x, ones({300}), bias);
  EXPECT_EQ(y.to_vector(), std::vector<Real>(600, Real(0.5)));
  backward(y, ones(y.shape));
  for (Real g : gradient(x).to_vector()) EXPECT_NEAR(g, 0, 1e-3);  // a sum that cancels, times 1 / √epsilon
}

TEST(LayerNorm, ALargeMeanLeavesTheVariance) {
  Tensor x = empty({1, 64});
  for (int64_t i = 0; i < 64; ++i) x.set({0, i}, Real(4096 + (i % 2 ? 1 : -1)));
  Tensor y = layer_norm(x, {}, {});
  for (int64_t i = 0; i < 64; ++i) EXPECT_NEAR(y.at({0, i}), i % 2 ? 1 : -1, 1e-5);
}

TEST(LayerNorm, SaysWhatDoesNotFit) {
  try {
    layer_norm(zeros({2, 3}), ones({4}), {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "layer_norm: the weight is (4,), but the last dimension of x is 3");
  }
  EXPECT_THROW(layer_norm(scalar(1), {}, {}), Error);
  EXPECT_THROW(rms_norm(zeros({2, 3}), ones({2, 3})), Error);
}

// softmax and log_softmax along `dim`, and their gradients from the Jacobian.
void check_softmax(const Shape& shape, int dim, bool log) {
  SCOPED_TRACE(fmt::format("{}{} along {}", log ? "log " : "", shape, dim));
  manual_seed(3);
  Tensor x = requires_grad(normal(shape, 0, 3)), dy = normal(shape);
  Tensor y = log ? log_softmax(x, dim) : softmax(x, dim);
  backward(y, dy);
  EXPECT_EQ(y.shape, shape);
  int64_t n = shape[dim], inner = 1;
  for (int d = shape.axis(dim) + 1; d < shape.rank; ++d) inner *= shape[d];
  std::vector<double> ys(size_t(x.numel())), dx(ys.size());
  for (int64_t first = 0; first < x.numel(); ++first) {
    if (first / inner % n != 0) continue;  // the elements of a row are first + i · inner
    auto at = [=](const Tensor& t, int64_t i) { return double(t.data()[first + i * inner]); };
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += std::exp(at(x, i));
    for (int64_t i = 0; i < n; ++i) {
      double p = std::exp(at(x, i)) / sum, d = 0;
      for (int64_t j = 0; j < n; ++j) {
        double q = std::exp(at(x, j)) / sum;  // dp_j / dx_i = q (δ_ij − p); d ln p_j / dx_i = δ_ij − p
        d += at(dy, j) * (double(i == j) - p) * (log ? 1 : q);
      }
      ys[size_t(first + i * inner)] = log ? std::log(p) : p;
      dx[size_t(first + i * inner)] = d;
    }
  }
  expect_close(y, ys, kNormTolerance, "y");
  expect_close(gradient(x), dx, 2 * kNormTolerance, "dx");
}

TEST(Softmax, IsItsFormula) {
  for (bool log : {false, true}) {
    for (int64_t n : {1, 5, 64, 65, 150}) check_softmax({3, n}, -1, log);
    check_softmax({6, 4}, 0, log);
    check_softmax({2, 5, 3}, 1, log);
    check_softmax({3, 4, 150}, 1, log);  // more columns than a block
    check_softmax({2, 3, 5, 70}, -3, log);
    check_softmax({900, 33}, 1, log);
  }
}

TEST(Softmax, LargeNumbersDoNotOverflow) {
  for (int dim : {0, 1}) {
    Shape shape = dim ? Shape{1, 3} : Shape{3, 1};
    Tensor x = from_values(shape, {1e30, 1e30, -1e30});
    EXPECT_EQ(softmax(x, dim).to_vector(), std::vector<Real>({0.5, 0.5, 0}));
    EXPECT_NEAR(log_softmax(x, dim).to_vector()[0], -std::log(2.0), 1e-6);
  }
}

// Row 0 is all −∞, row 1 has one −∞; along the last dimension and along another.
TEST(Softmax, ARowOfMinusInfinityGivesZero) {
  for (int dim : {1, 0}) {
    auto lay = [dim](const Tensor& t) { return dim ? t : contiguous(view::transpose(t, 0, 1)); };
    Tensor values = from_values({2, 3}, {-1, -1, -1, 0, 0, -1});
    for (int64_t i = 0; i < 3; ++i) values.set({0, i}, -kInf);
    values.set({1, 2}, -kInf);
    for (bool log : {false, true}) {
      Tensor x = requires_grad(lay(values));
      Tensor y = log ? log_softmax(x, dim) : softmax(x, dim);
      Real masked = log ? -kInf : 0, half = log ? -std::log(Real(2)) : Real(0.5);
      EXPECT_EQ(lay(y.detach()).to_vector(), std::vector<Real>({masked, masked, masked, half, half, masked}));
      backward(y, lay(from_values({2, 3}, {1, 2, 3, 1, -1, 5})));
      std::vector<Real> dx = lay(gradient(x)).to_vector();
      for (size_t i : {0, 1, 2, 5}) EXPECT_EQ(dx[i], 0) << i;
      EXPECT_NEAR(dx[3], log ? 1 - 2.5 : 0.5, 1e-6);
      EXPECT_NEAR(dx[4], log ? -1 - 2.5 : -0.5, 1e-6);
    }
  }
}

TEST(Softmax, NanStaysInItsRow) {
  Tensor x = zeros({2, 4});
  x.set({0, 1}, std::numeric_limits<Real>::quiet_NaN());
  std::vector<Real> y = softmax(x).to_vector();
  for (size_t i = 0; i < 4; ++i) EXPECT_TRUE(std::isnan(y[i]));
  for (size_t i = 4; i < 8; ++i) EXPECT_EQ(y[i], Real(0.25));
}

TEST(Softmax, RefusesADimensionThatIsNotThere) {
  EXPECT_THROW(softmax(zeros({2, 3}), 2), Error);
  EXPECT_THROW(log_softmax(scalar(1)), Error);
}

TEST(NormalizationGolden, IsWhatPyTorchComputes) {
  int checked = 0;
  for (const Json& c : golden().at("operations")) {
    if (!c.at("inputs").contains("x")) continue;
    std::string operation = c.at("operation"), special = c.at("case");
    const Json &options = c.at("options"), &inputs = c.at("inputs");
    std::vector<std::string> names{"x"};
    std::vector<Tensor> in{requires_grad(golden_tensor(inputs.at("x")))};
    for (const char* name : {"weight", "bias"}) {
      if (!inputs.contains(name)) continue;
      names.push_back(name);
      in.push_back(requires_grad(golden_tensor(inputs.at(name))));
    }
    Tensor y;
    if (operation == "layer_norm") y = layer_norm(in[0], in[1], in[2], options.at("epsilon"));
    if (operation == "rms_norm") y = rms_norm(in[0], in[1], options.at("epsilon"));
    if (operation == "softmax") y = softmax(in[0], options.at("axis"));
    if (operation == "log_softmax") y = log_softmax(in[0], options.at("axis"));
    if (!y) continue;
    ++checked;
    SCOPED_TRACE(operation + ", " + special);
    // x is rounded to float: numbers near 1000 to 3e−5, and a row without variance multiplies errors by 1 / √epsilon
    bool hard = special == "large mean" || special == "numbers near 1000" || special == "a constant row";
    double tolerance = sizeof(Real) == 8 ? 2e-9 : hard ? 2e-3 : 3e-6;
    expect_golden(y, c.at("output"), tolerance);
    backward(y, golden_tensor(c.at("cotangent")));
    for (size_t i = 0; i < in.size(); ++i) {
      SCOPED_TRACE("gradient of " + names[i]);
      expect_golden(gradient(in[i]), c.at("gradients").at(names[i]), tolerance);
    }
  }
  EXPECT_GE(checked, 14);
}

}  // namespace
}  // namespace rapt

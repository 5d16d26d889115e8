#include <gtest/gtest.h>
#include <rapt/core/random.h>
#include <rapt/core/view.h>
#include <rapt/optim/muon.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace rapt {
namespace {

// A (rows, columns) in double, row by row.
struct Matrix {
  int64_t rows, columns;
  std::vector<double> values;
  double& at(int64_t i, int64_t j) { return values[size_t(i * columns + j)]; }
  double at(int64_t i, int64_t j) const { return values[size_t(i * columns + j)]; }
};

Matrix matrix(const Tensor& x) {
  std::vector<Real> v = x.to_vector();
  return {x.shape[0], x.shape[1], {v.begin(), v.end()}};
}
Matrix transpose(const Matrix& a) {
  Matrix b{a.columns, a.rows, std::vector<double>(a.values.size())};
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < a.columns; ++j) b.at(j, i) = a.at(i, j);
  }
  return b;
}
Matrix product(const Matrix& a, const Matrix& b) {
  Matrix c{a.rows, b.columns, std::vector<double>(size_t(a.rows * b.columns), 0)};
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < b.columns; ++j) {
      for (int64_t k = 0; k < a.columns; ++k) c.at(i, j) += a.at(i, k) * b.at(k, j);
    }
  }
  return c;
}
Matrix combination(double s, const Matrix& a, double t, const Matrix& b) {
  Matrix c = a;
  for (size_t i = 0; i < c.values.size(); ++i) c.values[i] = s * a.values[i] + t * b.values[i];
  return c;
}

// The iteration as it is written in the announcement of Muon, always on the wide matrix.
Matrix naive_orthogonalize(Matrix x) {
  bool tall = x.rows > x.columns;
  if (tall) x = transpose(x);
  double norm = 0;
  for (double v : x.values) norm += v * v;
  for (double& v : x.values) v /= std::sqrt(norm) + 1e-7;
  for (int i = 0; i < 5; ++i) {
    Matrix gram = product(x, transpose(x));
    x = combination(3.4445, x, 1, product(combination(-4.7750, gram, 2.0315, product(gram, gram)), x));
  }
  return tall ? transpose(x) : x;
}

// By one-sided Jacobi rotations: columns are turned until they are orthogonal; their lengths are the singular values.
std::vector<double> singular_values(Matrix a) {
  if (a.rows < a.columns) a = transpose(a);
  for (int sweep = 0; sweep < 30; ++sweep) {
    for (int64_t p = 0; p < a.columns; ++p) {
      for (int64_t q = p + 1; q < a.columns; ++q) {
        double pp = 0, qq = 0, pq = 0;
        for (int64_t i = 0; i < a.rows; ++i) {
          pp += a.at(i, p) * a.at(i, p), qq += a.at(i, q) * a.at(i, q), pq += a.at(i, p) * a.at(i, q);
        }
        if (std::fabs(pq) < 1e-15) continue;
        double angle = 0.5 * std::atan2(2 * pq, pp - qq), c = std::cos(angle), s = std::sin(angle);
        for (int64_t i = 0; i < a.rows; ++i) {
          double u = a.at(i, p), v = a.at(i, q);
          a.at(i, p) = c * u + s * v;
          a.at(i, q) = c * v - s * u;
        }
      }
    }
  }
  std::vector<double> lengths;
  for (int64_t j = 0; j < a.columns; ++j) {
    double square = 0;
    for (int64_t i = 0; i < a.rows; ++i) square += a.at(i, j) * a.at(i, j);
    lengths.push_back(std::sqrt(square));
  }
  std::sort(lengths.begin(), lengths.end());
  return lengths;
}

TEST(Muon, NewtonSchulzBringsSingularValuesNearOne) {
  manual_seed(5);
  for (const Shape& shape : {Shape{24, 24}, Shape{12, 40}, Shape{40, 12}, Shape{1, 9}, Shape{9, 1}}) {
    Tensor x = normal(shape, 0, Real(3e-4));
    if (shape[0] == 24) {  // one singular value in fifty of the others
      for (int64_t i = 0; i < 24; ++i) x.set({i, 0}, x.at({i, 1}) + Real(0.1) * x.at({i, 0}));
    }
    Tensor y = orthogonalize(x);
    std::vector<double> sigma = singular_values(matrix(y));
    EXPECT_GT(sigma.front(), 0.65) << fmt::format("{}", shape);
    EXPECT_LT(sigma.back(), 1.25) << fmt::format("{}", shape);
    EXPECT_GT(singular_values(matrix(x)).back() / singular_values(matrix(x)).front(), shape.numel() > 9 ? 1.5 : 0.9);
    // the singular vectors stay: xᵀ y is symmetric with a positive trace
    Matrix m = product(transpose(matrix(x)), matrix(y));
    double trace = 0, largest = 0;
    for (int64_t i = 0; i < m.rows; ++i) {
      trace += m.at(i, i);
      for (int64_t j = 0; j < m.columns; ++j) largest = std::max(largest, std::fabs(m.at(i, j)));
    }
    EXPECT_GT(trace, 0);
    for (int64_t i = 0; i < m.rows; ++i) {
      for (int64_t j = 0; j < i; ++j) EXPECT_NEAR(m.at(i, j), m.at(j, i), 1e-4 * largest);
    }
  }
}

TEST(Muon, NewtonSchulzIsItsFormula) {
  manual_seed(5);
  for (const Shape& shape : {Shape{7, 7}, Shape{5, 17}, Shape{33, 6}}) {
    Tensor x = normal(shape);
    std::vector<Real> y = orthogonalize(x).to_vector();
    Matrix expected = naive_orthogonalize(matrix(x));
    for (size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], expected.values[i], sizeof(Real) == 8 ? 1e-11 : 1e-4);
    Tensor strided = view::transpose(clone(view::transpose(x, 0, 1)), 0, 1);
    EXPECT_EQ(orthogonalize(strided).to_vector(), y);
  }
  EXPECT_EQ(orthogonalize(zeros({3, 4})).to_vector(), std::vector<Real>(12, 0));
  EXPECT_EQ(orthogonalize(zeros({0, 4})).numel(), 0);
  EXPECT_THROW(orthogonalize(zeros({3})), Error);
}

TEST(Muon, IsItsFormula) {
  manual_seed(2);
  for (bool nesterov : {true, false}) {
    for (const Shape& shape : {Shape{4, 10}, Shape{10, 4}}) {
      MuonConfig c{.learning_rate = 0.1, .momentum = 0.8, .nesterov = nesterov, .weight_decay = 0.5};
      Tensor w = requires_grad(normal(shape));
      Matrix expected = matrix(w), mean{shape[0], shape[1], std::vector<double>(size_t(w.numel()), 0)};
      Muon optimizer({{"up.weight", w}}, c);
      for (int step = 0; step < 3; ++step) {
        Tensor g = normal(shape);
        set_gradient(w, g);
        optimizer.step();
        mean = combination(c.momentum, mean, 1 - c.momentum, matrix(g));
        Matrix u = nesterov ? combination(1 - c.momentum, matrix(g), c.momentum, mean) : mean;
        double scale = shape[0] > shape[1] ? std::sqrt(2.5) : 1;
        expected = combination(1 - 0.1 * 0.5, expected, -0.1 * scale, naive_orthogonalize(u));
      }
      for (int64_t i = 0; i < w.numel(); ++i) {
        EXPECT_NEAR(w.data()[i], expected.values[size_t(i)], sizeof(Real) == 8 ? 1e-11 : 1e-4);
      }
    }
  }
}

TEST(Muon, LeavesTheRestToAdamW) {
  auto make = [] {
    manual_seed(1);
    return std::vector<NamedTensor>{{"token_embedding.weight", requires_grad(normal({9, 4}))},
                                    {"blocks.0.up.bias", requires_grad(normal({4}))},
                                    {"head.weight", requires_grad(normal({9, 4}))},
                                    {"blocks.0.up.weight", requires_grad(normal({8, 4}))}};
  };
  std::vector<NamedTensor> a = make(), b = make();
  AdamWConfig adamw{.learning_rate = 0.01, .weight_decay = 0.1};
  Muon muon(a, {.learning_rate = 0.2, .adamw = adamw});
  AdamW alone(b, adamw);
  muon.set_learning_rate(0.1);  // half of what it was
  alone.set_learning_rate(0.005);
  for (const auto& p : {a, b}) {
    manual_seed(2);
    for (const NamedTensor& t : p) set_gradient(t.tensor, normal(t.tensor.shape));
  }
  muon.step();
  alone.step();
  for (size_t i = 0; i < a.size(); ++i) {
    std::vector<Real> x = a[i].tensor.to_vector(), y = b[i].tensor.to_vector();
    double difference = 0;
    for (size_t j = 0; j < x.size(); ++j) difference = std::max(difference, std::fabs(double(x[j] - y[j])));
    if (i == 3) {
      EXPECT_GT(difference, 1e-2);
    } else {
      EXPECT_LT(difference, 1e-8) << a[i].name;
    }
  }
}

TEST(Muon, WhichAreHidden) {
  Tensor m = zeros({2, 3});
  for (const char* name : {"weight", "blocks.0.attention.qkv.weight", "heads.weight", "blocks.1.mlp.up.weight"}) {
    EXPECT_TRUE(is_hidden_matrix({name, m})) << name;
  }
  for (const char* name : {"token_embedding.weight", "embedding.weight", "head.weight", "lm_head.weight",
                           "blocks.0.attention.bias_table", "head.0.weight"}) {
    EXPECT_FALSE(is_hidden_matrix({name, m})) << name;
  }
  EXPECT_FALSE(is_hidden_matrix({"up.weight", zeros({3})}));
  EXPECT_FALSE(is_hidden_matrix({"up.weight", zeros({3, 2, 2})}));
}

}  // namespace
}  // namespace rapt

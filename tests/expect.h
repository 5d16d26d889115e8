#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "../core/check.h"
#include "../core/tensor.h"

/// What many tests expect in the same words.
namespace rapt {

/// The text of the Error that f throws.
template <class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

inline void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" is not in: " << text;
}

inline constexpr Real kNan = std::numeric_limits<Real>::quiet_NaN();
inline constexpr bool kDouble = sizeof(Real) == 8;

inline constexpr double kClose = kDouble ? 1e-12 : 1e-5;

inline void expect_near(const Tensor& a, const Tensor& b, double tolerance = kClose) {
  ASSERT_EQ(a.shape, b.shape);
  std::vector<Real> x = a.to_vector(), y = b.to_vector();
  for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(x[i], y[i], tolerance) << "element " << i;
}

/// Largest difference over the size of the numbers; infinities must agree, NaN never does.
inline double relative_difference(const Tensor& a, const Tensor& b) {
  std::vector<Real> x = a.to_vector(), y = b.to_vector();
  EXPECT_EQ(a.shape, b.shape);
  double worst = 0, size = 1;
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] == y[i]) continue;
    double d = std::fabs(double(x[i]) - double(y[i]));
    if (!std::isfinite(d)) return 1e30;
    worst = std::max(worst, d);
    size = std::max(size, std::fabs(double(y[i])));
  }
  return worst / size;
}

}  // namespace rapt

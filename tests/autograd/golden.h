#pragma once
#include <gtest/gtest.h>
#include <rapt/core/tensor.h>
#include <rapt/core/tokens.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

/// Reads tests/golden/ops.json: what PyTorch computes in float64. tools/golden_ops.py made it and describes it.
namespace rapt::inline RAPT_ABI {

using Json = nlohmann::json;

inline const Json& golden() {
  static const Json json = Json::parse(std::ifstream(RAPT_TEST_FOLDER "/golden/ops.json"));
  return json;
}

/// A number, or one of the texts "inf", "-inf" and "nan".
inline double golden_number(const Json& j) { return j.is_string() ? std::stod(j.get<std::string>()) : j.get<double>(); }

inline Tensor golden_tensor(const Json& j) {
  Shape shape;
  for (int64_t size : j.at("shape")) shape.push_back(size);
  std::vector<Real> values;
  for (const Json& v : j.at("values")) values.push_back(Real(golden_number(v)));
  return from_values(shape, values);
}

inline Tokens golden_tokens(const Json& j) {
  std::vector<int32_t> ids = j.get<std::vector<int32_t>>();
  return {{int64_t(ids.size())}, ids};
}

/// |actual − expected| ≤ tolerance · max(1, |expected|), by default close to the last digits of Real.
inline void expect_golden(const Tensor& actual, const Json& expected,
                          double tolerance = sizeof(Real) == 8 ? 1e-10 : 2e-6) {
  Tensor e = golden_tensor(expected);
  ASSERT_TRUE(bool(actual));
  ASSERT_EQ(actual.shape, e.shape);
  std::vector<Real> a = actual.to_vector(), b = e.to_vector();
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) continue;  // infinities
    EXPECT_LE(std::fabs(a[i] - b[i]), tolerance * std::max(1.0, std::fabs(double(b[i]))))
        << "element " << i << ": " << a[i] << " instead of " << b[i];
  }
}

}  // namespace rapt::inline RAPT_ABI

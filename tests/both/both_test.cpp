#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "outcomes.h"

// Both libraries in one program: float against double, from the same numbers.

namespace {

void expect_close(const std::vector<double>& single, const std::vector<double>& exact, double tolerance,
                  const std::string& what) {
  ASSERT_EQ(single.size(), exact.size()) << what;
  for (size_t i = 0; i < exact.size(); ++i) {
    EXPECT_LE(std::fabs(single[i] - exact[i]), tolerance * std::max(1.0, std::fabs(exact[i])))
        << what << ", element " << i << ": " << single[i] << " and " << exact[i];
  }
}

TEST(FloatAgainstDouble, EveryRowOfTheTable) {
  std::vector<both::Outcome> single = both::float_outcomes(), exact = both::double_outcomes();
  ASSERT_EQ(single.size(), exact.size());
  ASSERT_GT(exact.size(), 50u);
  size_t differing = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    ASSERT_EQ(single[i].name, exact[i].name);
    expect_close(single[i].output, exact[i].output, exact[i].tolerance, exact[i].name);
    ASSERT_EQ(single[i].gradients.size(), exact[i].gradients.size());
    for (size_t k = 0; k < exact[i].gradients.size(); ++k) {
      expect_close(single[i].gradients[k], exact[i].gradients[k], exact[i].tolerance, exact[i].name + ", gradient");
    }
    differing += single[i].output != exact[i].output;
  }
  EXPECT_GT(differing, exact.size() / 4);  // they are two libraries
}

TEST(FloatAgainstDouble, ErrorsOfBothAreCaught) {
  EXPECT_NE(both::float_error(), "");
  EXPECT_EQ(both::float_error(), both::double_error());
}

}  // namespace

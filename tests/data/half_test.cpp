#include <rapt/data/formats/half.h>

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

namespace rapt {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The definition of binary16, for every finite value.
float half_by_definition(int bits) {
  int exponent = bits >> 10 & 31, fraction = bits & 1023;
  float magnitude =
      exponent == 0 ? std::ldexp(float(fraction), -24) : std::ldexp(float(1024 + fraction), exponent - 25);
  return bits >> 15 ? -magnitude : magnitude;
}

TEST(Half, EveryValueIsReadAndWritten) {
  for (int bits = 0; bits < 65536; ++bits) {
    float value = half_to_float(uint16_t(bits));
    if ((bits & 0x7C00) == 0x7C00) {
      if (bits & 1023) {
        EXPECT_TRUE(std::isnan(value)) << bits;
        EXPECT_TRUE(std::isnan(half_to_float(float_to_half(value)))) << bits;
        continue;
      }
      EXPECT_EQ(value, bits >> 15 ? -kInfinity : kInfinity);
    } else {
      ASSERT_EQ(std::bit_cast<uint32_t>(value), std::bit_cast<uint32_t>(half_by_definition(bits))) << bits;
    }
    ASSERT_EQ(float_to_half(value), bits);
  }
}

TEST(Half, RoundsToNearestEven) {
  for (int bits = 0; bits < 0x7C00; ++bits) {
    float low = half_by_definition(bits), high = bits == 0x7BFF ? 65536.0f : half_by_definition(bits + 1);
    float middle = low + (high - low) / 2;  // exact in float
    ASSERT_EQ(float_to_half(middle), bits + (bits & 1)) << middle;
    ASSERT_EQ(float_to_half(std::nextafter(middle, 0.0f)), bits) << middle;
    ASSERT_EQ(float_to_half(std::nextafter(middle, kInfinity)), bits + 1) << middle;
    ASSERT_EQ(float_to_half(-middle), 0x8000 | (bits + (bits & 1))) << middle;
  }
  EXPECT_EQ(float_to_half(1e30f), 0x7C00);
  EXPECT_EQ(float_to_half(-kInfinity), 0xFC00);
}

TEST(Bfloat16, EveryValueIsReadAndWritten) {
  for (int bits = 0; bits < 65536; ++bits) {
    float value = bfloat16_to_float(uint16_t(bits));
    if (std::isnan(value))
      EXPECT_TRUE(std::isnan(bfloat16_to_float(float_to_bfloat16(value)))) << bits;
    else
      ASSERT_EQ(float_to_bfloat16(value), bits);
  }
  EXPECT_EQ(bfloat16_to_float(0x3FC0), 1.5f);
  float almost_nothing_set = std::bit_cast<float>(0x7F800001u);  // a NaN whose upper half alone would be infinity
  EXPECT_TRUE(std::isnan(bfloat16_to_float(float_to_bfloat16(almost_nothing_set))));
}

TEST(Bfloat16, RoundsToNearestEven) {
  for (uint32_t bits : {0x3F80u, 0x3F81u, 0x0000u, 0x0001u, 0x7F7Eu, 0x7F7Fu, 0xC12Fu}) {
    EXPECT_EQ(float_to_bfloat16(std::bit_cast<float>(bits << 16 | 0x7FFF)), bits);
    EXPECT_EQ(float_to_bfloat16(std::bit_cast<float>(bits << 16 | 0x8000)), bits + (bits & 1));
    EXPECT_EQ(float_to_bfloat16(std::bit_cast<float>(bits << 16 | 0x8001)), bits + 1);
  }
}

}  // namespace
}  // namespace rapt

#include <rapt/data/formats/crc32c.h>

#include <gtest/gtest.h>

#include <string>

namespace rapt {
namespace {

// RFC 3720, appendix B.4, and the usual check value.
TEST(Crc32c, KnownValues) {
  std::string ascending;
  for (char i = 0; i < 32; ++i) ascending += i;
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xFF')), 0x62A8AB43u);
  EXPECT_EQ(crc32c(ascending), 0x46DD794Eu);
}

TEST(Crc32c, TableAndInstructionAgreeForEveryLengthAndPlace) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += char(i * 37 + i / 3);
  for (size_t begin = 0; begin < 9; ++begin)
    for (size_t n = 0; n + begin <= text.size(); ++n) {
      auto bytes = std::as_bytes(std::span(text)).subspan(begin, n);
      EXPECT_EQ(crc32c(bytes), detail::crc32c_by_table(bytes));
    }
}

TEST(Crc32c, GoesOnFromWhatStandsBefore) {
  std::string_view text = "what stands before, and what follows";
  for (size_t cut = 0; cut <= text.size(); ++cut)
    EXPECT_EQ(crc32c(text.substr(cut), crc32c(text.substr(0, cut))), crc32c(text));
}

}  // namespace
}  // namespace rapt

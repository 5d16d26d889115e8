#include "../../watch/values.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "../../autograd/ops.h"
#include "../train/program.h"

namespace rapt {
namespace {

std::vector<ValueLine> values_of(const std::function<void()>& f) {
  std::vector<ValueLine> lines;
  ValueLog log([&](const ValueLine& line) { lines.push_back(line); });
  f();
  return lines;
}

TEST(Values, DescribeEveryResult) {
  Tensor x = requires_grad(from_values({3}, {1, 2, 6}));
  std::vector<ValueLine> lines = values_of([&] {
    Scope scope(std::make_shared<const std::string>("net"));
    backward(sum(x * 2));
  });
  ASSERT_EQ(lines.size(), 6u);  // mul, sum; sum, mul with its part, leaf
  EXPECT_EQ(lines[0].pass, "forward");
  EXPECT_EQ(lines[0].operation, "mul");
  EXPECT_EQ(lines[0].module, "net");
  EXPECT_EQ(lines[0].shape, "(3,)");
  EXPECT_EQ(lines[0].least, 2);
  EXPECT_EQ(lines[0].most, 12);
  EXPECT_EQ(lines[0].mean, 6);
  EXPECT_EQ(lines[2].pass, "backward");
  EXPECT_EQ(lines[5].operation, "leaf");
}

TEST(Values, BitsDecideAndStridesDoNot) {
  Tensor x = uniform({3, 4});
  Tensor y = clone(x);
  auto hash = [](const Tensor& t) { return values_of([&] { transpose(t, 0, 1); })[0].hash; };
  EXPECT_EQ(hash(x), hash(y));
  Tensor dense = contiguous(transpose(x, 0, 1));
  EXPECT_EQ(hash(x), values_of([&] { -(-dense); })[1].hash);
  y.set({2, 3}, std::nextafter(y.at({2, 3}), Real(9)));
  EXPECT_NE(hash(x), hash(y));
}

TEST(Values, GoThroughAFile) {
  std::vector<ValueLine> lines = values_of([] {
    exp(uniform({2, 3}));
    log(full({2}, -1));
    exp(full({2}, std::numeric_limits<Real>::infinity()));
  });
  test::TemporaryFolder folder;
  std::string text = std::string(kValuesHeader) + "\n";
  for (const ValueLine& line : lines) text += to_text(line) + "\n";
  test::make_file(folder / "v", text);
  std::vector<ValueLine> read = read_values(folder / "v");
  ASSERT_EQ(read.size(), 3u);
  EXPECT_FALSE(first_difference(lines, read));
  EXPECT_TRUE(std::isnan(read[1].mean));
  EXPECT_EQ(read[2].most, std::numeric_limits<double>::infinity());
}

TEST(Values, FirstDifference) {
  auto lines = [](double c) { return values_of([&] { exp(tanh(full({4}, 0.5)) * c); }); };
  std::vector<ValueLine> a = lines(1), b = lines(1.0001), shorter(a.begin(), a.begin() + 2);
  EXPECT_FALSE(first_difference(a, a));
  EXPECT_EQ(first_difference(a, b), 1u);
  EXPECT_FALSE(first_difference(a, b, 1e-3));
  EXPECT_EQ(first_difference(a, b, 1e-6), 1u);
  EXPECT_EQ(first_difference(a, shorter), 2u);
  std::vector<ValueLine> other = a;
  other[0].where = "elsewhere:1";
  EXPECT_FALSE(first_difference(a, other));
  other[0].module = "net";
  EXPECT_EQ(first_difference(a, other), 0u);
}

TEST(Values, BadFilesAreNamed) {
  test::TemporaryFolder folder;
  auto message = [&](const std::string& text) -> std::string {
    test::make_file(folder / "v", text);
    try {
      read_values(folder / "v");
    } catch (const DataError& error) {
      return error.what();
    }
    return "";
  };
  std::string head = std::string(kValuesHeader) + "\n";
  EXPECT_NE(message("").find("no file of values"), std::string::npos);
  EXPECT_NE(message("x\n").find("no file of values"), std::string::npos);
  EXPECT_NE(message(head).find("holds no values"), std::string::npos);
  EXPECT_NE(message(head + "forward\texp\n").find("line 2: this is no line"), std::string::npos);
  std::string line = "forward\texp\t\ta:1\t0\t(2)\t00ff\t1\t2\t1.5\n";
  EXPECT_EQ(message(head + line), "");
  EXPECT_NE(message(head + line + "forward\texp\t\ta:1\t0\t(2)\tzz\t1\t2\t1.5\n").find("line 3: \"zz\" is no number"),
            std::string::npos);
  EXPECT_THROW(read_values(folder / "missing"), DataError);
}

}  // namespace
}  // namespace rapt

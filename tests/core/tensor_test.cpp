#include <gtest/gtest.h>
#include <rapt/core/strided.h>
#include <rapt/core/tensor.h>
#include <rapt/core/view.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace rapt {
namespace {

using Values = std::vector<Real>;

TEST(Shape, DimensionsCountFromEitherEnd) {
  Shape shape{2, 3, 4};
  EXPECT_EQ(shape.rank, 3);
  EXPECT_EQ(shape[0], 2);
  EXPECT_EQ(shape[-1], 4);
  EXPECT_EQ(shape.numel(), 24);
  EXPECT_EQ(Shape().numel(), 1);
  EXPECT_EQ(Shape({3, 0}).numel(), 0);
  EXPECT_THROW(shape[3], Error);
  EXPECT_THROW(shape[-4], Error);
  EXPECT_THROW((Shape{1, 1, 1, 1, 1, 1, 1}), Error);
}

TEST(Shape, TooManyElementsAreRefused) {
  constexpr int64_t kMany = int64_t{1} << 32;
  EXPECT_THROW(zeros({kMany, kMany}), Error);
  EXPECT_THROW(zeros({2 * kMany + 1, kMany / 2}), Error);
  EXPECT_EQ(Shape({kMany, 0, kMany}).numel(), 0);
  EXPECT_THROW(view::reshape(zeros({0}), {kMany, kMany}), Error);
  EXPECT_THROW(view::reshape(zeros({0}), {kMany, kMany, -1}), Error);
}

TEST(Shape, InsertAndErase) {
  Shape shape{2, 3};
  shape.insert(1, 7);
  EXPECT_EQ(shape, Shape({2, 7, 3}));
  shape.insert(3, 9);
  EXPECT_EQ(shape, Shape({2, 7, 3, 9}));
  shape.erase(0);
  shape.erase(-1);
  EXPECT_EQ(shape, Shape({7, 3}));  // the sizes beyond the rank are back at 0
  EXPECT_THROW(shape.insert(3, 1), Error);
  EXPECT_THROW(shape.erase(2), Error);
}

TEST(Shape, Text) {
  EXPECT_EQ(to_string(Shape{2, 3}), "(2, 3)");
  EXPECT_EQ(to_string(Shape{5}), "(5,)");
  EXPECT_EQ(to_string(Shape{}), "()");
  EXPECT_EQ(fmt::format("{}", Shape{1, 2}), "(1, 2)");
}

TEST(Shape, Broadcast) {
  EXPECT_EQ(broadcast("op", {2, 1, 4}, {3, 1}), Shape({2, 3, 4}));
  EXPECT_EQ(broadcast("op", {}, {3}), Shape({3}));
  EXPECT_EQ(broadcast("op", {1}, {0}), Shape({0}));
  try {
    broadcast("op", {2, 3}, {2, 4});
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "op: shapes (2, 3) and (2, 4) don't broadcast");
  }
  EXPECT_THROW(broadcast("op", {0}, {2}), Error);
}

TEST(Tensor, Factories) {
  EXPECT_EQ(zeros({2}).to_vector(), Values({0, 0}));
  EXPECT_EQ(ones({2}).to_vector(), Values({1, 1}));
  EXPECT_EQ(full({3}, 7).to_vector(), Values({7, 7, 7}));
  EXPECT_EQ(arange(4).to_vector(), Values({0, 1, 2, 3}));
  EXPECT_EQ(eye(2).to_vector(), Values({1, 0, 0, 1}));
  EXPECT_EQ(scalar(3).rank(), 0);
  EXPECT_EQ(scalar(3).item(), 3);
  EXPECT_EQ(from_values({2, 2}, {1, 2, 3, 4}).at({1, 0}), 3);
  EXPECT_EQ(empty({0, 3}).numel(), 0);
  EXPECT_THROW(from_values({2, 2}, {1, 2, 3}), Error);
  EXPECT_THROW(empty({2, -1}), Error);
}

TEST(Tensor, Elements) {
  Tensor x = from_values({2, 3}, {1, 2, 3, 4, 5, 6});
  EXPECT_EQ(x.at({-1, -3}), 4);
  x.set({0, -1}, 30);
  EXPECT_EQ(x.at({0, 2}), 30);
  EXPECT_THROW(x.at({2, 0}), Error);
  EXPECT_THROW(x.at({0, -4}), Error);
  EXPECT_THROW(x.at({0}), Error);
  EXPECT_THROW(x.set({0, 3}, 1), Error);
  EXPECT_THROW(x.item(), Error);
  EXPECT_THROW(Tensor().item(), Error);
  EXPECT_THROW(Tensor().at({}), Error);
  EXPECT_FALSE(Tensor());
  EXPECT_TRUE(bool(x));
}

TEST(Tensor, CopiesShareTheirNumbers) {
  Tensor x = arange(3), y = x, z = clone(x);
  y.set({0}, 9);
  EXPECT_EQ(x.at({0}), 9);
  EXPECT_EQ(z.at({0}), 0);
}

TEST(Tensor, WritingCountsAsAChangeAndReadingDoesNot) {
  Tensor x = arange(3);
  uint32_t version = x.storage->version;
  x.at({0});
  x.to_vector();
  x.data();
  clone(x);
  EXPECT_EQ(x.storage->version, version);
  x.set({0}, 1);
  EXPECT_NE(x.storage->version, version);
  for (auto write : {+[](Tensor& t) { fill(t, 2); }, +[](Tensor& t) { copy_into(t, arange(3)); },
                     +[](Tensor& t) { t.mutable_data(); }}) {
    version = x.storage->version;
    write(x);
    EXPECT_NE(x.storage->version, version);
  }
}

TEST(Tensor, Contiguous) {
  Tensor x = arange(24);
  x = view::reshape(x, {2, 3, 4});
  EXPECT_TRUE(x.contiguous());
  EXPECT_FALSE(view::transpose(x, 0, 1).contiguous());
  EXPECT_TRUE(view::slice(x, 0, 1, 2).contiguous());
  EXPECT_FALSE(view::slice(x, 1, 0, 2).contiguous());
  EXPECT_FALSE(view::expand(ones({1, 3}), {2, 3}).contiguous());
  EXPECT_TRUE(view::transpose(ones({1, 3}), 0, 1).contiguous());   // strides of size 1 don't matter
  EXPECT_TRUE(view::transpose(zeros({2, 0}), 0, 1).contiguous());  // nor those of nothing
  EXPECT_EQ(contiguous(x).storage, x.storage);
  Tensor dense = contiguous(view::transpose(x, 0, 2));
  EXPECT_NE(dense.storage, x.storage);
  EXPECT_EQ(dense.at({3, 1, 0}), x.at({0, 1, 3}));
}

TEST(Tensor, CopyBetweenStrides) {
  Tensor from = view::transpose(view::reshape(arange(6), {2, 3}), 0, 1);  // (3, 2)
  Tensor wide = full({3, 5}, -1);
  Tensor to = view::slice(wide, 1, 1, 5, 3);
  copy_into(to, from);
  EXPECT_EQ(wide.to_vector(), Values({-1, 0, -1, -1, 3, -1, 1, -1, -1, 4, -1, 2, -1, -1, 5}));
  EXPECT_THROW(copy_into(to, zeros({2, 3})), Error);
  fill(to, 8);
  EXPECT_EQ(wide.to_vector(), Values({-1, 8, -1, -1, 8, -1, 8, -1, -1, 8, -1, 8, -1, -1, 8}));
}

// Large enough for several tasks, in all combinations of strides.
TEST(Tensor, CopyOfManyElements) {
  Tensor x = view::reshape(arange(300 * 200), {300, 200});
  Tensor t = clone(view::transpose(x, 0, 1));
  EXPECT_EQ(t.at({199, 298}), 298 * 200 + 199);
  EXPECT_EQ(clone(view::transpose(t, 0, 1)).to_vector(), x.to_vector());
  EXPECT_EQ(clone(x).to_vector(), x.to_vector());
}

TEST(LoopNest, MergesWhatLiesEvenly) {
  Tensor x = zeros({2, 3, 4}), row = zeros({4}), one = zeros({1, 1, 1});
  auto dense = loop_nest<2>(x.shape, {&x, &one});
  EXPECT_EQ(dense.shape, Shape({24}));
  EXPECT_EQ(dense.row_stride(0), 1);
  EXPECT_EQ(dense.row_stride(1), 0);
  auto rows = loop_nest<2>(x.shape, {&x, &row});
  EXPECT_EQ(rows.shape, Shape({6, 4}));
  EXPECT_EQ(rows.rows(), 6);
  EXPECT_EQ(rows.row_offsets(5)[0], 20);
  EXPECT_EQ(rows.row_offsets(5)[1], 0);
  Tensor t = view::transpose(view::transpose(x, 0, 2), 1, 2);  // (4, 2, 3), the last two as they lay
  EXPECT_EQ((loop_nest<1>(t.shape, {&t}).shape), Shape({4, 6}));
}

TEST(Print, ShowsShapeStatisticsAndValues) {
  EXPECT_EQ(to_string(Tensor()), "Tensor()");
  EXPECT_EQ(to_string(scalar(2.5)), "Tensor(2.5)");
  std::string text = to_string(from_values({2, 2}, {1, 2, 3, 4}));
  EXPECT_EQ(text, "Tensor(2, 2) min 1 max 4 mean 2.5 norm 5.477\n[[1, 2]\n [3, 4]]");
  EXPECT_EQ(fmt::format("{}", scalar(1)), "Tensor(1)");
  EXPECT_EQ(to_string(zeros({0, 3})), "Tensor(0, 3)");
}

TEST(Print, NeverMoreThanAScreen) {
  for (const Shape& shape : {Shape{1000000}, Shape{1000, 1000}, Shape{2, 3, 100, 200}, Shape{100000, 1}}) {
    std::string text = to_string(full(shape, Real(-1.23456789e-30)));
    EXPECT_LT(text.size(), 2000u) << text;
    EXPECT_NE(text.find("…"), std::string::npos);
  }
}

TEST(Print, CountsWhatIsNotFinite) {
  Tensor x = zeros({5});
  x.set({0}, std::numeric_limits<Real>::quiet_NaN());
  x.set({1}, std::numeric_limits<Real>::quiet_NaN());
  x.set({2}, -std::numeric_limits<Real>::infinity());
  x.set({3}, 4);
  std::string text = to_string(x);
  EXPECT_NE(text.find("min 0 max 4 mean 2 norm 4, 2 NaN, 1 Inf"), std::string::npos) << text;
  std::string none = to_string(full({3}, std::numeric_limits<Real>::quiet_NaN()));
  EXPECT_NE(none.find("(3,) 3 NaN"), std::string::npos) << none;
}

}  // namespace
}  // namespace rapt

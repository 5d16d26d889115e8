#include <gtest/gtest.h>
#include <rapt/core/tensor.h>
#include <rapt/core/view.h>

#include <limits>
#include <string>
#include <vector>

#include "../expect.h"

namespace rapt {
namespace {

using Values = std::vector<Real>;

Tensor counted(const Shape& shape) { return view::reshape(arange(shape.numel()), shape); }

TEST(View, SharesItsNumbers) {
  Tensor x = counted({2, 3});
  Tensor y = view::transpose(x, 0, 1);
  EXPECT_EQ(y.storage, x.storage);
  y.set({2, 0}, 50);
  EXPECT_EQ(x.at({0, 2}), 50);
}

TEST(View, Slice) {
  Tensor x = counted({3, 5});
  EXPECT_EQ(view::slice(x, 0, 1, 2).to_vector(), Values({5, 6, 7, 8, 9}));
  EXPECT_EQ(view::slice(x, 1, 1, 5, 2).to_vector(), Values({1, 3, 6, 8, 11, 13}));
  EXPECT_EQ(view::slice(x, 1, 0, 5, 2).shape, Shape({3, 3}));
  EXPECT_EQ(view::slice(x, -1, -2, -1).to_vector(), Values({3, 8, 13}));
  EXPECT_EQ(view::slice(x, 0, 3, 3).shape, Shape({0, 5}));
  EXPECT_EQ(view::slice(view::slice(x, 1, 1, 5), 1, 1, 4, 2).to_vector(), Values({2, 4, 7, 9, 12, 14}));
  EXPECT_EQ(error_of([&] { view::slice(x, 1, 2, 6); }), "slice: 2:6 is out of range for dimension 1 of (3, 5)");
  EXPECT_THROW(view::slice(x, 1, 3, 2), Error);
  EXPECT_THROW(view::slice(x, 1, -6, 2), Error);
  EXPECT_THROW(view::slice(x, 2, 0, 1), Error);
  EXPECT_THROW(view::slice(x, 0, 0, 1, 0), Error);
}

TEST(View, Select) {
  Tensor x = counted({2, 3, 4});
  EXPECT_EQ(view::select(x, 1, 2).shape, Shape({2, 4}));
  EXPECT_EQ(view::select(x, 1, 2).to_vector(), Values({8, 9, 10, 11, 20, 21, 22, 23}));
  EXPECT_EQ(view::select(view::select(x, 0, -1), -1, -2).to_vector(), Values({14, 18, 22}));
  EXPECT_THROW(view::select(x, 1, 3), Error);
  EXPECT_THROW(view::select(x, 1, -4), Error);
  EXPECT_THROW(view::select(scalar(1), 0, 0), Error);
}

TEST(View, TransposeAndPermute) {
  Tensor x = counted({2, 3, 4});
  Tensor t = view::transpose(x, 0, -1);
  EXPECT_EQ(t.shape, Shape({4, 3, 2}));
  EXPECT_EQ(t.at({3, 1, 0}), x.at({0, 1, 3}));
  const int order[] = {2, 0, -2};
  Tensor p = view::permute(x, order);
  EXPECT_EQ(p.shape, Shape({4, 2, 3}));
  for (int64_t i = 0; i < 2; ++i) {
    for (int64_t j = 0; j < 3; ++j) {
      for (int64_t k = 0; k < 4; ++k) EXPECT_EQ(p.at({k, i, j}), x.at({i, j, k}));
    }
  }
  const int twice[] = {0, 0, 1}, two[] = {0, 1};
  EXPECT_THROW(view::permute(x, twice), Error);
  EXPECT_THROW(view::permute(x, two), Error);
  EXPECT_THROW(view::transpose(x, 0, 3), Error);
}

TEST(View, Expand) {
  Tensor x = counted({3, 1});
  Tensor y = view::expand(x, {2, 3, 2});
  EXPECT_EQ(y.to_vector(), Values({0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2}));
  EXPECT_EQ(y.storage, x.storage);
  EXPECT_EQ(view::expand(scalar(4), {2}).to_vector(), Values({4, 4}));
  EXPECT_EQ(view::expand(x, {3, 0}).numel(), 0);
  EXPECT_THROW(view::expand(x, {4, 2}), Error);
  EXPECT_THROW(view::expand(x, {3}), Error);
}

TEST(View, SqueezeAndUnsqueeze) {
  Tensor x = counted({2, 1, 3});
  EXPECT_EQ(view::squeeze(x, -2).shape, Shape({2, 3}));
  EXPECT_EQ(view::unsqueeze(x, -1).shape, Shape({2, 1, 3, 1}));
  EXPECT_EQ(view::unsqueeze(x, 0).shape, Shape({1, 2, 1, 3}));
  EXPECT_EQ(view::unsqueeze(scalar(1), 0).shape, Shape({1}));
  EXPECT_EQ(view::unsqueeze(view::transpose(x, 0, 2), 1).to_vector(), view::transpose(x, 0, 2).to_vector());
  EXPECT_THROW(view::squeeze(x, 0), Error);
  EXPECT_THROW(view::unsqueeze(x, 5), Error);
  EXPECT_THROW(view::unsqueeze(x, -5), Error);
}

TEST(View, ReshapeIsAViewWhereStridesAllow) {
  struct Case {
    Tensor x;
    Shape to;
    bool shared;
  };
  Tensor x = counted({4, 6, 2});
  Tensor wide = view::slice(counted({4, 6, 5}), 2, 1, 3);  // (4, 6, 2), rows apart
  const std::vector<Case> cases = {
      {x, {48}, true},
      {x, {2, 2, 3, -1}, true},
      {x, {4, 1, 12}, true},
      {view::transpose(x, 0, 1), {6, 2, 2, 2}, true},            // splits the transposed dimension
      {view::transpose(x, 0, 1), {24, 2}, false},                // merges what does not lie evenly
      {view::transpose(x, 0, 1), {6, 8}, false},                 //
      {wide, {24, 2}, true},                                     // merges rows that are evenly apart
      {wide, {2, 12, 2}, true},                                  //
      {wide, {4, 12}, false},                                    //
      {wide, {1, 4, 1, 6, 2, 1}, true},                          //
      {view::slice(x, 0, 0, 4, 2), {2, 12}, true},               //
      {view::slice(x, 0, 0, 4, 2), {24}, false},                 //
      {view::expand(counted({1, 3}), {4, 3}), {2, 2, 3}, true},  // splits a repeated dimension
      {view::expand(counted({1, 3}), {4, 3}), {12}, false},      // merges one from outside
      {view::expand(counted({3, 1}), {3, 4}), {12}, false},      // and from inside
      {view::expand(counted({2, 3, 1, 4}), {2, 3, 2, 4}), {2, 6, 4}, false},
      {view::expand(scalar(5), {3, 4}), {2, 6}, true},  // one number everywhere
      {view::transpose(counted({4, 9, 5, 2}), 2, 3), {6, 6, 2, 5}, true},
      {view::slice(counted({4, 9, 10, 2}), 3, 0, 1), {6, 12, 5}, true},
      {zeros({0, 3}), {5, 0, 2}, true},
      {counted({1, 1}), {}, true},
      {scalar(1), {1, 1, 1}, true},
  };
  for (const Case& c : cases) {
    Tensor y = view::reshape(c.x, c.to);
    std::string what = fmt::format("{} by {} to {}", c.x.shape, c.x.strides, c.to);
    EXPECT_EQ(y.storage == c.x.storage, c.shared) << what;
    EXPECT_EQ(y.to_vector(), c.x.to_vector()) << what;
    EXPECT_EQ(y.shape, view::resolve_shape(c.to, c.x.numel())) << what;
  }
}

TEST(View, ReshapeRefusesWhatDoesNotFit) {
  Tensor x = counted({4, 6});
  EXPECT_THROW(view::reshape(x, {5, -1}), Error);
  EXPECT_THROW(view::reshape(x, {-1, -1}), Error);
  EXPECT_THROW(view::reshape(x, {4, 5}), Error);
  EXPECT_THROW(view::reshape(x, {-2, -12}), Error);
  EXPECT_THROW(view::reshape(zeros({0}), {0, -1}), Error);  // any size would do
  EXPECT_EQ(view::resolve_shape({2, -1, 3}, 24), Shape({2, 4, 3}));
}

}  // namespace
}  // namespace rapt

#include <gtest/gtest.h>
#include <rapt/core/attention/mask.h>
#include <rapt/core/check.h>
#include <rapt/core/random.h>

#include <algorithm>
#include <functional>
#include <vector>

namespace rapt {
namespace {

constexpr ScoreShape kShape{2, 3, 40, 50};

bool reads(const Mask& mask, int64_t b, int64_t h, int64_t row, int64_t key, const ScoreShape& s = kShape) {
  uint8_t keep = 2;
  if (mask.everything()) return true;
  mask.rule().keep({b, h, key, row, 1, s.queries, s.keys}, &keep);
  EXPECT_LE(keep, 1);
  return keep == 1;
}

Tokens integers(const Shape& shape, const std::function<int32_t(int64_t)>& f) {
  Tokens t;
  t.shape = shape;
  for (int64_t i = 0; i < shape.numel(); ++i) t.ids.push_back(f(i));
  return t;
}

Tensor scattered() {
  Tensor keep = empty({3, 40, 50});
  for (int64_t e = 0; e < keep.numel(); ++e) keep.mutable_data()[e] = Real(e * 11 % 7 > 2);
  return keep;
}

std::vector<Mask> masks() {
  auto sorted = integers({2, 50}, [](int64_t i) { return int32_t(i % 50 / 17); });
  auto padding = integers({1, 50}, [](int64_t i) { return int32_t(i > 30 || i < 4); });
  auto blocks = integers({13, 13}, [](int64_t i) { return int32_t(i * 5 % 3 == 0); });
  std::vector<Mask> all{causal(),
                        strictly_causal(),
                        causal_top_left(),
                        window(5, 2),
                        window(7),
                        prefix(6),
                        chunked(9),
                        dilated(4),
                        global(3),
                        document(sorted),
                        key_padding(padding),
                        keep_where(scattered()),
                        block_list(blocks, 4),
                        mask_of([](const At& at) { return (at.row + at.key * at.head) % 3 == 0; })};
  size_t simple = all.size();
  for (size_t i = 0; i + 1 < simple; ++i) {
    all.push_back(all[i] & all[i + 1]);
    all.push_back(all[i] | all[i + 1]);
    all.push_back(!all[i]);
  }
  all.push_back((window(5) | global(2)) & causal() & !key_padding(padding));
  return all;
}

// In random boxes, `full` and `empty` are never wrong; and nothing outside the band is read.
TEST(Mask, ClassifiesBoxesAndBandsRightly) {
  Random random{1, 2};
  uint64_t draw = 0;
  int decided = 0;
  for (const Mask& mask : masks()) {
    SCOPED_TRACE(mask.name());
    mask.rule().check_shape(kShape);
    Band band = mask.rule().band(kShape);
    for (int64_t row = 0; row < kShape.queries; ++row) {
      for (int64_t key = 0; key < kShape.keys; ++key) {
        int64_t distance = key - (row + kShape.offset());
        bool inside = distance >= band.low && distance <= band.high;
        ASSERT_TRUE(inside || !reads(mask, 1, 2, row, key)) << row << " " << key;
        ASSERT_TRUE(!mask.rule().is_band() || reads(mask, 1, 2, row, key) == inside);
      }
    }
    for (int n = 0; n < 60; ++n) {
      int64_t q0 = random.below(kShape.queries, draw++), q1 = q0 + 1 + random.below(kShape.queries - q0, draw++);
      int64_t k0 = random.below(kShape.keys, draw++), k1 = k0 + 1 + random.below(kShape.keys - k0, draw++);
      int64_t b = random.below(2, draw++), h = random.below(3, draw++), kept = 0, offset = kShape.offset();
      for (int64_t i = q0; i < q1; ++i) {
        for (int64_t j = k0; j < k1; ++j) kept += reads(mask, b, h, i, j);
      }
      Cover cover = mask.rule().classify({b, h, q0 + offset, q1 + offset, k0, k1}, kShape);
      ASSERT_TRUE(cover != Cover::empty || kept == 0);
      ASSERT_TRUE(cover != Cover::full || kept == (q1 - q0) * (k1 - k0));
      decided += cover != Cover::partial;
    }
  }
  EXPECT_GT(decided, 300);
}

TEST(Mask, CombinesEntryByEntry) {
  Mask a = window(5, 2) | global(2), b = document(integers({1, 50}, [](int64_t i) { return int32_t(i / 13); })), none;
  for (int64_t row = 0; row < kShape.queries; ++row) {
    for (int64_t key = 0; key < kShape.keys; ++key) {
      bool x = reads(a, 0, 1, row, key), y = reads(b, 0, 1, row, key);
      ASSERT_EQ(reads(a & b, 0, 1, row, key), x && y);
      ASSERT_EQ(reads(a | b, 0, 1, row, key), x || y);
      ASSERT_EQ(reads(!a, 0, 1, row, key), !x);
      ASSERT_EQ(reads(a & none, 0, 1, row, key), x);
      ASSERT_TRUE(reads(a | none, 0, 1, row, key));
      ASSERT_FALSE(reads(!none, 0, 1, row, key));
      // the transposed problem has 50 queries and 40 keys
      ASSERT_EQ(reads(transposed(a), 0, 1, key, row, {2, 3, 50, 40}), x);
    }
  }
}

TEST(Mask, Rules) {
  // 40 queries and 50 keys: row 0 stands at position 10
  EXPECT_TRUE(reads(causal(), 0, 0, 0, 10));
  EXPECT_FALSE(reads(causal(), 0, 0, 0, 11));
  EXPECT_FALSE(reads(strictly_causal(), 0, 0, 0, 10));
  EXPECT_TRUE(reads(causal_top_left(), 0, 0, 3, 3));
  EXPECT_FALSE(reads(causal_top_left(), 0, 0, 3, 4));
  EXPECT_TRUE(reads(window(2, 1), 0, 0, 5, 13) && reads(window(2, 1), 0, 0, 5, 16));
  EXPECT_FALSE(reads(window(2, 1), 0, 0, 5, 12) || reads(window(2, 1), 0, 0, 5, 17));
  EXPECT_TRUE(reads(prefix(30), 0, 0, 0, 29));
  EXPECT_FALSE(reads(prefix(30), 0, 0, 0, 30));
  EXPECT_TRUE(reads(chunked(10), 0, 0, 0, 19));
  EXPECT_FALSE(reads(chunked(10), 0, 0, 0, 9));
  EXPECT_TRUE(reads(dilated(4), 0, 0, 0, 2));
  EXPECT_FALSE(reads(dilated(4), 0, 0, 0, 3));
  EXPECT_TRUE(reads(chunked(3), 0, 0, 0, 1, {1, 1, 4, 2}) == false);  // row 0 stands at position −2, in chunk −1
}

TEST(Mask, RefusesWhatMakesNoSense) {
  EXPECT_THROW(window(-1, 3), Error);
  EXPECT_THROW(chunked(0), Error);
  EXPECT_THROW(dilated(0), Error);
  EXPECT_THROW(prefix(-1), Error);
  EXPECT_THROW(block_list(integers({3}, [](int64_t) { return 0; }), 4), Error);
  EXPECT_THROW(block_list(integers({3, 3}, [](int64_t) { return 0; }), 0), Error);
  EXPECT_THROW(keep_where(Tensor()), Error);
  auto refuse = [](const Mask& mask) { EXPECT_THROW(mask.rule().check_shape(kShape), Error) << mask.name(); };
  refuse(document(integers({2, 49}, [](int64_t) { return 0; })));
  refuse(key_padding(integers({3, 50}, [](int64_t) { return 0; })));
  refuse(keep_where(zeros({2, 40, 50})));
  refuse(block_list(integers({3, 3}, [](int64_t) { return 1; }), 4));
  refuse(causal() & document(integers({50}, [](int64_t) { return 0; })));
  refuse(!keep_where(zeros({41, 50})));
}

}  // namespace
}  // namespace rapt

#include <gtest/gtest.h>
#include <rapt/data/batches.h>

#include <algorithm>
#include <numeric>
#include <set>

namespace {

using namespace rapt;

/// Ids 0, 1, 2, …, so that an id tells where it stood.
struct Counting {
  std::vector<int32_t> ids;
  explicit Counting(int64_t size) : ids(size_t(size)) { std::iota(ids.begin(), ids.end(), 0); }
  TokenSpan span() const { return {ids.data(), 4, int64_t(ids.size())}; }
};

TEST(TokenStream, HoldsTheIdsInFewBytes) {
  std::string few = "hello world", many;
  for (int i = 0; i < 300; ++i) many += {char(0xE4), char(0xB8 + i / 64), char(0x80 + i % 64)};
  for (const std::string& text : {few, many}) {
    Tokenizer tokenizer = Tokenizer::characters(text);
    TokenStream stream(tokenizer, text);
    EXPECT_EQ(stream.span().width, text == few ? 1 : 2);
    std::vector<int32_t> ids(size_t(stream.size()));
    stream.span().copy(0, stream.size(), ids.data());
    EXPECT_EQ(ids, tokenizer.encode(text));
    EXPECT_EQ(stream.span()[3], ids[3]);
    EXPECT_EQ(stream.span().part(2, 5)[1], ids[3]);
  }
  TokenStream bytes(Tokenizer::bytes(), "\xC3\xA9");
  EXPECT_EQ(bytes.size(), 2);
  EXPECT_EQ(bytes.span()[0], 0xC3);
  EXPECT_EQ(TokenStream().size(), 0);
}

TEST(TokenStream, WideVocabularies) {
  std::string form = "characters";
  for (int c = 0x10000; c <= 0x10000 + 65536; ++c) form += fmt::format(" {:x}", c);
  TokenStream stream(Tokenizer::from_string(form), "\xF0\xA0\x80\x80");  // U+20000, the 65537th character
  EXPECT_EQ(stream.span().width, 4);
  EXPECT_EQ(stream.span()[0], 65536);
}

TEST(TokenSpan, ChecksItsBounds) {
  Counting counting(10);
  int32_t to[10];
  EXPECT_THROW(counting.span().copy(5, 6, to), Error);
  EXPECT_THROW(counting.span().copy(-1, 2, to), Error);
  EXPECT_THROW(counting.span()[10], Error);
  EXPECT_THROW(counting.span().part(5, 4), Error);
  EXPECT_THROW(counting.span().part(0, 11), Error);
}

TEST(Split, CutsByPosition) {
  Counting counting(1005);
  Split split = split_tokens(counting.span(), 0.1, 16);
  EXPECT_EQ(split.train.size, 905);
  EXPECT_EQ(split.validation.size, 100);
  EXPECT_EQ(split.train[904], 904);
  EXPECT_EQ(split.validation[0], 905);
  EXPECT_EQ(split_tokens(counting.span(), 0, 16).train.size, 1005);
  EXPECT_EQ(split_tokens(counting.span(), 0, 16).validation.size, 0);
}

TEST(Split, SaysHowLongTheTextMustBe) {
  for (double fraction : {0.0, 0.1, 0.25, 0.5, 0.9, 0.013}) {
    std::string said;
    try {
      split_tokens(Counting(10).span(), fraction, 32);
    } catch (const DataError& e) {
      said = e.what();
    }
    size_t at = said.find("at least ");
    ASSERT_NE(at, std::string::npos) << said;
    int64_t needed = std::stoll(said.substr(at + 9));
    EXPECT_NO_THROW(split_tokens(Counting(needed).span(), fraction, 32));
    EXPECT_THROW(split_tokens(Counting(needed - 1).span(), fraction, 32), DataError);
  }
  EXPECT_THROW(split_tokens(Counting(100).span(), 1.0, 4), Error);
  EXPECT_THROW(split_tokens(Counting(100).span(), -0.1, 4), Error);
  EXPECT_THROW(split_tokens(Counting(100).span(), 0.1, 0), Error);
}

TEST(TrainBatches, AreWindowsWithShiftedTargets) {
  Counting counting(100);
  TrainBatches batches{.tokens = counting.span(), .batch_size = 3, .context = 8, .seed = 7};
  Batch batch = batches.batch(5);
  EXPECT_EQ(batch.x.shape, (Shape{3, 8}));
  EXPECT_EQ(batch.y.shape, (Shape{3, 8}));
  for (size_t b = 0; b < 3; ++b)
    for (size_t t = 0; t < 8; ++t) {
      EXPECT_EQ(batch.x.ids[b * 8 + t], batch.x.ids[b * 8] + int32_t(t));
      EXPECT_EQ(batch.y.ids[b * 8 + t], batch.x.ids[b * 8 + t] + 1);
    }
}

TEST(TrainBatches, ArePureFunctionsOfSeedAndStep) {
  Counting counting(100000);
  TrainBatches batches{.tokens = counting.span(), .batch_size = 4, .context = 8, .seed = 7};
  Batch first = batches.batch(3);
  batches.batch(4);
  EXPECT_EQ(batches.batch(3).x.ids, first.x.ids);
  EXPECT_NE(batches.batch(4).x.ids, first.x.ids);
  batches.seed = 8;
  EXPECT_NE(batches.batch(3).x.ids, first.x.ids);
}

TEST(TrainBatches, MicroStepsAreOneLargeBatch) {
  Counting counting(100000);
  TrainBatches large{.tokens = counting.span(), .batch_size = 6, .context = 8, .seed = 7};
  TrainBatches small{.tokens = counting.span(), .batch_size = 2, .context = 8, .micro_steps = 3, .seed = 7};
  for (int64_t step : {0, 9}) {
    std::vector<int32_t> together;
    for (int64_t micro = 0; micro < 3; ++micro) {
      std::vector<int32_t> ids = small.batch(step, micro).x.ids;
      together.insert(together.end(), ids.begin(), ids.end());
    }
    EXPECT_EQ(together, large.batch(step).x.ids);
  }
  EXPECT_THROW(small.batch(0, 3), Error);
}

TEST(TrainBatches, ReachEveryPlace) {
  Counting counting(12);
  TrainBatches batches{.tokens = counting.span(), .batch_size = 1, .context = 8};
  std::set<int32_t> starts;
  for (int64_t step = 0; step < 200; ++step) starts.insert(batches.batch(step).x.ids[0]);
  EXPECT_EQ(starts, (std::set<int32_t>{0, 1, 2, 3}));

  Counting exact(9), few(8);
  batches.tokens = exact.span();
  EXPECT_EQ(batches.batch(0).y.ids.back(), 8);
  batches.tokens = few.span();
  EXPECT_THROW(batches.batch(0), Error);
}

TEST(ValidationBatches, CountEveryTargetOnce) {
  for (int64_t size : {0, 1, 2, 8, 9, 10, 16, 17, 25, 63, 64, 65, 100}) {
    Counting counting(size);
    ValidationBatches batches{.tokens = counting.span(), .batch_size = 3, .context = 8};
    std::vector<int32_t> seen;
    for (int64_t i = 0; i < batches.batches(); ++i) {
      Batch batch = batches.batch(i);
      EXPECT_EQ(batch.x.shape, batch.y.shape);
      EXPECT_GT(batch.y.numel(), 0);
      for (size_t t = 0; t < batch.y.ids.size(); ++t) EXPECT_EQ(batch.x.ids[t] + 1, batch.y.ids[t]);
      seen.insert(seen.end(), batch.y.ids.begin(), batch.y.ids.end());
    }
    std::vector<int32_t> expected(size_t(std::max<int64_t>(size - 1, 0)));
    std::iota(expected.begin(), expected.end(), 1);
    EXPECT_EQ(seen, expected) << size;
    EXPECT_EQ(batches.targets(), int64_t(expected.size()));
    EXPECT_THROW(batches.batch(batches.batches()), Error);
  }
}

TEST(ValidationBatches, SampleEvenlySpacedWindows) {
  Counting counting(8 * 20 + 4);  // 20 full windows and a short one
  ValidationBatches batches{.tokens = counting.span(), .batch_size = 4, .context = 8, .max_windows = 6};
  EXPECT_EQ(batches.targets(), 6 * 8);
  ASSERT_EQ(batches.batches(), 2);
  EXPECT_EQ(batches.batch(0).x.shape, (Shape{4, 8}));
  EXPECT_EQ(batches.batch(1).x.shape, (Shape{2, 8}));
  std::vector<int32_t> starts;
  for (int64_t i = 0; i < 2; ++i) {
    Batch batch = batches.batch(i);
    for (size_t b = 0; b < batch.x.ids.size(); b += 8) starts.push_back(batch.x.ids[b] / 8);
  }
  EXPECT_EQ(starts, (std::vector<int32_t>{0, 3, 7, 10, 14, 17}));

  batches.max_windows = 21;
  EXPECT_EQ(batches.targets(), 163);
}

}  // namespace

#include <gtest/gtest.h>
#include <rapt/data/text.h>
#include <rapt/data/tokenizer.h>

namespace {

using namespace rapt;

template <class E = DataError, class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  }
  return "";
}

const std::string kText = "Grüße, 漢字 😀!\nno more";

TEST(Tokenizer, BytesRoundTrip) {
  Tokenizer tokenizer = Tokenizer::bytes();
  EXPECT_EQ(tokenizer.kind(), "bytes");
  EXPECT_EQ(tokenizer.vocabulary_size(), 256);
  std::string every;
  for (int i = 0; i < 256; ++i) every.push_back(char(i));
  std::vector<int32_t> ids = tokenizer.encode(every);
  for (int i = 0; i < 256; ++i) EXPECT_EQ(ids[size_t(i)], i);
  EXPECT_EQ(tokenizer.decode(ids), every);
  EXPECT_EQ(tokenizer.token_bytes(200), 1);
}

TEST(Tokenizer, CharactersAreSortedAndRoundTrip) {
  Tokenizer tokenizer = Tokenizer::characters("banana ß😀");
  EXPECT_EQ(tokenizer.kind(), "characters");
  EXPECT_EQ(tokenizer.vocabulary_size(), 6);
  EXPECT_EQ(tokenizer.encode(" abnß😀"), (std::vector<int32_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(tokenizer.token_bytes(0), 1);
  EXPECT_EQ(tokenizer.token_bytes(4), 2);
  EXPECT_EQ(tokenizer.token_bytes(5), 4);

  Tokenizer other = Tokenizer::characters(kText);
  EXPECT_EQ(other.decode(other.encode(kText)), kText);
  EXPECT_TRUE(other.encode("").empty());
  EXPECT_EQ(other.decode({}), "");
}

TEST(Tokenizer, LongTextsComeInBlocks) {
  std::string text;
  for (int i = 0; i < 10000; ++i) text += i % 3 ? "a" : "ö";
  Tokenizer tokenizer = Tokenizer::characters(text);
  int64_t total = 0, blocks = 0;
  tokenizer.encode(text, [&](std::span<const int32_t> ids) {
    total += int64_t(ids.size());
    ++blocks;
  });
  EXPECT_EQ(total, 10000);
  EXPECT_GT(blocks, 1);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
}

TEST(Tokenizer, NamesTheUnknownCharacter) {
  Tokenizer tokenizer = Tokenizer::characters("abc\n");
  std::string said = error_of([&] { tokenizer.encode("ab\ncé"); });
  EXPECT_NE(said.find("U+00E9 'é' at byte 4, line 2"), std::string::npos) << said;
  EXPECT_NE(said.find("\"bytes\""), std::string::npos) << said;
  EXPECT_NE(error_of([&] { tokenizer.encode("b B"); }).find("U+0020"), std::string::npos);
  EXPECT_NE(error_of([&] { tokenizer.encode("a\xFF"); }).find("not UTF-8 at byte 1"), std::string::npos);
  EXPECT_NE(error_of([&] { Tokenizer::characters("a\xFF"); }).find("not UTF-8 at byte 1"), std::string::npos);
  EXPECT_NE(error_of([&] { Tokenizer::characters(""); }).find("empty"), std::string::npos);
}

TEST(Tokenizer, RefusesIdsOutsideTheVocabulary) {
  Tokenizer tokenizer = Tokenizer::characters("abc");
  for (int32_t bad : {-1, 3}) {
    EXPECT_THROW(tokenizer.decode(std::vector<int32_t>{0, bad}), Error);
    EXPECT_THROW(tokenizer.token_bytes(bad), Error);
  }
  EXPECT_THROW(Tokenizer::bytes().decode(std::vector<int32_t>{256}), Error);
}

TEST(Tokenizer, StringFormRoundTrips) {
  EXPECT_EQ(Tokenizer::bytes().to_string(), "bytes");
  EXPECT_EQ(Tokenizer::characters("cab\n").to_string(), "characters a 61 62 63");
  std::string zero("\0\n", 2);
  for (const Tokenizer& tokenizer :
       {Tokenizer::bytes(), Tokenizer::characters(kText), Tokenizer::characters("\n"), Tokenizer::characters(zero)}) {
    Tokenizer back = Tokenizer::from_string(tokenizer.to_string());
    EXPECT_EQ(back, tokenizer);
    EXPECT_EQ(back.encode("\n"), tokenizer.encode("\n"));
  }
}

TEST(Tokenizer, RefusesMalformedStringForms) {
  for (const char* bad : {"", "byte", "bytes ", "Bytes", "characters", "characters ", "characters  61",
                          "characters 61 ", "characters 61 61", "characters 62 61", "characters 61 d800",
                          "characters 61 110000", "characters 61 g", "characters 61,62", "characters 061",
                          "characters 6A", "characters -1", "characters 100000061", "characters 61\n"})
    EXPECT_NE(error_of([&] { Tokenizer::from_string(bad); }), "") << bad;
}

TEST(Tokenizer, IsMadeByKind) {
  EXPECT_EQ(make_tokenizer("bytes", "ab").vocabulary_size(), 256);
  EXPECT_EQ(make_tokenizer("characters", "ab").vocabulary_size(), 2);
  std::string said = error_of<Error>([] { make_tokenizer("words", "ab"); });
  EXPECT_NE(said.find("\"words\""), std::string::npos);
  EXPECT_NE(said.find("\"characters\""), std::string::npos);
}

TEST(Utf8Stream, HoldsBackUnfinishedCharacters) {
  Utf8Stream stream;
  std::string printed;
  for (char byte : kText) {
    std::string now = stream.push({&byte, 1});
    for (size_t i = 0; i < now.size();) {
      CodePoint point = code_point_at(now, i);
      ASSERT_TRUE(point) << "printed half a character";
      i += size_t(point.bytes);
    }
    printed += now;
  }
  EXPECT_EQ(printed + stream.finish(), kText);
  EXPECT_EQ(stream.push("\xE6\xBC"), "");
  EXPECT_EQ(stream.push("\xA2!"), "漢!");
  EXPECT_EQ(stream.push("\xE6\xBC"), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
}

TEST(Utf8Stream, ReplacesWhatCanBeNoCharacter) {
  // the number of replacements is the one Unicode recommends (maximal subparts)
  EXPECT_EQ(Utf8Stream().push("a\xFF\x80z"), "a\uFFFD\uFFFDz");
  EXPECT_EQ(Utf8Stream().push("\xE6\xBCz"), "\uFFFDz");
  EXPECT_EQ(Utf8Stream().push("\xF0\x9F\x98z"), "\uFFFDz");
  EXPECT_EQ(Utf8Stream().push("\xC3\xC3\xA9"), "\uFFFDé");
  EXPECT_EQ(Utf8Stream().push("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
}

}  // namespace

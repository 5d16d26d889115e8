#include <gtest/gtest.h>
#include <rapt/data/text.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace {

namespace fs = std::filesystem;
using namespace rapt;

/// A folder that is gone when the test ends.
struct Folder {
  fs::path path = fs::temp_directory_path() / fmt::format("rapt_text_{}", getpid());
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }

  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path / name, std::ios::binary) << bytes;
    return (path / name).string();
  }
};

/// What the DataError of `f` says; empty when there is none.
template <class F>
std::string data_error(F f) {
  try {
    f();
  } catch (const DataError& e) {
    return e.what();
  }
  return "";
}

void expect_refused(const std::string& bytes, const std::string& message_part) {
  std::string said = data_error([&] { Text::from_string(bytes, "it"); });
  EXPECT_NE(said.find(message_part), std::string::npos) << "said: " << said;
}

TEST(Text, OpensAFile) {
  Folder folder;
  std::string bytes = "Mia found a kite.\r\n\tÄrger, 漢字, 😀\f\n" + std::string(200, 'x');
  std::string path = folder.write("a.txt", bytes);
  Text text = Text::open(path);
  EXPECT_EQ(text.view(), bytes);
  EXPECT_EQ(text.size(), int64_t(bytes.size()));
  EXPECT_EQ(text.name(), path);

  Text copy = text;
  text = Text();
  EXPECT_EQ(copy.view(), bytes);
  EXPECT_EQ(text.size(), 0);
}

TEST(Text, HoldsAString) {
  Text text = Text::from_string("short");
  Text copy = text;
  text = Text();
  EXPECT_EQ(copy.view(), "short");
}

TEST(Text, HashIsFnv1a) {
  EXPECT_EQ(Text().hash(), 0xCBF29CE484222325u);
  EXPECT_EQ(Text::from_string("a").hash(), 0xAF63DC4C8601EC8Cu);
  EXPECT_EQ(Text::from_string("foobar").hash(), 0x85944171F73967E8u);
}

TEST(Text, RefusesWhatIsNoFile) {
  Folder folder;
  auto open = [&](const std::string& path) { return data_error([&] { Text::open(path); }); };
  EXPECT_NE(open((folder.path / "none").string()).find("No such file"), std::string::npos);
  EXPECT_NE(open(folder.path.string()).find("is a directory"), std::string::npos);
  EXPECT_NE(open(folder.write("empty", "")).find("is empty"), std::string::npos);
  EXPECT_NE(open("/dev/null").find("expected a regular file"), std::string::npos);
  std::string pipe = (folder.path / "pipe").string();
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_NE(open(pipe).find("expected a regular file"), std::string::npos);
  if (geteuid() != 0) {
    std::string path = folder.write("closed", "text");
    fs::permissions(path, fs::perms::none);
    EXPECT_NE(open(path).find("Permission denied"), std::string::npos);
  }
  EXPECT_NE(open(folder.write("binary", std::string("ELF\0", 4))).find("binary is not text"), std::string::npos);
}

TEST(Text, RefusesBinary) {
  expect_refused(std::string("ab\nc\0d", 6), "control character 0x00 at byte 4, line 2");
  expect_refused("\x1b[0m", "control character 0x1B at byte 0, line 1");
  expect_refused(std::string("\xFF\xFE"
                             "a\0",
                             4),
                 "UTF-16");
  for (char c = 1; c < 0x20; ++c) {
    bool allowed = c >= 0x09 && c <= 0x0D;
    for (size_t before : {size_t{0}, size_t{63}, size_t{64}, size_t{100}}) {
      std::string bytes = std::string(before, ' ') + c + std::string(100, ' ');
      EXPECT_EQ(data_error([&] { Text::from_string(bytes); }).empty(), allowed) << int(c) << " after " << before;
    }
  }
}

TEST(Text, RefusesWhatIsNotUtf8) {
  for (std::string bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xC3", "\xC3(", "\xE0\x80\x80", "\xE0\x9F\xBF", "\xE2\x82", "\xED\xA0\x80",
        "\xED\xBF\xBF", "\xF0\x8F\xBF\xBF", "\xF0\x9F\x98", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFE", "\xFF"}) {
    expect_refused("line\n" + std::string(70, 'x') + "\n" + bad, "not UTF-8");
    expect_refused("line\n" + std::string(70, 'x') + "\n" + bad, "at byte 76, line 3");
  }
  for (std::string good : {"\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80", "\xEF\xBF\xBF",
                           "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"})
    EXPECT_EQ(Text::from_string(good).view(), good);
}

TEST(CodePoints, RoundTripThroughUtf8) {
  for (uint32_t c = 0; c < 0x110000; ++c) {
    if (!is_code_point(c)) continue;
    std::string bytes;
    append_utf8(bytes, c);
    CodePoint point = code_point_at(bytes, 0);
    ASSERT_EQ(uint32_t(point.value), c);
    ASSERT_EQ(size_t(point.bytes), bytes.size());
    for (size_t cut = 1; cut < bytes.size(); ++cut) ASSERT_TRUE(begins_code_point(bytes.substr(0, cut)));
    ASSERT_FALSE(begins_code_point(bytes));
  }
  for (std::string bad : {"", "\x80", "\xC0", "\xE0\x9F", "\xED\xA0", "\xF4\x90", "\xF5", "a"})
    EXPECT_FALSE(begins_code_point(bad));
}

}  // namespace

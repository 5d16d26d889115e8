#include <rapt/data/formats/json.h>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "files.h"

namespace rapt {
namespace {

using rapt_test::message_of;
using namespace std::string_literals;

std::string nested(int depth) { return std::string(size_t(depth), '[') + std::string(size_t(depth), ']'); }

TEST(Json, RejectsWhatIsNotStrict) {
  struct Row {
    std::string text, message;
  } rows[] = {
      {"", "invalid JSON at byte 0"},
      {"  ", "invalid JSON"},
      {"\xEF\xBB\xBF{}", "byte order mark"},
      {"{\"a\":\"\xFF\"}", "invalid UTF-8 at byte 6"},
      {"\"\xED\xA0\x80\"", "invalid UTF-8 at byte 1"},  // a surrogate, encoded
      {"\"\xC0\x80\"", "invalid UTF-8 at byte 1"},      // NUL in two bytes
      {"\"\\ud800\"", "invalid JSON"},                  // a lone surrogate, escaped
      {"\"\\udc00\"", "invalid JSON"},
      {"{}\0"s, "invalid JSON at byte 2: a NUL"},
      {"{\0}"s, "invalid JSON at byte 1: a NUL"},
      {"{} x", "invalid JSON at byte 3"},
      {"{}{}", "invalid JSON at byte 2"},
      {"{\"a\":NaN}", "invalid JSON"},
      {"[Infinity]", "invalid JSON"},
      {"[1e400]", "invalid JSON"},
      {"[01]", "invalid JSON"},
      {"[1.]", "invalid JSON"},
      {"[1,]", "invalid JSON"},
      {"{\"a\":1,}", "invalid JSON"},
      {"{'a':1}", "invalid JSON"},
      {"[1] // why", "invalid JSON"},
      {"\"a\nb\"", "invalid JSON"},
      {"[1", "invalid JSON"},
      {"{\"a\":1,\"a\":1}", "the key \"a\" comes twice"},
      {"{\"a\":1,\"\\u0061\":2}", "the key \"a\" comes twice"},
      {"{\"x\":{\"b\":1,\"c\":{\"b\":1},\"b\":2}}", "the key \"b\" comes twice"},
      {"[{},{\"\":1,\"\":1}]", "the key \"\" comes twice"},
      {nested(65), "nested too deeply"},
      {nested(100000), "nested too deeply"},
      {std::string(100000, '['), "nested too deeply"},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.text.substr(0, 40));
    std::string message = message_of([&] { parse_json(row.text, "config.json"); });
    EXPECT_EQ(message.rfind("config.json: ", 0), 0u) << message;
    EXPECT_HAS(message, row.message);
    EXPECT_LT(message.size(), 400u);
  }
}

TEST(Json, AcceptsWhatIs) {
  EXPECT_EQ(parse_json(" \t\r\n{ } \n", "").keys().size(), 0u);
  EXPECT_EQ(parse_json("\"\\ud83d\\ude00\\u0000\"", "").string(), "\xF0\x9F\x98\x80\0"s);
  EXPECT_TRUE(parse_json("null", "").is_null());
  EXPECT_EQ(parse_json(nested(64), "").size(), 1u);
  EXPECT_EQ(parse_json("[{\"a\":1},{\"a\":2},{\"b\":{\"a\":3}}]", "").size(), 3u);
}

TEST(Json, IntegersNeedIntegerTokensThatFit) {
  for (const char* token : {"2.0", "2e0", "-1", "-0", "18446744073709551616", "1e30", "true", "\"2\"", "null", "[2]"}) {
    JsonValue value = parse_json("{\"a\":"s + token + "}", "f")["a"];
    EXPECT_HAS(message_of([&] { value.unsigned_integer(); }), "f: /a: expected an integer from 0 to ");
    EXPECT_HAS(message_of([&] { value.integer(0, 10); }), "f: /a: expected an integer from 0 to 10, found ");
  }
  auto value = [](const char* token) { return parse_json(token, "f"); };
  EXPECT_EQ(value("18446744073709551615").unsigned_integer(), std::numeric_limits<uint64_t>::max());
  EXPECT_HAS(message_of([&] { value("11").unsigned_integer(10); }), "from 0 to 10, found 11");
  EXPECT_EQ(value("-9223372036854775808").integer(), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(value("9223372036854775807").integer(), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(value("-3").integer(-3, -2), -3);
  for (const char* token : {"9223372036854775808", "18446744073709551615", "-9223372036854775809", "1.5"})
    message_of([&] { value(token).integer(); });
  for (const char* token : {"-4", "-1", "0", "7", "18446744073709551613"})
    message_of([&] { value(token).integer(-3, -2); });
  message_of([&] { value("4").integer(5, 10); });
  EXPECT_EQ(value("7").integer(5, 10), 7);
}

TEST(Json, AccessIsStrictAndSaysWhere) {
  JsonValue root = parse_json(R"({"a":{"b":[1,{"c":"x"}]},"n":null,"t":true,"f":2.5,"i":3})", "model/config.json");
  EXPECT_EQ(root["a"]["b"][1]["c"].string(), "x");
  EXPECT_EQ(root["f"].number(), 2.5);
  EXPECT_EQ(root["i"].number(), 3.0);
  EXPECT_TRUE(root["t"].boolean());
  EXPECT_TRUE(root.find("n")->is_null());
  EXPECT_FALSE(root.find("nothing"));
  EXPECT_EQ(root.keys(), (std::vector<std::string>{"a", "f", "i", "n", "t"}));

  auto message = [](auto f) { return message_of(f); };
  EXPECT_EQ(message([&] { root["zz"]; }), "model/config.json: the key \"zz\" is missing");
  EXPECT_EQ(message([&] { root["a"]["zz"]; }), "model/config.json: /a: the key \"zz\" is missing");
  EXPECT_EQ(message([&] { root["a"]["b"][2]; }), "model/config.json: /a/b: expected more than 2 elements, found 2");
  EXPECT_EQ(message([&] { root["a"]["b"][1].string(); }),
            "model/config.json: /a/b/1: expected a string, found an object");
  EXPECT_EQ(message([&] { root["a"]["b"]["c"]; }), "model/config.json: /a/b: expected an object, found an array");
  EXPECT_EQ(message([&] { root["t"][0]; }), "model/config.json: /t: expected an array, found true");
  EXPECT_EQ(message([&] { root["t"].number(); }), "model/config.json: /t: expected a number, found true");
  EXPECT_EQ(message([&] { root["i"].boolean(); }), "model/config.json: /i: expected true or false, found 3");
  EXPECT_EQ(message([&] { root["n"].string(); }), "model/config.json: /n: expected a string, found null");
  message([&] { root["n"].keys(); });
  message([&] { root["n"].find("a"); });
}

TEST(Json, ValuesKeepTheDocumentAlive) {
  std::optional<JsonValue> value = parse_json("{\"a\":[1,2,\"three\"]}", "f")["a"][2];
  EXPECT_EQ(value->string(), "three");
}

TEST(Json, MessagesStayShortAndPrintable) {
  std::string key(1000000, 'k');
  std::string text = "{\"" + key + "\":{\"\\u001b[2J\":\"" + std::string(1000000, 'v') + "\"}}";
  JsonValue value = parse_json(text, "f")[key]["\x1b[2J"];
  std::string message = message_of([&] { value.number(); });
  EXPECT_LT(message.size(), 500u);
  EXPECT_EQ(message.find('\x1b'), std::string::npos) << message;
  EXPECT_HAS(message, "\\u001b[2J");

  // A control sequence of one character beyond ASCII.
  EXPECT_HAS(message_of([&] { parse_json("{}", "f")["\u009b2J"]; }), "the key \"\\u009b2J\" is missing");

  std::string deep = "1";
  for (int i = 0; i < 60; ++i) deep = "{\"" + std::string(70, 'd') + "\":" + deep + "}";
  std::optional<JsonValue> inner = parse_json(deep, "f");
  for (int i = 0; i < 60; ++i) inner = (*inner)[std::string(70, 'd')];
  EXPECT_LT(message_of([&] { inner->string(); }).size(), 500u);
}

TEST(Json, FloatsAreShortestAndLookLikeFloats) {
  EXPECT_EQ(json_number(1.0), "1.0");
  EXPECT_EQ(json_number(-0.0), "-0.0");
  EXPECT_EQ(json_number(1e-5), "1e-05");
  EXPECT_EQ(json_number(0.1), "0.1");
  EXPECT_EQ(json_number(1e22), "1e+22");
  EXPECT_EQ(json_number(123456789.0), "123456789.0");
  for (double x : {1e-5, 1.0 / 3, 5e-324, 1.7976931348623157e308, 9007199254740993.0, 1e16, 1e15}) {
    JsonValue back = parse_json(json_number(x), "f");
    EXPECT_EQ(back.number(), x);
    EXPECT_TRUE(back.json().is_number_float()) << json_number(x);
    EXPECT_EQ(parse_json(to_json_text(Json(x)), "f").number(), x);
  }
  EXPECT_EQ(to_json_text(Json(1.0)), "1.0");
}

TEST(Json, WritesNoNumberThatIsNone) {
  double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
  for (double x : {nan, infinity, -infinity}) {
    EXPECT_HAS(message_of<Error>([&] { json_number(x); }), "only finite numbers");
    EXPECT_HAS(message_of<Error>([&] { to_json_text(Json{{"a", {1, x}}}); }), "only finite numbers");
    EXPECT_HAS(message_of<Error>([&] { to_json_text(OrderedJson{{"a", {1, x}}}, 2); }), "only finite numbers");
  }
}

TEST(Json, WritesTextAndKeepsOrder) {
  EXPECT_EQ(json_string("a\"\\\n\x01é"), "\"a\\\"\\\\\\n\\u0001é\"");
  EXPECT_HAS(message_of<Error>([] { json_string("\xFF"); }), "not UTF-8");
  OrderedJson ordered{{"z", 1}, {"a", 2.0}};
  EXPECT_EQ(to_json_text(ordered), "{\"z\":1,\"a\":2.0}");
  EXPECT_EQ(to_json_text(ordered, 2), "{\n  \"z\": 1,\n  \"a\": 2.0\n}");
  EXPECT_EQ(to_json_text(Json{{"z", 1}, {"a", 2.0}}), "{\"a\":2.0,\"z\":1}");
}

TEST(Json, ReadsFiles) {
  rapt_test::TempFolder folder;
  rapt_test::put(folder / "a.json", "{\"a\": 1}\n");
  std::string path = (folder / "a.json").string();
  EXPECT_EQ(read_json(path)["a"].integer(), 1);
  EXPECT_HAS(message_of([&] { read_json(path, 5); }), "has 9 bytes, at most 5");
  EXPECT_HAS(message_of([&] { read_json(path + "x"); }), "a.jsonx: can't open the file: No such file");
  EXPECT_HAS(message_of([&] { read_json(folder.path.string()); }), "found a folder");
  rapt_test::put(folder / "empty.json", "");
  EXPECT_HAS(message_of([&] { read_json((folder / "empty.json").string()); }), "invalid JSON at byte 0");
}

}  // namespace
}  // namespace rapt

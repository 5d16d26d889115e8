#include <gtest/gtest.h>
#include <rapt/core/view.h>
#include <rapt/data/formats/half.h>
#include <rapt/data/formats/safetensors.h>

#include <cmath>
#include <cstring>
#include <deque>
#include <limits>
#include <utility>

#include "files.h"

namespace rapt {
namespace {

using namespace rapt_test;
using namespace std::string_literals;

std::string file_of(const std::string& header, const std::string& data = "") {
  uint64_t n = header.size();
  return std::string(reinterpret_cast<const char*>(&n), 8) + header + data;
}

std::string file_with_length(uint64_t n, const std::string& rest) {
  return std::string(reinterpret_cast<const char*>(&n), 8) + rest;
}

// One tensor "a"; `fields` replaces its description.
std::string file_with(const std::string& fields, size_t bytes) {
  return file_of("{\"a\":{" + fields + "}}", std::string(bytes, '\0'));
}

Safetensors parse(std::string bytes) {
  static std::deque<std::string> kept;  // a parsed file looks into its bytes
  const std::string& file = kept.emplace_back(std::move(bytes));
  return Safetensors::parse(std::as_bytes(std::span(file)), "model.safetensors");
}

TEST(Safetensors, RejectsMalformedFiles) {
  const std::string big = "9223372036854775807";
  struct Row {
    std::string file, message;
  } rows[] = {
      // 1–3: lengths
      {"", "header too small: expected at least 8 bytes, found 0"},
      {"1234567", "header too small: expected at least 8 bytes, found 7"},
      {file_with_length(100'000'001, "{}"), "header too large: expected at most 100000000 bytes, found 100000001"},
      {file_with_length(~uint64_t{0}, "{}"), "header too large"},
      {file_with_length(~uint64_t{0} - 7, "{}"), "header too large"},
      {file_with_length(3, "{}"), "invalid header length: 3 bytes according to byte 0, but only 2 follow"},
      {file_with_length(100'000'000, "{}"), "invalid header length"},
      // 4: text
      {file_of("{\"\xFF\":1}"), "header: invalid UTF-8 at byte 2"},
      {file_of("\xEF\xBB\xBF{}"), "header: begins with a byte order mark"},
      // 5: one object, then spaces
      {file_of(""), "header: invalid JSON: expected an object, found nothing"},
      {file_of("    "), "header: invalid JSON: expected an object, found nothing"},
      {file_of("[]"), "header: expected an object"},
      {file_of("null"), "header: expected an object"},
      {file_of("{}\n"), "header: trailing characters: expected only spaces after the object, found \"\\n\""},
      {file_of("{}\t  "), "header: trailing characters"},
      {file_of("{}\0"s), "header: invalid JSON at byte 2: a NUL"},
      {file_of("{} {}"), "header: invalid JSON at byte 3"},
      {file_of("{\"a\":"), "header: invalid JSON at byte"},
      {file_of("{\"a\":" + std::string(70, '[') + std::string(70, ']') + "}"), "header: JSON nested too deeply"},
      // 6: from the first byte
      {file_of(" {}"), "header: expected an object that begins at byte 8 with '{', found \" \""},
      {file_of("\n{}"), "header: expected an object that begins at byte 8 with '{', found \"\\n\""},
      // 7: fields missing or of another type
      {file_with(R"("shape":[1],"data_offsets":[0,4])", 4), "header: /a: the key \"dtype\" is missing"},
      {file_with(R"("dtype":"F32","data_offsets":[0,4])", 4), "header: /a: the key \"shape\" is missing"},
      {file_with(R"("dtype":"F32","shape":[1])", 4), "header: /a: the key \"data_offsets\" is missing"},
      {file_with(R"("dtype":32,"shape":[1],"data_offsets":[0,4])", 4), "/a/dtype: expected a string, found 32"},
      {file_with(R"("dtype":"F32","shape":1,"data_offsets":[0,4])", 4), "/a/shape: expected an array, found 1"},
      {file_with(R"("dtype":"F32","shape":null,"data_offsets":[0,4])", 4), "/a/shape: expected an array, found null"},
      {file_with(R"("dtype":"F32","shape":[1],"data_offsets":{"0":0,"1":4})", 4), "/a/data_offsets: expected an array"},
      {file_of("{\"a\":[]}"), "/a: expected an object, found an array"},
      {file_of("{\"a\":null}"), "/a: expected an object, found null"},
      // 8: their values
      {file_with(R"("dtype":"f32","shape":[1],"data_offsets":[0,4])", 4), "/a/dtype: expected a known dtype"},
      {file_with(R"("dtype":"F31","shape":[1],"data_offsets":[0,4])", 4), "/a/dtype: expected a known dtype"},
      {file_with(R"("dtype":"","shape":[1],"data_offsets":[0,4])", 4), "/a/dtype: expected a known dtype"},
      {file_with(R"("dtype":"F32","shape":[1],"data_offsets":[0])", 4), "/a/data_offsets: expected two numbers"},
      {file_with(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,4])", 4), "/a/data_offsets: expected two numbers"},
      {file_with(R"("dtype":"F32","shape":[1],"data_offsets":[0,-4])", 4), "/a/data_offsets/1: expected an integer"},
      {file_with(R"("dtype":"F32","shape":[1],"data_offsets":[0,4.0])", 4), "/a/data_offsets/1: expected an integer"},
      {file_with(R"("dtype":"F32","shape":[1],"data_offsets":[-0,4])", 4),
       "/a/data_offsets/0: expected an integer from 0 to 18446744073709551615, found -0"},
      {file_with(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])", 8), "/a/shape/0: expected an integer"},
      {file_with(R"("dtype":"F32","shape":[2e0],"data_offsets":[0,8])", 8), "/a/shape/0: expected an integer"},
      {file_with(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])", 4), "/a/shape/0: expected an integer"},
      {file_with(R"("dtype":"F32","shape":[true],"data_offsets":[0,4])", 4), "/a/shape/0: expected an integer"},
      {file_with(R"("dtype":"F32","shape":["1"],"data_offsets":[0,4])", 4), "/a/shape/0: expected an integer"},
      {file_with(R"("dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4])", 4),
       "/a/shape/0: expected an integer"},
      {file_with(R"("dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551617])", 4),
       "/a/data_offsets/1: expected an integer"},
      // 9: metadata
      {file_of(R"({"__metadata__":{"a":1}})"), "/__metadata__/a: expected a string, found 1"},
      {file_of(R"({"__metadata__":{"a":null}})"), "/__metadata__/a: expected a string, found null"},
      {file_of(R"({"__metadata__":{"a":{"b":"c"}}})"), "/__metadata__/a: expected a string, found an object"},
      {file_of(R"({"__metadata__":null})"), "/__metadata__: expected an object, found null"},
      {file_of(R"({"__metadata__":[]})"), "/__metadata__: expected an object, found an array"},
      // 10: twice
      {file_of(
           R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
           "x"),
       "header: the key \"a\" comes twice"},
      {file_of(
           R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
           "xy"),
       "header: the key \"a\" comes twice"},
      {file_with(R"("dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1])", 1), "the key \"dtype\" comes twice"},
      {file_of(R"({"__metadata__":{},"__metadata__":{}})"), "the key \"__metadata__\" comes twice"},
      {file_of(R"({"__metadata__":{"k":"1","k":"1"}})"), "the key \"k\" comes twice"},
      // 11: holes and overlaps
      {file_with(R"("dtype":"U8","shape":[1],"data_offsets":[1,2])", 2),
       "tensor \"a\": invalid offset: expected data that begins at 0, where the tensor before ends, found [1, 2]"},
      {file_of(
           R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
           "xyz"),
       "tensor \"b\": invalid offset: expected data that begins at 1"},
      {file_of(
           R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
           "xyz"),
       "tensor \"b\": invalid offset: expected data that begins at 2"},
      {file_of(
           R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
           "xy"),
       "tensor \"b\": invalid offset: expected data that begins at 2"},
      {file_of(
           R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,1]}})",
           "xy"),
       "tensor \"b\": invalid offset"},
      {file_with(R"("dtype":"U8","shape":[0],"data_offsets":[18446744073709551615,18446744073709551615])", 0),
       "tensor \"a\": invalid offset"},
      // 12: overflow
      {file_with(R"("dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,0])", 0),
       "/a/shape/0: overflow: expected a size of at most 2^63 - 1, found 9223372036854775808"},
      {file_with(R"("dtype":"U8","shape":[0,9223372036854775808,9223372036854775808],"data_offsets":[0,0])", 0),
       "/a/shape/1: overflow"},
      {file_with(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0])", 0),
       "tensor \"a\": overflow: U8 of shape [4294967296,4294967296] is too large"},
      {file_with(R"("dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0])", 0), "tensor \"a\": overflow"},
      {file_with(R"("dtype":"F32","shape":[)" + big + "," + big + R"(],"data_offsets":[0,0])", 0), "overflow"},
      {file_with(R"("dtype":"F32","shape":[0,)" + big + "," + big + R"(],"data_offsets":[0,0])", 0), "overflow"},
      // 13: less than a byte
      {file_with(R"("dtype":"F4","shape":[3],"data_offsets":[0,1])", 1),
       "tensor \"a\": F4 of shape [3] takes 12 bits, which does not end on a byte"},
      {file_with(R"("dtype":"F6_E2M3","shape":[2],"data_offsets":[0,2])", 2), "takes 12 bits"},
      // 14: shape and offsets disagree
      {file_with(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])", 4),
       "tensor \"a\": invalid shape, dtype, or offset: F32 of shape [2] takes 8 bytes, but the offsets [0, 4] hold 4"},
      {file_with(R"("dtype":"F32","shape":[],"data_offsets":[0,8])", 8),
       "takes 4 bytes, but the offsets [0, 8] hold 8"},
      {file_with(R"("dtype":"F32","shape":[0],"data_offsets":[0,4])", 4), "takes 0 bytes"},
      {file_with(R"("dtype":"U8","shape":[1],"data_offsets":[0,18446744073709551615])", 1), "takes 1 bytes"},
      // 15: the end
      {file_with(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])", 7),
       "file not fully covered: expected 8 bytes of data according to the header, found 7: truncated?"},
      {file_with(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])", 9),
       "file not fully covered: expected 8 bytes of data according to the header, found 9: something was appended"},
      {file_of("{}", "x"), "file not fully covered: expected 0 bytes of data"},
      {file_with(R"("dtype":"U8","shape":[1152921504606846975],"data_offsets":[0,1152921504606846975])", 3),
       "file not fully covered"},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.file.size() > 8 ? row.file.substr(8, 120) : row.file);
    std::string message = message_of([&] { parse(row.file); });
    EXPECT_EQ(message.rfind("model.safetensors: ", 0), 0u) << message;
    EXPECT_HAS(message, row.message);
  }
}

TEST(Safetensors, AcceptsOddFiles) {
  EXPECT_EQ(parse(file_of("{}")).tensors().size(), 0u);
  EXPECT_EQ(parse(file_of("{}     ")).tensors().size(), 0u);  // any N
  EXPECT_EQ(parse(file_of("{ \n\t\"__metadata__\" : { } }")).metadata().size(), 0u);

  // Rank 0, at an unaligned place, under the empty name.
  Safetensors one = parse(file_of(R"({"":{"dtype":"F32","shape":[],"data_offsets":[0,4]}} )", "\0\0\xC0\x3F"s));
  EXPECT_EQ(one.tensor("").item(), 1.5f);
  EXPECT_EQ(one.tensor("").rank(), 0);

  // Dimensions of size 0, also between two others at equal offsets; any order of the header; unknown fields.
  Safetensors file = parse(file_of(
      R"({"z":{"data_offsets":[3,5],"note":{"deep":[1,{"a":null}]},"dtype":"F16","shape":[1,1]},"e":{"dtype":"F32","shape":[3,0,2],"data_offsets":[3,3]},)"
      R"("a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"d":{"dtype":"F64","shape":[0],"data_offsets":[0,0]},"f":{"dtype":"I8","shape":[0],"data_offsets":[5,5]}})",
      "\1\2\xFF\0\x3C"s));
  ASSERT_EQ(file.tensors().size(), 5u);
  EXPECT_EQ(file.tensors()[0].name, "d");
  EXPECT_EQ(file.tensors()[1].name, "a");
  EXPECT_EQ(file.tensors()[2].name, "e");
  EXPECT_EQ(file.tensors()[3].name, "z");
  EXPECT_EQ(file.tensors()[4].name, "f");
  EXPECT_EQ(file.integers("a"), (std::vector<int64_t>{1, 2, 255}));
  EXPECT_EQ(file.tensor("e").shape, (Shape{3, 0, 2}));
  EXPECT_EQ(file.tensor("z").item(), 1.0f);
  EXPECT_EQ(file.find("nothing"), nullptr);
  EXPECT_EQ(message_of([&] { file.at("nothing"); }), "model.safetensors: there is no tensor \"nothing\"");
  EXPECT_EQ(message_of([&] { file.tensor("nothing"); }), "model.safetensors: there is no tensor \"nothing\"");

  // Sub-byte types are measured in bits.
  EXPECT_EQ(parse(file_with(R"("dtype":"F4","shape":[3,2],"data_offsets":[0,3])", 3)).at("a").bytes.size(), 3u);
  EXPECT_EQ(parse(file_with(R"("dtype":"F6_E3M2","shape":[4],"data_offsets":[0,3])", 3)).at("a").bytes.size(), 3u);

  // NaN and infinities are data; BOOL is whatever is not 0.
  Safetensors special = parse(file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                                      R"("b":{"dtype":"BOOL","shape":[4],"data_offsets":[8,12]}})",
                                      "\0\0\xC0\x7F\0\0\x80\xFF\0\1\2\xFF"s));
  EXPECT_TRUE(std::isnan(special.tensor("a").at({0})));
  EXPECT_EQ(special.tensor("a").at({1}), -std::numeric_limits<Real>::infinity());
  EXPECT_EQ(special.integers("b"), (std::vector<int64_t>{0, 1, 1, 1}));
}

TEST(Safetensors, ValidButNotSupported) {
  for (const char* dtype : {"I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "BOOL", "U8"}) {
    Safetensors file = parse(file_with("\"dtype\":\""s + dtype + R"(","shape":[8],"data_offsets":[0,8])", 8));
    EXPECT_HAS(message_of([&] { file.tensor("a"); }),
               "model.safetensors: tensor \"a\": dtype "s + dtype + " is valid but not supported");
  }
  for (const char* dtype : {"F64", "U64", "C64"}) {
    Safetensors file = parse(file_with("\"dtype\":\""s + dtype + R"(","shape":[1],"data_offsets":[0,8])", 8));
    EXPECT_HAS(message_of([&] { file.integers("a"); }), "dtype "s + dtype + " is valid but not supported");
  }
  Safetensors file = parse(file_with(R"("dtype":"F32","shape":[1,1,1,1,1,1,1],"data_offsets":[0,4])", 4));
  EXPECT_HAS(message_of([&] { file.tensor("a"); }), "7 dimensions are valid but not supported, expected at most 6");
}

TEST(Safetensors, WritesAKnownFile) {
  TempFolder folder;
  Tensor w = from_values({2, 1}, {1.5, -2.0});
  std::vector<int64_t> steps = {7};
  write_safetensors(folder / "a.safetensors",
                    {tensor_view("text", "hi!"), tensor_view("w", w), tensor_view("i", steps)},
                    {{"format", "pt"}, {"a\"b", "é\n"}});
  std::string header =
      R"({"__metadata__":{"a\"b":"é\n","format":"pt"},"i":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
      R"("w":{"dtype":"F32","shape":[2,1],"data_offsets":[8,16]},"text":{"dtype":"U8","shape":[3],"data_offsets":[16,19]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  EXPECT_EQ(contents(folder / "a.safetensors"), file_of(header, "\7\0\0\0\0\0\0\0\0\0\xC0\x3F\0\0\0\xC0hi!"s));
}

TEST(Safetensors, SameTensorsSameBytes) {
  TempFolder folder;
  Tensor a = from_values({3}, {1, 2, 3}), b = from_values({1, 2}, {4, 5});
  std::vector<int64_t> c = {1, -2};
  write_safetensors(folder / "1", {tensor_view("a", a), tensor_view("b", b), tensor_view("c", c)}, {{"k", "v"}});
  write_safetensors(folder / "2", {tensor_view("c", c), tensor_view("b", b), tensor_view("a", a)}, {{"k", "v"}});
  EXPECT_EQ(contents(folder / "1"), contents(folder / "2"));

  Safetensors file = Safetensors::open(folder / "1");
  write_safetensors(folder / "3", file.tensors(), file.metadata());
  EXPECT_EQ(contents(folder / "1"), contents(folder / "3"));
  write_safetensors(folder / "1", file.tensors(), file.metadata());  // onto the file that is being read
  EXPECT_EQ(contents(folder / "1"), contents(folder / "3"));
  EXPECT_EQ(file.tensor("a").to_vector(), a.to_vector());

  write_safetensors(folder / "none", {});
  EXPECT_EQ(contents(folder / "none"), file_of("{}      "));
}

TEST(Safetensors, RoundTripsEveryDtype) {
  TempFolder folder;
  std::string raw(48, '\0');
  for (size_t i = 0; i < raw.size(); ++i) raw[i] = char(i * 37 + 11);
  std::vector<TensorView> views;
  for (int d = 0; d <= int(Dtype::kC64); ++d) {
    Dtype dtype = Dtype(d);
    int64_t elements = 48 * 8 / bits_of(dtype);
    views.push_back({"x " + std::string(name_of(dtype)), dtype, {2, elements / 2}, std::as_bytes(std::span(raw))});
  }
  views.push_back({"scalar", Dtype::kF64, {}, std::as_bytes(std::span(raw)).first(8)});
  views.push_back({"empty", Dtype::kBF16, {4, 0}, {}});
  views.push_back({"é\"\\\n", Dtype::kU8, {48}, std::as_bytes(std::span(raw))});
  write_safetensors(folder / "all", views, {});
  Safetensors file = Safetensors::open(folder / "all");
  ASSERT_EQ(file.tensors().size(), views.size());
  EXPECT_EQ(file.header().size() % 8, 0u);
  int bits = 64;
  for (const TensorView& t : file.tensors()) {
    EXPECT_LE(bits_of(t.dtype), bits);
    bits = bits_of(t.dtype);
  }
  for (const TensorView& v : views) {
    const TensorView& t = file.at(v.name);
    EXPECT_EQ(t.dtype, v.dtype);
    EXPECT_EQ(t.shape, v.shape);
    EXPECT_EQ(bytes_of(t), bytes_of(v));
  }
}

TEST(Safetensors, ConvertsToAndFromReal) {
  TempFolder folder;
  std::vector<double> values = {0.0, -0.0, 1.0, -1.5, 65504.0, 0.25, 1e-3, 3e38};
  Tensor x = empty({2, 4});
  for (int64_t i = 0; i < 8; ++i) x.mutable_data()[i] = Real(values[size_t(i)]);
  std::vector<TensorView> views;
  std::vector<std::vector<std::byte>> encoded;
  for (Dtype dtype : {Dtype::kF32, Dtype::kF64, Dtype::kF16, Dtype::kBF16}) {
    encoded.push_back(encode(x, dtype));
    views.push_back({std::string(name_of(dtype)), dtype, {2, 4}, encoded.back()});
  }
  write_safetensors(folder / "x", views);
  Safetensors file = Safetensors::open(folder / "x");
  for (int pass = 0; pass < 2; ++pass)  // the second time after the memory was let go
    for (int64_t i = 0; i < 8; ++i) {
      Real v = x.data()[i];
      EXPECT_EQ(file.tensor("F32").data()[i], v);
      EXPECT_EQ(file.tensor("F64").data()[i], v);
      EXPECT_EQ(file.tensor("F16").data()[i], half_to_float(float_to_half(float(v))));
      EXPECT_EQ(file.tensor("BF16").data()[i], bfloat16_to_float(float_to_bfloat16(float(v))));
    }
  EXPECT_EQ(file.tensor("F16").shape, (Shape{2, 4}));
  EXPECT_EQ(file.tensor("F16").at({1, 0}), 65504.0f);
  EXPECT_EQ(file.tensor("F16").at({1, 3}), std::numeric_limits<Real>::infinity());

  // What is not contiguous is written as it looks.
  Tensor t = view::transpose(x, 0, 1);
  EXPECT_HAS(message_of<Error>([&] { tensor_view("t", t); }), "contiguous");
  EXPECT_HAS(message_of<Error>([&] { tensor_view("t", Tensor()); }), "must hold numbers");
  std::vector<std::byte> transposed = encode(t, Dtype::kF32);
  float second;
  std::memcpy(&second, transposed.data() + 4, 4);
  EXPECT_EQ(second, 65504.0f);
  EXPECT_HAS(message_of<Error>([&] { encode(x, Dtype::kI32); }), "can't encode as I32");
}

// Larger than the pieces it is read in, behind an odd number of bytes.
TEST(Safetensors, ReadsLargeTensors) {
  TempFolder folder;
  int64_t n = 3'000'001;
  std::string bytes(size_t(n) * 2, '\0');
  for (int64_t i = 0; i < n; ++i) {
    uint16_t half = uint16_t(i * 7 % 0x7C00);
    std::memcpy(bytes.data() + i * 2, &half, 2);
  }
  put(folder / "a", file_of(fmt::format(R"({{"odd":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}},)"
                                        R"("a":{{"dtype":"F16","shape":[{}],"data_offsets":[1,{}]}}}})",
                                        n, n * 2 + 1),
                            "x" + bytes));
  Tensor a = Safetensors::open(folder / "a").tensor("a");
  for (int64_t i = 0; i < n; ++i) ASSERT_EQ(a.data()[i], half_to_float(uint16_t(i * 7 % 0x7C00))) << i;
}

TEST(Safetensors, ReadsIntegers) {
  std::string data = "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\2\0\0\0\0\0\0\x80\xFE\xFF\xFF\xFF\x80"s;
  Safetensors file = parse(file_of(R"({"i64":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},)"
                                   R"("i32":{"dtype":"I32","shape":[1],"data_offsets":[16,20]},)"
                                   R"("u8":{"dtype":"U8","shape":[1],"data_offsets":[20,21]}})",
                                   data));
  EXPECT_EQ(file.integers("i64"), (std::vector<int64_t>{-1, std::numeric_limits<int64_t>::min() + 2}));
  EXPECT_EQ(file.integers("i32"), (std::vector<int64_t>{-2}));
  EXPECT_EQ(file.integers("u8"), (std::vector<int64_t>{128}));
}

TEST(Safetensors, WriterRefusesWhatCannotBeRead) {
  TempFolder folder;
  std::string four = "1234";
  auto refuse = [&](std::vector<TensorView> views, const Metadata& metadata, const char* part) {
    EXPECT_HAS(message_of<Error>([&] { write_safetensors(folder / "a", views, metadata); }), part);
  };
  auto bytes = std::as_bytes(std::span(four));
  refuse({tensor_view("a", four), tensor_view("a", four)}, {}, "two tensors have the name \"a\"");
  refuse({{"a", Dtype::kF32, {1}, bytes}, tensor_view("a", four)}, {}, "two tensors have the name \"a\"");
  refuse({tensor_view("__metadata__", four)}, {}, "no tensor can have the name");
  refuse({{"a", Dtype::kF32, {2}, bytes}}, {}, "\"a\" has 4 bytes, but is F32 of shape [2]");
  refuse({{"a", Dtype::kU8, {-2, -2}, bytes}}, {}, "has 4 bytes");
  refuse({{"a", Dtype::kU8, {int64_t{1} << 62, 4, 4}, {}}}, {}, "has 0 bytes");
  refuse({{"a", Dtype::kF4, {9}, bytes}}, {}, "has 4 bytes");
  refuse({tensor_view("\xFF", four)}, {}, "not UTF-8");
  refuse({}, {{"a", "\xFF"}}, "not UTF-8");
  refuse({}, {{"a", std::string(100'000'000, 'x')}}, "the header takes 100000");
  EXPECT_TRUE(folder.names().empty());
}

TEST(Safetensors, TruncatedAnywhere) {
  TempFolder folder;
  Tensor w = from_values({2}, {1, 2});
  write_safetensors(folder / "a", {tensor_view("w", w)}, {{"k", "v"}});
  std::string all = contents(folder / "a");
  for (size_t n = 0; n < all.size(); ++n) message_of([&] { parse(all.substr(0, n)); });
  EXPECT_EQ(parse(all).tensor("w").to_vector(), w.to_vector());
}

TEST(Safetensors, CopiesShareTheFile) {
  TempFolder folder;
  Tensor w = from_values({2}, {1, 2});
  write_safetensors(folder / "a", {tensor_view("w", w)});
  Safetensors copy;
  {
    Safetensors file = Safetensors::open(folder / "a");
    copy = file;
  }
  EXPECT_EQ(copy.tensor("w").to_vector(), w.to_vector());
  EXPECT_EQ(copy.name(), (folder / "a").string());
  EXPECT_HAS(message_of([&] { Safetensors::open(folder / "b"); }), "b: can't open the file");
}

}  // namespace
}  // namespace rapt

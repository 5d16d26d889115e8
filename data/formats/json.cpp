#include "json.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "../text.h"
#include "mapped_file.h"

namespace rapt::inline RAPT_ABI {

namespace {

constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxPath = 200;  // bytes of a path in a message

// Cuts a text for a message, never inside a character.
std::string shortened(std::string text, size_t most) {
  if (text.size() <= most) return text;
  while (most > 0 && (uint8_t(text[most]) & 0xC0) == 0x80) --most;
  return text.substr(0, most) + "…";
}

std::string described(const Json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  if (value.is_string()) return quoted_name(value.get_ref<const std::string&>());
  if (value.is_number_integer() && !value.is_number_unsigned() && value == 0) return "-0";
  return value.dump();
}

// Watches a parse go by and finds what the library itself lets pass: a key that comes twice, and deep nesting. (The
// library's own parser callback would do, but takes quadratic time for an object of many objects.)
struct StrictCheck : nlohmann::json_sax<Json> {
  const std::string& file;
  std::vector<std::unordered_set<std::string>> open;  // the keys so far of each open object; empty for an array

  explicit StrictCheck(const std::string& name) : file(name) {}

  bool deeper() {
    check<DataError>(open.size() < kMaxDepth, "{}: JSON nested too deeply: at most {} levels are allowed", file,
                     kMaxDepth);
    open.emplace_back();
    return true;
  }
  bool start_object(size_t) override { return deeper(); }
  bool start_array(size_t) override { return deeper(); }
  bool end_object() override { return open.pop_back(), true; }
  bool end_array() override { return open.pop_back(), true; }
  bool key(std::string& key) override {
    check<DataError>(open.back().insert(key).second, "{}: the key {} comes twice in the same object", file,
                     quoted_name(key));
    return true;
  }
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(int64_t) override { return true; }
  bool number_unsigned(uint64_t) override { return true; }
  bool number_float(double, const std::string&) override { return true; }
  bool string(std::string&) override { return true; }
  bool binary(Json::binary_t&) override { return true; }
  bool parse_error(size_t position, const std::string&, const Json::exception& e) override {
    std::string what = e.what();  // "[json.exception.parse_error.101] parse error at line 1, column 5: …"
    size_t text = what.find("] ");
    if (text != std::string::npos) what.erase(0, text + 2);
    throw DataError(fmt::format("{}: invalid JSON at byte {}: {}", file, position > 0 ? position - 1 : 0,
                                shortened(std::move(what), 200)));
  }
};

// NaN and infinities would become null.
template <class AnyJson>
void check_finite(const AnyJson& value) {
  if (value.is_structured())
    for (const auto& child : value) check_finite(child);
  else if (value.is_number_float())
    check(std::isfinite(value.template get<double>()), "json: can't write {}, only finite numbers",
          value.template get<double>());
}

template <class AnyJson>
std::string dumped(const AnyJson& value, int indent) {
  check_finite(value);
  try {
    return value.dump(indent);
  } catch (const Json::type_error&) {
    throw Error("json: can't write text that is not UTF-8");
  }
}

}  // namespace

JsonValue::JsonValue(std::shared_ptr<const Json> value, std::string file, std::string path)
    : value_(std::move(value)), file_(std::move(file)), path_(std::move(path)) {}

bool JsonValue::is_null() const { return value_->is_null(); }
bool JsonValue::is_object() const { return value_->is_object(); }
bool JsonValue::is_array() const { return value_->is_array(); }
bool JsonValue::is_string() const { return value_->is_string(); }
bool JsonValue::is_number() const { return value_->is_number(); }
bool JsonValue::is_boolean() const { return value_->is_boolean(); }

std::string JsonValue::where() const { return path_.empty() ? file_ : file_ + ": " + path_; }

void JsonValue::fail(std::string_view expected) const {
  throw DataError(fmt::format("{}: expected {}, found {}", where(), expected, described(*value_)));
}

std::optional<JsonValue> JsonValue::find(std::string_view key) const {
  if (!is_object()) fail("an object");
  auto it = value_->find(key);
  if (it == value_->end()) return std::nullopt;
  std::string name = quoted_name(key);
  std::string path = path_ + "/" + name.substr(1, name.size() - 2);
  return JsonValue({value_, &*it}, file_, shortened(std::move(path), kMaxPath));
}

JsonValue JsonValue::operator[](std::string_view key) const {
  auto member = find(key);
  check<DataError>(member.has_value(), "{}: the key {} is missing", where(), quoted_name(key));
  return *std::move(member);
}

std::vector<std::string> JsonValue::keys() const {
  if (!is_object()) fail("an object");
  std::vector<std::string> names;
  names.reserve(value_->size());
  for (auto it = value_->begin(); it != value_->end(); ++it) names.push_back(it.key());
  return names;
}

size_t JsonValue::size() const {
  if (!is_array()) fail("an array");
  return value_->size();
}

JsonValue JsonValue::operator[](size_t index) const {
  check<DataError>(index < size(), "{}: expected more than {} elements, found {}", where(), index, size());
  return JsonValue({value_, &(*value_)[index]}, file_, shortened(fmt::format("{}/{}", path_, index), kMaxPath));
}

int64_t JsonValue::integer(int64_t least, int64_t most) const {
  // An unsigned token above 2^63-1 must not wrap, and "-0" is no natural number.
  bool fits = value_->is_number_unsigned() ? value_->get<uint64_t>() <= uint64_t(std::numeric_limits<int64_t>::max())
                                           : value_->is_number_integer() && least < 0;
  if (!fits || value_->get<int64_t>() < least || value_->get<int64_t>() > most)
    fail(fmt::format("an integer from {} to {}", least, most));
  return value_->get<int64_t>();
}

uint64_t JsonValue::unsigned_integer(uint64_t most) const {
  if (!value_->is_number_unsigned() || value_->get<uint64_t>() > most)
    fail(fmt::format("an integer from 0 to {}", most));
  return value_->get<uint64_t>();
}

double JsonValue::number() const {
  if (!is_number()) fail("a number");
  return value_->get<double>();
}

bool JsonValue::boolean() const {
  if (!is_boolean()) fail("true or false");
  return value_->get<bool>();
}

const std::string& JsonValue::string() const {
  if (!is_string()) fail("a string");
  return value_->get_ref<const std::string&>();
}

JsonValue parse_json(std::string_view text, std::string file) {
  check<DataError>(!text.starts_with("\xEF\xBB\xBF"), "{}: begins with a byte order mark; JSON has none: remove it",
                   file);
  // The library takes a NUL for the end of the text, and its messages repeat bytes that are not UTF-8.
  for (size_t i = 0; i < text.size();) {
    CodePoint c = code_point_at(text, i);
    check<DataError>(bool(c), "{}: invalid UTF-8 at byte {}: JSON must be UTF-8", file, i);
    check<DataError>(c.value != 0, "{}: invalid JSON at byte {}: a NUL", file, i);
    i += size_t(c.bytes);
  }
  StrictCheck strict(file);
  Json::sax_parse(text, &strict);
  auto value = std::make_shared<const Json>(Json::parse(text));
  return JsonValue(std::move(value), std::move(file));
}

JsonValue read_json(const std::string& path, uint64_t most_bytes) {
  MappedFile file(path);
  check<DataError>(file.bytes().size() <= most_bytes, "{}: has {} bytes, at most {} are expected of it", path,
                   file.bytes().size(), most_bytes);
  return parse_json({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()}, path);
}

std::string to_json_text(const Json& value, int indent) { return dumped(value, indent); }
std::string to_json_text(const OrderedJson& value, int indent) { return dumped(value, indent); }

std::string json_number(double value) {
  check(std::isfinite(value), "json: can't write {}, only finite numbers", value);
  std::string text = fmt::format("{}", value);
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

std::string json_string(std::string_view text) { return dumped(Json(text), -1); }

std::string quoted_name(std::string_view name) {
  std::string text(name.substr(0, 400));
  text = Json(std::move(text)).dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() <= 82 ? text : shortened(text, 80) + "\"";
}

}  // namespace rapt::inline RAPT_ABI

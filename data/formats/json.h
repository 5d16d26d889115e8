#pragma once
#include <cstdint>
#include <limits>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "../../core/check.h"

namespace rapt::inline RAPT_ABI {

using Json = nlohmann::json;                 ///< keys sorted; for reading, and for large objects
using OrderedJson = nlohmann::ordered_json;  ///< keys as written, found by linear search; for small files people read

/// A value of a parsed document together with its path, so that every error says where it is. Shares the document.
/// Access is strict: what has another type, or doesn't fit, throws DataError and is never converted.
class JsonValue {
 public:
  JsonValue(std::shared_ptr<const Json> value, std::string file, std::string path = "");

  bool is_null() const;
  bool is_object() const;
  bool is_array() const;
  bool is_string() const;
  bool is_number() const;
  bool is_boolean() const;

  /// A member of an object. Throws when this is no object or has no such key.
  JsonValue operator[](std::string_view key) const;
  /// The same, or nothing when there is no such key (a null is a value). Throws when this is no object.
  std::optional<JsonValue> find(std::string_view key) const;
  /// The keys of an object, sorted by bytes. Throws when this is no object.
  std::vector<std::string> keys() const;

  /// An element of an array. Throws when this is no array or too short.
  JsonValue operator[](size_t index) const;
  /// The number of elements of an array. Throws when this is no array.
  size_t size() const;

  /// An integer token in [least, most]: 2.0, 2e0 and −0 (where least ≥ 0) are none.
  int64_t integer(int64_t least = std::numeric_limits<int64_t>::min(),
                  int64_t most = std::numeric_limits<int64_t>::max()) const;
  uint64_t unsigned_integer(uint64_t most = std::numeric_limits<uint64_t>::max()) const;
  double number() const;  ///< any number, integers too
  bool boolean() const;
  const std::string& string() const;

  /// Throws DataError naming the file, this value's path and value, and what was expected instead.
  [[noreturn]] void fail(std::string_view expected) const;

  const Json& json() const { return *value_; }
  /// "config.json: /rope_parameters/rope_theta", for messages.
  std::string where() const;

 private:
  std::shared_ptr<const Json> value_;  // owns the whole document
  std::string file_, path_;
};

/// Parses a whole JSON text (RFC 8259), strictly: UTF-8 without a byte order mark, at most 64 levels deep, no key twice
/// in one object (compared after unescaping), no lone surrogates, no NaN or Infinity, nothing but white space behind
/// it. Throws DataError that begins with `file`.
JsonValue parse_json(std::string_view text, std::string file);
/// Reads and parses a file of at most `most_bytes`.
JsonValue read_json(const std::string& path, uint64_t most_bytes = uint64_t{1} << 30);

/// JSON text of a value; `indent` < 0 puts it on one line. Throws when it holds NaN, infinities or text that is not
/// UTF-8.
std::string to_json_text(const Json& value, int indent = -1);
std::string to_json_text(const OrderedJson& value, int indent = -1);
/// The shortest decimal that reads back as the same double, always with '.' or an exponent. Throws for NaN, infinities.
std::string json_number(double value);
/// The string in quotes. Throws when it is not UTF-8.
std::string json_string(std::string_view text);

/// A name from a file as it may stand in a message: in quotes, escaped, and cut when long.
std::string quoted_name(std::string_view name);

}  // namespace rapt::inline RAPT_ABI

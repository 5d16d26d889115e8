#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "../core/check.h"

namespace rapt::inline RAPT_ABI {

/// Checked UTF-8 text: a read-only memory map of a file, or a string in memory. Copies share it.
class Text {
 public:
  Text() = default;

  /// Maps the file. Throws DataError when it is missing, unreadable, empty, no regular file, holds control characters
  /// other than tab, line feed, vertical tab, form feed and carriage return (so it is no text), or is not UTF-8. The
  /// file must not be shortened while the Text lives.
  static Text open(const std::string& path);

  /// Takes the string, under the same rules; `name` stands for the path in messages.
  static Text from_string(std::string text, std::string name = "text");

  int64_t size() const { return int64_t(view_.size()); }  ///< in bytes
  std::string_view view() const { return view_; }
  const std::string& name() const { return name_; }  ///< the path, or the name given
  uint64_t hash() const;                             ///< 64-bit FNV-1a of the bytes; reads all of them

 private:
  Text(std::shared_ptr<const void> owner, std::string_view view, std::string name);

  std::shared_ptr<const void> owner_;
  std::string_view view_;
  std::string name_;
};

/// One Unicode character of a UTF-8 text, and how many bytes it takes.
struct CodePoint {
  char32_t value = 0;
  int bytes = 0;  ///< 0: no character starts here

  explicit operator bool() const { return bytes > 0; }
};

/// The character that starts at byte `position` < text.size(). Strict: overlong forms, surrogates, values above
/// U+10FFFF and sequences that are cut off have bytes = 0.
CodePoint code_point_at(std::string_view text, size_t position);

/// Whether `bytes` could be the beginning of a character whose other bytes are yet to come.
bool begins_code_point(std::string_view bytes);

/// Appends the UTF-8 form of a code point.
void append_utf8(std::string& text, char32_t code_point);

/// Whether the number is a Unicode scalar value: at most U+10FFFF and no surrogate.
constexpr bool is_code_point(uint64_t value) { return value < 0xD800 || (value > 0xDFFF && value <= 0x10FFFF); }

/// "byte 17, line 3": where in a text a message is about; bytes count from 0, lines from 1.
std::string position_in(std::string_view text, size_t byte);

}  // namespace rapt::inline RAPT_ABI

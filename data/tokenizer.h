#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "../core/check.h"

namespace rapt::inline RAPT_ABI {

/// Turns text into token ids 0 … vocabulary_size() − 1 and back. A plain value.
///
///   bytes       every byte of the UTF-8 text is a token: 256 ids, knows every text
///   characters  the distinct Unicode characters of a text, ascending
class Tokenizer {
 public:
  Tokenizer() = default;  ///< of kind "bytes"
  static Tokenizer bytes() { return {}; }
  /// The vocabulary is the set of the text's characters. Throws DataError when it is empty or not UTF-8.
  static Tokenizer characters(std::string_view text);

  std::string kind() const { return characters_.empty() ? "bytes" : "characters"; }
  int64_t vocabulary_size() const { return characters_.empty() ? 256 : int64_t(characters_.size()); }

  /// The token ids of a text. Throws DataError that names the first character the vocabulary lacks, and where it is.
  std::vector<int32_t> encode(std::string_view text) const;
  /// The same, handed over in blocks, so that a long text needs no vector of all its ids.
  void encode(std::string_view text, const std::function<void(std::span<const int32_t>)>& sink) const;
  /// The text of the ids; of kind "bytes" it need not be UTF-8. Throws when an id is out of range.
  std::string decode(std::span<const int32_t> ids) const;
  /// How many bytes of text the token stands for, for bits per byte. Throws when the id is out of range.
  int64_t token_bytes(int32_t id) const;

  /// One line that from_string reads back: "bytes", or "characters a 20 2e 41 …" (code points, hexadecimal).
  std::string to_string() const;
  /// Throws DataError unless the string is exactly what to_string gives for some tokenizer.
  static Tokenizer from_string(std::string_view form);

  bool operator==(const Tokenizer& other) const { return characters_ == other.characters_; }

 private:
  explicit Tokenizer(std::vector<char32_t> characters);

  std::vector<char32_t> characters_;  // ascending; empty for bytes
  std::vector<int32_t> ids_;          // by code point, −1 where there is none
};

/// A tokenizer of kind "bytes" or "characters" for the text. Throws Error for any other kind.
Tokenizer make_tokenizer(std::string_view kind, std::string_view text);

/// For printing tokens as they come: holds bytes back until they are whole characters. Bytes that can't become a
/// character are replaced by U+FFFD.
class Utf8Stream {
 public:
  std::string push(std::string_view bytes);  ///< what can be printed now
  std::string finish();                      ///< U+FFFD if an unfinished character is left, else nothing

 private:
  std::string held_;
};

}  // namespace rapt::inline RAPT_ABI

#include "tokenizer.h"

#include "text.h"

namespace rapt::inline RAPT_ABI {

namespace {

constexpr char32_t kReplacement = 0xFFFD;
constexpr size_t kBlock = 4096;  // ids handed to a sink at a time

CodePoint code_point_or_throw(std::string_view text, size_t position) {
  CodePoint point = code_point_at(text, position);
  if (!point)
    throw DataError(fmt::format("tokenizer: the text is not UTF-8 at {}: no character starts with 0x{:02X}",
                                position_in(text, position), static_cast<unsigned char>(text[position])));
  return point;
}

}  // namespace

Tokenizer::Tokenizer(std::vector<char32_t> characters)
    : characters_(std::move(characters)), ids_(size_t(characters_.back()) + 1, -1) {
  for (size_t id = 0; id < characters_.size(); ++id) ids_[characters_[id]] = int32_t(id);
}

Tokenizer Tokenizer::characters(std::string_view text) {
  check<DataError>(!text.empty(), "tokenizer: an empty text has no characters to make a vocabulary of");
  std::vector<bool> seen(0x110000);
  for (size_t i = 0; i < text.size();) {
    CodePoint point = code_point_or_throw(text, i);
    seen[point.value] = true;
    i += size_t(point.bytes);
  }
  std::vector<char32_t> characters;
  for (char32_t c = 0; c < 0x110000; ++c)
    if (seen[c]) characters.push_back(c);
  return Tokenizer(std::move(characters));
}

void Tokenizer::encode(std::string_view text, const std::function<void(std::span<const int32_t>)>& sink) const {
  std::vector<int32_t> block;
  block.reserve(kBlock);
  for (size_t i = 0; i < text.size();) {
    if (characters_.empty()) {
      block.push_back(static_cast<unsigned char>(text[i]));
      ++i;
    } else {
      CodePoint point = code_point_or_throw(text, i);
      int32_t id = point.value < ids_.size() ? ids_[point.value] : -1;
      if (id < 0)
        throw DataError(fmt::format(
            "tokenizer: the character U+{:04X} '{}' at {} of the text is not among the {} characters of the "
            "vocabulary; take it out, or train with the tokenizer \"bytes\", which knows every text",
            uint32_t(point.value), text.substr(i, size_t(point.bytes)), position_in(text, i), vocabulary_size()));
      block.push_back(id);
      i += size_t(point.bytes);
    }
    if (block.size() == kBlock || i == text.size()) {
      sink(block);
      block.clear();
    }
  }
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  encode(text, [&](std::span<const int32_t> block) { ids.insert(ids.end(), block.begin(), block.end()); });
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (int32_t id : ids) {
    check(id >= 0 && id < vocabulary_size(), "tokenizer: token {} is outside the vocabulary of {}", id,
          vocabulary_size());
    if (characters_.empty())
      text.push_back(char(id));
    else
      append_utf8(text, characters_[size_t(id)]);
  }
  return text;
}

int64_t Tokenizer::token_bytes(int32_t id) const { return int64_t(decode({&id, 1}).size()); }

std::string Tokenizer::to_string() const {
  std::string form = kind();
  for (char32_t c : characters_) form += fmt::format(" {:x}", uint32_t(c));
  return form;
}

Tokenizer Tokenizer::from_string(std::string_view form) {
  if (form == "bytes") return bytes();
  constexpr std::string_view prefix = "characters ";
  check<DataError>(form.starts_with(prefix), "tokenizer: expected \"bytes\" or \"characters …\", got \"{}\"",
                   form.substr(0, 40));

  std::vector<char32_t> characters;
  for (size_t i = prefix.size() - 1; i < form.size();) {
    size_t begin = i + 1, end = std::min(form.find(' ', begin), form.size());
    std::string_view digits = form.substr(begin, end - begin);
    uint64_t value = 0;
    bool good = !digits.empty() && digits.size() <= 6 && (digits[0] != '0' || digits.size() == 1);
    for (char c : digits) {
      size_t digit = std::string_view("0123456789abcdef").find(c);
      good = good && digit < 16;
      value = value << 4 | (digit & 15);
    }
    check<DataError>(good && is_code_point(value),
                     "tokenizer: \"{}\" (character {} of the vocabulary) is no code point", digits.substr(0, 40),
                     characters.size());
    check<DataError>(characters.empty() || value > characters.back(),
                     "tokenizer: U+{:04X} follows U+{:04X} in the vocabulary, which has to ascend", value,
                     characters.empty() ? 0 : uint32_t(characters.back()));
    characters.push_back(char32_t(value));
    i = end;
  }
  return Tokenizer(std::move(characters));
}

Tokenizer make_tokenizer(std::string_view kind, std::string_view text) {
  if (kind == "bytes") return Tokenizer::bytes();
  if (kind == "characters") return Tokenizer::characters(text);
  throw Error(fmt::format("tokenizer: unknown kind \"{}\", known are \"bytes\" and \"characters\"", kind));
}

std::string Utf8Stream::push(std::string_view bytes) {
  held_ += bytes;
  std::string ready;
  size_t i = 0;
  while (i < held_.size()) {
    std::string_view rest = std::string_view(held_).substr(i);
    if (CodePoint point = code_point_at(rest, 0)) {
      ready += rest.substr(0, size_t(point.bytes));
      i += size_t(point.bytes);
      continue;
    }
    if (begins_code_point(rest)) break;
    append_utf8(ready, kReplacement);
    ++i;
    // the rest of a sequence that was broken off is part of the same mistake
    for (size_t length = 2; length <= 3 && length <= rest.size() && begins_code_point(rest.substr(0, length)); ++length)
      ++i;
  }
  held_.erase(0, i);
  return ready;
}

std::string Utf8Stream::finish() {
  std::string ready;
  if (!held_.empty()) append_utf8(ready, kReplacement);
  held_.clear();
  return ready;
}

}  // namespace rapt::inline RAPT_ABI

#pragma once
#include <optional>
#include <set>

#include "../../core/attention/attention.h"
#include "rotary.h"

/// Specifications of attention in words: "gqa:kv=2+rope:theta=10000+window:256+softcap:30". Words are joined by + and
/// apply in the order written; after a colon come arguments, joined by commas: a value, name=value, or a flag.
namespace rapt::inline RAPT_ABI {

/// One word with its arguments. Arguments are asked for by name or by place, and done() refuses what nobody asked for.
/// Everything here throws UsageError that names the word.
class SpecWord {
 public:
  explicit SpecWord(const std::string& text);

  const std::string& name() const { return name_; }
  const std::string& text() const { return text_; }

  double number(const std::string& key, size_t place) const;  ///< must be there; as a Real neither ±∞ nor too small
  double number(const std::string& key, size_t place, double otherwise) const;
  int64_t integer(const std::string& key, size_t place, int64_t least) const;
  int64_t integer(const std::string& key, size_t place, int64_t least, int64_t otherwise, int64_t most = kMost) const;
  uint64_t seed(const std::string& key, size_t place) const;  ///< must be there
  /// One of the allowed words by place; `otherwise` if there is none.
  std::string choice(size_t place, const std::vector<std::string>& allowed, const std::string& otherwise) const;
  bool flag(const std::string& name) const;
  bool has(const std::string& key, size_t place) const { return find(key, place) != nullptr; }
  void done() const;
  [[noreturn]] void fail(const std::string& what) const;

  static constexpr size_t kNowhere = 99;  ///< a place for arguments that only have a name
  static constexpr int64_t kMost = 1'000'000'000'000'000;

 private:
  struct Argument {
    std::string key, value;  // key empty: by place, or a flag
  };
  const Argument* find(const std::string& key, size_t place) const;
  const Argument& required(const std::string& key, size_t place) const;
  double parsed(const Argument& argument, const std::string& key) const;  // may be infinite
  int64_t whole(const std::string& key, size_t place, int64_t least, int64_t most) const;

  std::string text_, name_;
  std::vector<Argument> arguments_;
  mutable std::set<std::string> known_;  // what was asked for, for the error's text
  mutable std::set<std::string> flags_;  // those of them that have no value
  mutable std::set<const Argument*> used_;
};

/// The specifications that layers take turns in; one if there is no slash. Throws UsageError for an empty one.
std::vector<std::string> specs_in_turn(const std::string& spec);

/// The words of one specification. Throws UsageError for an empty one or an empty word.
std::vector<SpecWord> parse_spec(const std::string& spec);

/// The nearest known word in an error: "unknown word "gpa", did you mean "gqa"?"
[[noreturn]] void unknown_word(const std::string& word, std::vector<std::string> known);

/// Words that need no tensors: masks (causal, window, prefix, chunked, dilated, global), scale, softcap with a number,
/// normalisers (plus-one, relu, entmax, topk, hard, inverted, signed, stick-breaking) and drop. False if it is none.
bool apply_plain_word(const SpecWord& word, int64_t heads, AttentionOptions& options);
/// Names of those words.
std::vector<std::string> plain_words();

/// The largest reach of t5, for which each distance has an entry in a table.
inline constexpr int64_t kMostT5Reach = 1'000'000;

/// rope and xpos: their arguments.
RotaryOptions rotary_options(const SpecWord& word);

}  // namespace rapt::inline RAPT_ABI

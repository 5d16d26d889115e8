#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "../core/check.h"

namespace rapt::inline RAPT_ABI {

/// A range of bytes of a text.
struct ByteRange {
  int64_t begin = 0, end = 0;
};

/// One story of a text of stories.
struct Story {
  ByteRange range;
  double nats = 0;  ///< −ln of its probability under the grammar
};

/// The built-in corpus: small English stories drawn from a grammar (data/stories_grammar.cpp), of which therefore the
/// entropy is known exactly. What a story says first (who, what, of which colour) comes back later in it, so
/// that a model has to look back to predict well.
struct Stories {
  std::string text;  ///< ASCII; each story ends with an empty line
  std::vector<Story> stories;
  std::vector<ByteRange> recalls;  ///< words that follow from what their story said before

  /// Nats per character of the bytes [begin, end) to a reader who knows the grammar and all that came before. A story
  /// that is cut counts in proportion.
  double entropy_per_character(int64_t begin, int64_t end) const;
  double entropy_per_character() const { return entropy_per_character(0, int64_t(text.size())); }
  /// The same for a reader who is shown consecutive windows of `context` + 1 characters, each on its own and its first
  /// character for free, as ValidationBatches shows a model the tokens of that range. A window mostly begins inside a
  /// story, and what was cut off can't be recalled, so this is more; it is the least validation loss that can be
  /// expected of a model.
  double entropy_per_character(int64_t begin, int64_t end, int64_t context) const;
};

/// Stories of at least `about_bytes` together; the last one is whole. A function of its arguments, on every machine.
Stories make_stories(uint64_t seed, int64_t about_bytes = 1'000'000);

/// The choices that were made to write a story, in order, and −ln of their probability.
struct Derivation {
  std::vector<int> choices;
  double nats = 0;
};

/// All derivations of one story (up to and with its empty line): one if the grammar can write it, as it is unambiguous,
/// else none.
std::vector<Derivation> parse_story(std::string_view story);
/// The story these choices write; throws unless they are the choices of one story.
std::string write_story(const std::vector<int>& choices);

/// How many words that follow from what was said before were right.
struct RecallScore {
  int64_t right = 0, total = 0;
  double value() const { return total > 0 ? double(right) / double(total) : 0; }
};

/// Scores text that a model wrote in the manner of the stories, which may have mistakes and may be cut at both ends. A
/// sentence that no sentence of the grammar matches counts as one wrong word. The corpus itself has value 1.
RecallScore score_recall(std::string_view text);

}  // namespace rapt::inline RAPT_ABI

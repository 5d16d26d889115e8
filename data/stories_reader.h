#pragma once
#include <string_view>
#include <vector>

#include "stories_grammar.h"

namespace rapt::inline RAPT_ABI::story_grammar {

/// The ideal reader: knows the grammar, and predicts each character from those before by keeping every way of writing
/// that agrees with them, weighted by its probability (the forward algorithm).
class Reader {
 public:
  /// At the beginning of a story.
  Reader();
  /// Somewhere in an endless text of stories, at a character `first`. Throws when no story has that character.
  explicit Reader(char first);

  /// −ln of the probability of the next character; infinite if it can't come, after which nothing can.
  double read(char character);

 private:
  /// One way the text may go on: `rest` of the words at hand, then the graph from `node`.
  struct Path {
    double weight;
    std::string_view rest;
    int node;
    Facts facts;
  };
  static void spread(std::vector<Path>& paths, double& ended, Path path);
  static const std::vector<Path>& middles(char first);

  std::vector<Path> paths_, next_;
};

}  // namespace rapt::inline RAPT_ABI::story_grammar

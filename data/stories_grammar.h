#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "../core/check.h"

/// The grammar of the built-in corpus (data/stories.h), as a graph that a writer and a reader walk alike.
namespace rapt::inline RAPT_ABI::story_grammar {

/// What a story decides once and then keeps to.
enum Fact { kHero, kFriend, kColour, kObject, kPlace, kAnimal, kFacts };
enum Form { kPlain, kCapital, kPronoun, kPossessive };

/// The value of each fact, −1 while it is open.
struct Facts {
  std::array<int8_t, kFacts> values;
  Facts() { values.fill(-1); }
  int operator[](Fact fact) const { return values[fact]; }
  Facts with(Fact fact, int value) const {
    Facts facts = *this;
    facts.values[fact] = int8_t(value);
    return facts;
  }
};

int value_count(Fact fact);
/// How a fact is mentioned: "Mia", "she", "her", "red", "Red".
std::string_view mention(Fact fact, Form form, int value);
/// The values a fact may take given the others, all equally likely: hero and friend are always a girl and a boy, so
/// that pronouns are clear.
std::vector<int> allowed_values(Fact fact, const Facts& facts);

/// A step of writing. Successors have smaller numbers.
struct StoryNode {
  enum Kind { kEnd, kText, kBranch, kMention } kind = kEnd;
  std::string text = {};       // kText
  std::vector<int> next = {};  // kBranch: equally likely; kText, kMention: one
  Fact fact = kHero;           // kMention: settles the fact if it is open
  Form form = kPlain;
};

struct Graph {
  std::vector<StoryNode> nodes;  // nodes[0] is kEnd
  int start = 0;
};

/// The graph of a template such as "{hero} {sat} {place}.", in which braces name rules or mentions.
Graph compile(std::string_view text);

/// The graph of a whole story.
const Graph& story_graph();
/// The names of the sentences of a story in order, for each kind of story.
const std::vector<std::vector<std::string>>& outlines();

}  // namespace rapt::inline RAPT_ABI::story_grammar

#include <algorithm>
#include <map>
#include <optional>

#include "stories.h"
#include "stories_grammar.h"

namespace rapt::inline RAPT_ABI {

using namespace story_grammar;

namespace {

/// What a piece of text says when it is read as a sentence of the grammar that may mention the wrong names and things.
struct Match {
  size_t end = 0;
  Facts facts;
  RecallScore score;

  int64_t balance() const { return 2 * score.right - score.total; }
};

/// Keeps in `best` the way through the graph with the fewest wrong words that ends where a sentence may end.
void match(const Graph& graph, int at, std::string_view text, const Match& now, std::optional<Match>& best) {
  const StoryNode& node = graph.nodes[size_t(at)];
  std::string_view rest = text.substr(now.end);
  if (node.kind == StoryNode::kEnd) {
    bool whole = rest.empty() || rest[0] == ' ' || rest[0] == '\n';
    if (whole && (!best || now.balance() > best->balance())) best = now;
  } else if (node.kind == StoryNode::kBranch) {
    for (int next : node.next) match(graph, next, text, now, best);
  } else if (node.kind == StoryNode::kText) {
    if (!rest.starts_with(node.text)) return;
    Match then = now;
    then.end += node.text.size();
    match(graph, node.next[0], text, then, best);
  } else {
    int known = now.facts[node.fact];
    bool name_like = node.form == kPlain || node.form == kCapital;
    std::string_view tried;
    for (int value = 0; value < value_count(node.fact); ++value) {
      std::string_view said = mention(node.fact, node.form, value);
      if (said == tried || !rest.starts_with(said)) continue;  // she, she, …, he, he, …
      tried = said;
      Match then = now;
      then.end += said.size();
      if (known >= 0) {
        ++then.score.total;
        then.score.right += said == mention(node.fact, node.form, known);
      } else if (name_like) {
        then.facts = now.facts.with(node.fact, value);
      }
      match(graph, node.next[0], text, then, best);
    }
  }
}

std::optional<Match> match_sentence(const std::string& name, std::string_view text, size_t begin, const Facts& facts) {
  static const std::map<std::string, Graph> graphs = [] {
    std::map<std::string, Graph> all;
    for (const auto& outline : outlines())
      for (const std::string& sentence : outline) all.try_emplace(sentence, compile("{" + sentence + "}"));
    return all;
  }();
  const Graph& graph = graphs.at(name);
  std::optional<Match> best;
  match(graph, graph.start, text, {begin, facts, {}}, best);
  return best;
}

/// Whether a sentence may start here: after white space that follows a sentence's end.
bool sentence_start(std::string_view text, size_t i) {
  if (i == 0) return true;
  bool space = text[i - 1] == ' ' || text[i - 1] == '\n';
  return space && i >= 2 && std::string_view(".!?\"").find(text[i - 2]) != std::string_view::npos;
}

struct Reading {
  int64_t matched = 0;  // sentences
  RecallScore score;
};

/// Reads a story along an outline. What no sentence matches is skipped up to the next that does, and counts as wrong;
/// but not at the beginning or end of a text that may be cut there.
Reading read_along(const std::vector<std::string>& outline, std::string_view text, bool cut_begin, bool cut_end) {
  Reading reading;
  Facts facts;
  size_t position = 0, sentence = 0;
  while (position < text.size()) {
    std::optional<Match> found;
    int64_t skipped = 0;
    for (size_t at = position; at < text.size() && !found; ++at) {
      if (at != position && !sentence_start(text, at)) continue;
      for (size_t next = sentence; next < outline.size() && !found; ++next)
        if ((found = match_sentence(outline[next], text, at, facts))) sentence = next + 1;
      if (!found) ++skipped;
    }
    bool forgiven = (cut_begin && position == 0) || (cut_end && !found);
    if (!forgiven) reading.score.total += skipped;
    if (!found) break;
    ++reading.matched;
    reading.score.right += found->score.right;
    reading.score.total += found->score.total;
    facts = found->facts;
    position = found->end + 1;  // a space or a line's end
  }
  return reading;
}

}  // namespace

RecallScore score_recall(std::string_view text) {
  RecallScore score;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = std::min(text.find("\n\n", begin), text.size());
    std::string_view story = text.substr(begin, end - begin);
    std::optional<Reading> best;
    for (const auto& outline : outlines()) {
      Reading reading = read_along(outline, story, begin == 0, end == text.size());
      auto rank = [](const Reading& r) { return std::pair(r.matched, 2 * r.score.right - r.score.total); };
      if (!best || rank(reading) > rank(*best)) best = reading;
    }
    score.right += best->score.right;
    score.total += best->score.total;
    begin = end + 2;
  }
  return score;
}

}  // namespace rapt::inline RAPT_ABI

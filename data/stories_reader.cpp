#include "stories_reader.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "stories.h"

namespace rapt::inline RAPT_ABI {

namespace story_grammar {

/// Follows a path through choices up to the next words, once for each choice; adds to `ended` what reaches the end.
void Reader::spread(std::vector<Path>& paths, double& ended, Path path) {
  if (!path.rest.empty()) {
    paths.push_back(path);
    return;
  }
  const StoryNode& node = story_graph().nodes[size_t(path.node)];
  if (node.kind == StoryNode::kEnd) {
    ended += path.weight;
  } else if (node.kind == StoryNode::kText) {
    spread(paths, ended, {path.weight, node.text, node.next[0], path.facts});
  } else if (node.kind == StoryNode::kBranch) {
    for (int next : node.next) spread(paths, ended, {path.weight / double(node.next.size()), {}, next, path.facts});
  } else if (int known = path.facts[node.fact]; known >= 0) {
    spread(paths, ended, {path.weight, mention(node.fact, node.form, known), node.next[0], path.facts});
  } else {
    std::vector<int> values = allowed_values(node.fact, path.facts);
    for (int value : values)
      spread(paths, ended,
             {path.weight / double(values.size()), mention(node.fact, node.form, value), node.next[0],
              path.facts.with(node.fact, value)});
  }
}

/// Every place in a story where `first` stands, weighted by how often it is come to; facts not mentioned from there on
/// are left open, as they may be anything.
const std::vector<Reader::Path>& Reader::middles(char first) {
  static const std::vector<std::vector<Path>> all = [] {
    const Graph& graph = story_graph();
    std::vector<std::vector<Path>> by_character(256);
    auto add = [&](double weight, std::string_view words, int next, const Facts& facts) {
      for (size_t i = 0; i < words.size(); ++i)
        by_character[static_cast<unsigned char>(words[i])].push_back({weight, words.substr(i), next, facts});
    };
    std::vector<double> visits(graph.nodes.size());
    visits[size_t(graph.start)] = 1;
    for (size_t at = graph.nodes.size(); at-- > 1;) {
      const StoryNode& node = graph.nodes[at];
      for (int next : node.next) visits[size_t(next)] += visits[at] / double(node.next.size());
      if (node.kind == StoryNode::kText) add(visits[at], node.text, node.next[0], {});
      if (node.kind != StoryNode::kMention) continue;
      std::vector<int> values = allowed_values(node.fact, {});
      for (int value : values)
        add(visits[at] / double(values.size()), mention(node.fact, node.form, value), node.next[0],
            Facts().with(node.fact, value));
    }
    return by_character;
  }();
  return all[static_cast<unsigned char>(first)];
}

Reader::Reader() {
  double ended = 0;
  spread(paths_, ended, {1, {}, story_graph().start, {}});
}

Reader::Reader(char first) : paths_(middles(first)) {
  check(!paths_.empty(), "stories: no story has the character 0x{:02X}", static_cast<unsigned char>(first));
  read(first);
}

double Reader::read(char character) {
  double before = 0, after = 0, ended = 0;
  next_.clear();
  for (Path& path : paths_) {
    before += path.weight;
    if (path.rest[0] != character) continue;
    after += path.weight;
    path.rest.remove_prefix(1);
    spread(next_, ended, path);
  }
  if (ended > 0) spread(next_, ended, {ended, {}, story_graph().start, {}});
  if (after > 0)
    for (Path& path : next_) path.weight /= after;
  paths_.swap(next_);
  return after > 0 ? std::log(before / after) : std::numeric_limits<double>::infinity();
}

namespace {

/// Finds all derivations of a text by trying every choice.
struct Parser {
  std::string_view text;
  std::vector<int> choices;
  std::vector<Derivation> found;

  void parse(int at, size_t position, const Facts& facts, double nats) {
    const StoryNode& node = story_graph().nodes[size_t(at)];
    auto words = [&](std::string_view said, int next, const Facts& then, double cost) {
      if (text.substr(position).starts_with(said)) parse(next, position + said.size(), then, nats + cost);
    };
    auto choice = [&](int i, auto follow) {
      choices.push_back(i);
      follow();
      choices.pop_back();
    };
    if (node.kind == StoryNode::kEnd) {
      if (position == text.size()) found.push_back({choices, nats});
    } else if (node.kind == StoryNode::kText) {
      words(node.text, node.next[0], facts, 0);
    } else if (node.kind == StoryNode::kBranch) {
      double cost = std::log(double(node.next.size()));
      for (size_t i = 0; i < node.next.size(); ++i)
        choice(int(i), [&] { parse(node.next[i], position, facts, nats + cost); });
    } else if (int known = facts[node.fact]; known >= 0) {
      words(mention(node.fact, node.form, known), node.next[0], facts, 0);
    } else {
      std::vector<int> values = allowed_values(node.fact, facts);
      double cost = std::log(double(values.size()));
      for (size_t i = 0; i < values.size(); ++i)
        choice(int(i), [&] {
          words(mention(node.fact, node.form, values[i]), node.next[0], facts.with(node.fact, values[i]), cost);
        });
    }
  }
};

}  // namespace
}  // namespace story_grammar

std::vector<Derivation> parse_story(std::string_view story) {
  story_grammar::Parser parser{.text = story, .choices = {}, .found = {}};
  parser.parse(story_grammar::story_graph().start, 0, {}, 0);
  return parser.found;
}

double Stories::entropy_per_character(int64_t begin, int64_t end, int64_t context) const {
  check(begin >= 0 && begin + 1 < end && end <= int64_t(text.size()), "stories: bytes [{}, {}) of a text of {}", begin,
        end, text.size());
  check(context >= 1, "stories: the context has to be at least 1, got {}", context);
  double nats = 0;
  for (int64_t start = begin; start + 1 < end; start += context) {
    story_grammar::Reader reader(text[size_t(start)]);
    int64_t last = std::min(start + context, end - 1);
    for (int64_t i = start + 1; i <= last; ++i) nats += reader.read(text[size_t(i)]);
  }
  return nats / double(end - begin - 1);
}

}  // namespace rapt::inline RAPT_ABI

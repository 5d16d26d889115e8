#include "stories.h"

#include <algorithm>
#include <cmath>

#include "../core/random.h"
#include "stories_grammar.h"

namespace rapt::inline RAPT_ABI {

using namespace story_grammar;

namespace {

constexpr uint64_t kStorySalt = 0x73746F72696573;  // so that equal seeds elsewhere draw other numbers

/// Walks the graph from its start to its end and appends what it says; `choose(n)` makes the choices.
template <class Choose>
double write(std::string& text, std::vector<ByteRange>* recalls, Choose choose) {
  const Graph& graph = story_graph();
  Facts facts;
  double nats = 0;
  auto draw = [&](size_t n) {
    nats += std::log(double(n));
    return size_t(choose(int(n)));
  };
  for (int at = graph.start; graph.nodes[size_t(at)].kind != StoryNode::kEnd;) {
    const StoryNode& node = graph.nodes[size_t(at)];
    size_t next = 0;
    if (node.kind == StoryNode::kText) {
      text += node.text;
    } else if (node.kind == StoryNode::kBranch) {
      next = draw(node.next.size());
    } else {
      auto begin = int64_t(text.size());
      bool recall = facts[node.fact] >= 0;
      if (!recall) {
        std::vector<int> values = allowed_values(node.fact, facts);
        facts = facts.with(node.fact, values[draw(values.size())]);
      }
      text += mention(node.fact, node.form, facts[node.fact]);
      if (recall && recalls) recalls->push_back({begin, int64_t(text.size())});
    }
    at = node.next[next];
  }
  return nats;
}

}  // namespace

Stories make_stories(uint64_t seed, int64_t about_bytes) {
  check(about_bytes >= 1, "stories: expected a size of at least 1 byte, got {}", about_bytes);
  Stories all;
  while (int64_t(all.text.size()) < about_bytes) {
    Random random{mix_seed(seed, kStorySalt), all.stories.size()};
    uint64_t drawn = 0;
    auto begin = int64_t(all.text.size());
    double nats = write(all.text, &all.recalls, [&](int n) { return random.below(n, drawn++); });
    all.stories.push_back({{begin, int64_t(all.text.size())}, nats});
  }
  return all;
}

std::string write_story(const std::vector<int>& choices) {
  std::string text;
  size_t used = 0;
  write(text, nullptr, [&](int n) {
    check(used < choices.size() && choices[used] >= 0 && choices[used] < n, "stories: choice {} has to be below {}",
          used, n);
    return choices[used++];
  });
  check(used == choices.size(), "stories: {} choices are left over", choices.size() - used);
  return text;
}

double Stories::entropy_per_character(int64_t begin, int64_t end) const {
  check(begin >= 0 && begin < end && end <= int64_t(text.size()), "stories: bytes [{}, {}) of a text of {}", begin, end,
        text.size());
  double nats = 0;
  for (const Story& story : stories) {
    int64_t inside = std::min(end, story.range.end) - std::max(begin, story.range.begin);
    if (inside > 0) nats += story.nats * double(inside) / double(story.range.end - story.range.begin);
  }
  return nats / double(end - begin);
}

}  // namespace rapt::inline RAPT_ABI

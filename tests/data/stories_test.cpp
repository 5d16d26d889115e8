#include <gtest/gtest.h>
#include <rapt/core/random.h>
#include <rapt/data/batches.h>
#include <rapt/data/stories.h>
#include <rapt/data/stories_grammar.h>
#include <rapt/data/stories_reader.h>
#include <rapt/data/text.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace {

using rapt::story_grammar::StoryNode;

using namespace rapt;
using namespace rapt::story_grammar;

const Stories& corpus() {
  static const Stories stories = make_stories(1);
  return stories;
}

std::string_view text_of(const Stories& stories, const Story& story) {
  return std::string_view(stories.text).substr(size_t(story.range.begin), size_t(story.range.end - story.range.begin));
}

TEST(Stories, AreAFunctionOfTheSeed) {
  Stories few = make_stories(7, 5000), more = make_stories(7, 20000), other = make_stories(8, 5000);
  EXPECT_GE(few.text.size(), 5000u);
  EXPECT_LT(few.text.size(), 5400u);
  EXPECT_TRUE(more.text.starts_with(few.text));
  EXPECT_NE(few.text, other.text);
  EXPECT_EQ(make_stories(1, 1).stories.size(), 1u);
  EXPECT_THROW(make_stories(1, 0), Error);
  // the corpus that results are quoted for
  EXPECT_EQ(Text::from_string(corpus().text).hash(), 10870645563904252341u) << "the corpus changed";
}

TEST(Stories, AreContiguousAsciiAndEndWithAnEmptyLine) {
  int64_t end = 0;
  for (const Story& story : corpus().stories) {
    EXPECT_EQ(story.range.begin, end);
    end = story.range.end;
    std::string_view text = text_of(corpus(), story);
    EXPECT_TRUE(text.ends_with(".\n\n"));
    EXPECT_EQ(text.find("\n\n"), text.size() - 2);
  }
  EXPECT_EQ(end, int64_t(corpus().text.size()));
  for (char c : corpus().text) ASSERT_TRUE(c == '\n' || (c >= ' ' && c < 127));
  for (char vowel : std::string("aeiou")) {
    EXPECT_EQ(corpus().text.find(std::string(" a ") + vowel), std::string::npos);
    EXPECT_EQ(corpus().text.find(std::string("\nA ") + vowel), std::string::npos);
  }
}

TEST(Stories, EachHasOneDerivationWithItsProbability) {
  for (size_t i = 0; i < corpus().stories.size(); i += 2) {
    const Story& story = corpus().stories[i];
    std::string_view text = text_of(corpus(), story);
    std::vector<Derivation> derivations = parse_story(text);
    ASSERT_EQ(derivations.size(), 1u) << text;
    ASSERT_NEAR(derivations[0].nats, story.nats, 1e-9);
    ASSERT_EQ(write_story(derivations[0].choices), text);
  }
}

TEST(Stories, DerivationsNeedTheWholeStory) {
  std::string story(text_of(corpus(), corpus().stories[0]));
  EXPECT_TRUE(parse_story(story.substr(1)).empty());
  EXPECT_TRUE(parse_story(story.substr(0, story.size() - 1)).empty());
  EXPECT_TRUE(parse_story(story + "x").empty());
  EXPECT_TRUE(parse_story("").empty());
  std::vector<int> choices = parse_story(story)[0].choices;
  choices.push_back(0);
  EXPECT_THROW(write_story(choices), Error);
  choices.resize(choices.size() - 2);
  EXPECT_THROW(write_story(choices), Error);
  choices[0] = 1000;
  EXPECT_THROW(write_story(choices), Error);
}

// --- Unambiguity, for every story that could be written, as a property of the graph: no two different ways through it
// spell the same string, even when mentions may name anybody. (Two places that can be reached by the same string are
// followed together; the graph is ambiguous when they meet.)

struct Place {
  std::string_view rest;
  int node;
  auto key() const { return std::tuple(rest.data(), rest.size(), node); }
  bool operator<(const Place& other) const { return key() < other.key(); }
  bool operator==(const Place& other) const { return key() == other.key(); }
};

void spread(const Graph& graph, int at, std::vector<Place>& places) {
  const StoryNode& node = graph.nodes[size_t(at)];
  if (node.kind == StoryNode::kEnd) places.push_back({{}, at});
  if (node.kind == StoryNode::kText) places.push_back({node.text, at});
  if (node.kind == StoryNode::kBranch)
    for (int next : node.next) spread(graph, next, places);
  if (node.kind == StoryNode::kMention) {
    std::set<std::string_view> words;
    for (int value = 0; value < value_count(node.fact); ++value) words.insert(mention(node.fact, node.form, value));
    for (std::string_view word : words) places.push_back({word, at});
  }
}

std::vector<Place> after(const Graph& graph, const Place& place) {
  if (place.rest.size() > 1) return {{place.rest.substr(1), place.node}};
  std::vector<Place> places;
  if (graph.nodes[size_t(place.node)].kind != StoryNode::kEnd)
    spread(graph, graph.nodes[size_t(place.node)].next[0], places);
  return places;
}

bool unambiguous(const Graph& graph) {
  std::set<std::pair<Place, Place>> seen;  // a place paired with itself stands for one way there
  std::vector<std::pair<Place, Place>> open;
  bool clear = true;
  auto add = [&](const Place& a, const Place& b) {
    if (seen.insert(std::minmax(a, b)).second) open.push_back(std::minmax(a, b));
  };
  auto add_all = [&](const std::vector<Place>& places) {
    for (size_t i = 0; i < places.size(); ++i)
      for (size_t j = 0; j <= i; ++j) {
        if (i != j && places[i] == places[j]) clear = false;
        add(places[i], places[j]);
      }
  };
  std::vector<Place> first;
  spread(graph, graph.start, first);
  add_all(first);
  while (!open.empty() && clear) {
    auto [a, b] = open.back();
    open.pop_back();
    if (a == b) {
      add_all(after(graph, a));
    } else if (!a.rest.empty() && !b.rest.empty() && a.rest[0] == b.rest[0]) {
      for (const Place& p : after(graph, a))
        for (const Place& q : after(graph, b)) {
          if (p == q) clear = false;
          add(p, q);
        }
    }
  }
  return clear;
}

TEST(StoryGrammar, IsUnambiguous) {
  EXPECT_TRUE(unambiguous(story_graph()));
  // the check finds "a" + "bc" = "ab" + "c", and an alternative that is given twice
  Graph two{.nodes = {{},
                      {StoryNode::kText, "c", {0}},
                      {StoryNode::kText, "bc", {0}},
                      {StoryNode::kText, "ab", {1}},
                      {StoryNode::kText, "a", {2}},
                      {StoryNode::kBranch, "", {3, 4}}},
            .start = 5};
  EXPECT_FALSE(unambiguous(two));
  two.nodes[2].text = "bd";
  EXPECT_TRUE(unambiguous(two));
  two.nodes[5].next = {3, 3};
  EXPECT_FALSE(unambiguous(two));
}

TEST(StoryGrammar, FactsOfOneKindBeginDifferently) {
  // so that one letter is enough to recall a word; "in the", "by the" in front of places aside
  for (Fact fact : {kHero, kColour, kObject, kAnimal}) {
    std::set<char> initials;
    for (int value = 0; value < value_count(fact); ++value) initials.insert(mention(fact, kPlain, value)[0]);
    EXPECT_EQ(int(initials.size()), value_count(fact));
  }
  EXPECT_THROW(compile("{nothing}"), Error);
}

/// The mean of −ln p over all stories, from the graph alone.
double expected_nats() {
  const Graph& graph = story_graph();
  std::vector<double> visits(graph.nodes.size());
  visits[size_t(graph.start)] = 1;
  double nats = 0, places = 0, friends = 0;
  for (size_t at = graph.nodes.size(); at-- > 1;) {
    const StoryNode& node = graph.nodes[at];
    if (node.kind == StoryNode::kBranch) nats += visits[at] * std::log(double(node.next.size()));
    if (node.kind == StoryNode::kMention && node.fact == kPlace) places += visits[at];  // never twice in a story
    for (int next : node.next) visits[size_t(next)] += visits[at] / double(node.next.size());
  }
  for (const auto& outline : outlines())
    friends += double(std::count(outline.begin(), outline.end(), "meet")) / double(outlines().size());
  auto choice = [](Fact fact) { return std::log(double(value_count(fact))); };
  return nats + choice(kHero) + choice(kColour) + choice(kObject) + places * choice(kPlace) +
         friends * (choice(kFriend) - std::log(2.)) + (1 - friends) * choice(kAnimal);
}

TEST(Stories, TheirMeanEntropyIsTheGrammars) {
  double sum = 0, squares = 0;
  for (const Story& story : corpus().stories) {
    sum += story.nats;
    squares += story.nats * story.nats;
  }
  auto n = double(corpus().stories.size());
  double mean = sum / n, deviation = std::sqrt((squares / n - mean * mean) / n);
  EXPECT_NEAR(mean, expected_nats(), 4 * deviation);
  EXPECT_LT(deviation, 0.2);
  EXPECT_NEAR(corpus().entropy_per_character(), sum / double(corpus().text.size()), 1e-12);
}

TEST(Stories, EntropyOfARange) {
  const Story& story = corpus().stories[3];
  auto [begin, end] = story.range;
  double whole = story.nats / double(end - begin);
  EXPECT_NEAR(corpus().entropy_per_character(begin, end), whole, 1e-12);
  EXPECT_NEAR(corpus().entropy_per_character(begin + 5, begin + 25), whole, 1e-12);
  double two = story.nats / 2 + corpus().stories[4].nats;
  int64_t middle = (begin + end) / 2, last = corpus().stories[4].range.end;
  EXPECT_NEAR(corpus().entropy_per_character(middle, last) * double(last - middle), two, 0.5);
  EXPECT_THROW(corpus().entropy_per_character(5, 5), Error);
  EXPECT_THROW(corpus().entropy_per_character(0, int64_t(corpus().text.size()) + 1), Error);
}

TEST(Reader, AgreesWithTheWriter) {
  Reader reader;
  for (size_t i = 0; i < 300; ++i) {
    double story = 0;
    for (char c : text_of(corpus(), corpus().stories[i])) story += reader.read(c);
    ASSERT_NEAR(story, corpus().stories[i].nats, 1e-9);
  }
  EXPECT_TRUE(std::isinf(reader.read('#')));
  EXPECT_THROW(Reader('#'), Error);
}

TEST(Reader, GivesProbabilitiesThatSumToOne) {
  std::string_view text = std::string_view(corpus().text).substr(12345, 400);
  Reader reader(text[0]);
  for (char c : text.substr(1)) {
    double sum = 0;
    for (int next = 0; next < 128; ++next) sum += std::exp(-Reader(reader).read(char(next)));
    ASSERT_NEAR(sum, 1, 1e-9);
    ASSERT_FALSE(std::isinf(reader.read(c)));
  }
}

TEST(Reader, KnowsHowTheTextGoesOnFromItsMiddle) {
  // P(next character | first), and | first two, as counted in a text, the ends of stories included
  Stories stories = make_stories(5, 4'000'000);
  std::map<std::string, double> count;
  for (size_t i = 0; i + 2 < stories.text.size(); ++i) {
    ++count[stories.text.substr(i, 2)];
    ++count[stories.text.substr(i, 3)];
    ++count[stories.text.substr(i, 1)];
  }
  int compared = 0;
  for (const auto& [string, times] : count) {
    if (string.size() == 1) continue;
    double before = count[string.substr(0, string.size() - 1)];
    if (before < 1000) continue;
    Reader reader(string[0]);
    double nats = 0;
    for (char c : string.substr(1)) nats = reader.read(c);
    double p = std::exp(-nats), deviation = std::sqrt(p * (1 - p) / before);
    EXPECT_NEAR(times / before, p, 6 * deviation + 1e-9) << '"' << string << '"';
    ++compared;
  }
  EXPECT_GT(compared, 1000);
}

TEST(Stories, EntropyOfWindows) {
  auto size = int64_t(corpus().text.size()), begin = size - 50'000;
  double all = corpus().entropy_per_character(begin, size);
  double last = 10;
  for (int64_t context : {16, 64, 128, 256, 1024}) {
    double windows = corpus().entropy_per_character(begin, size, context);
    EXPECT_LT(windows, last);
    EXPECT_GT(windows, all);
    last = windows;
  }
  EXPECT_NEAR(corpus().entropy_per_character(begin, size, size), all, 0.003);

  // the windows are those of ValidationBatches
  Tokenizer tokenizer = Tokenizer::characters(corpus().text);
  TokenStream tokens(tokenizer, corpus().text);
  ValidationBatches batches{.tokens = tokens.span().part(begin, size), .batch_size = 8, .context = 96};
  double nats = 0;
  for (int64_t i = 0; i < batches.batches(); ++i) {
    Batch batch = batches.batch(i);
    auto T = size_t(batch.x.shape[1]);
    std::string x = tokenizer.decode(batch.x.ids), y = tokenizer.decode(batch.y.ids);
    for (size_t row = 0; row < x.size(); row += T) {
      Reader reader(x[row]);
      for (size_t t = 0; t < T; ++t) nats += reader.read(y[row + t]);
    }
  }
  EXPECT_NEAR(corpus().entropy_per_character(begin, size, 96), nats / double(batches.targets()), 1e-9);
}

TEST(Recall, OfTheCorpusIsPerfect) {
  RecallScore score = score_recall(corpus().text);
  EXPECT_EQ(score.right, score.total);
  EXPECT_EQ(score.total, int64_t(corpus().recalls.size()));
  EXPECT_EQ(score.value(), 1);
  EXPECT_GT(double(score.total), 5.0 * double(corpus().stories.size()));
  for (const ByteRange& recall : corpus().recalls) EXPECT_LT(recall.begin, recall.end);
}

TEST(Recall, OfEveryCutOfAStoryIsPerfect) {
  std::string two(std::string_view(corpus().text).substr(0, size_t(corpus().stories[1].range.end)));
  int64_t last = 0;
  for (size_t length = 0; length <= two.size(); ++length) {
    RecallScore score = score_recall(two.substr(0, length));
    ASSERT_EQ(score.right, score.total) << two.substr(0, length);
    ASSERT_GE(score.total, last);
    last = score.total;
  }
  for (size_t begin = 0; begin < two.size(); ++begin) {
    RecallScore score = score_recall(two.substr(begin));
    ASSERT_EQ(score.right, score.total) << two.substr(begin);
  }
}

TEST(Recall, FindsEveryWrongWord) {
  // each recalled word of some stories replaced by another of its kind
  std::vector<std::pair<Fact, Form>> kinds = {{kHero, kPlain},   {kHero, kPronoun},   {kHero, kPossessive},
                                              {kColour, kPlain}, {kColour, kCapital}, {kObject, kPlain},
                                              {kAnimal, kPlain}};
  size_t story = 0;
  for (size_t i = 0; i < 400; ++i) {
    ByteRange range = corpus().recalls[i];
    while (corpus().stories[story].range.end <= range.begin) ++story;
    std::string text(text_of(corpus(), corpus().stories[story]));
    RecallScore before = score_recall(text);
    auto begin = size_t(range.begin - corpus().stories[story].range.begin), length = size_t(range.end - range.begin);
    std::string word = text.substr(begin, length), wrong;
    for (auto [fact, form] : kinds)
      for (int value = 0; value < value_count(fact); ++value)
        if (mention(fact, form, value) == word)
          wrong = mention(fact, form, (value + value_count(fact) / 2) % value_count(fact));
    ASSERT_NE(wrong, word);
    text.replace(begin, length, wrong);
    RecallScore score = score_recall(text);
    EXPECT_EQ(score.total, before.total) << text;
    EXPECT_EQ(score.right, before.right - 1) << text;
  }
}

TEST(Recall, OfAStoryByHand) {
  auto score = [](const std::string& text) {
    RecallScore s = score_recall(text);
    return std::pair(s.right, s.total);
  };
  using P = std::pair<int64_t, int64_t>;
  std::string found = "One cold night little Mia found a big red kite. Little Mia gladly hugged the red kite. ";
  std::string met = "Old Tom came by and begged little Mia for the red kite. ",
              end = "Who has the red kite? Old Tom.\n\n";
  std::string gave = "Little Mia sold old Tom the red kite for a song.\n";
  EXPECT_EQ(score(found + met + gave + end), P(13, 13));
  EXPECT_EQ(score(found + met + "Little Mia sold old Tom the blue kite for a song.\n" + end), P(12, 13));
  EXPECT_EQ(score(found + met + gave + "Who has the red kite? Little Mia.\n\n"), P(10, 12));
  EXPECT_EQ(score(found + met + "So he gave old Tom the red kite, and he waved.\n" + end), P(13, 14));
  // a word or a sentence that is none of the grammar's
  EXPECT_EQ(score(found + met + gave + "Who has the red kit? Old Tom.\n\n"), P(10, 12));
  EXPECT_EQ(score(found + met + "Little Mia sald old Tom the red kite for a song.\n" + end), P(9, 10));
  EXPECT_EQ(score(found + met + "Why? " + gave + end), P(13, 14));
  EXPECT_EQ(score(found + met + end), P(9, 9));
  // what is missing at the ends of a text is nobody's mistake
  EXPECT_EQ(score("e lake. " + met + gave + end), P(7, 7));
  EXPECT_EQ(score(found + met + "Little Mia sold ol"), P(6, 6));
}

TEST(Recall, TakesAnyText) {
  Random random{3, 0};
  uint64_t drawn = 0;
  int lower = 0;
  for (int i = 0; i < 200; ++i) {
    std::string text = corpus().text.substr(size_t(random.below(100'000, drawn++)), 600);
    RecallScore before = score_recall(text);
    for (int changes = 0; changes < 8; ++changes) {
      auto at = size_t(random.below(int64_t(text.size()), drawn++)), length = size_t(random.below(30, drawn++));
      if (random.below(2, drawn++))
        text.erase(at, length);
      else
        text.insert(at, corpus().text.substr(size_t(random.below(100'000, drawn++)), length));
    }
    RecallScore score = score_recall(text);
    EXPECT_LE(score.right, score.total);
    EXPECT_GE(score.right, 0);
    lower += score.value() < before.value();
  }
  EXPECT_GE(lower, 195);  // damage before the first whole sentence counts for nothing
}

TEST(Recall, OfGarbageIsNothing) {
  EXPECT_EQ(score_recall("").total, 0);
  EXPECT_EQ(score_recall("").value(), 0);
  for (std::string garbage : {"no sentences here", "One two three. Four five. Six?", "\n\n\n\n\n\n",
                              "a. b. c.\n\nd. e.\n\nf.", "x\n\nThe lake has Tom. Who?\n\nMia gave gave.\n\n"})
    EXPECT_EQ(score_recall(garbage).right, 0) << garbage;
  EXPECT_EQ(score_recall("x\n\nThe lake has Tom. Who?\n\nMia gave gave.\n\n").total, 3);
  EXPECT_EQ(score_recall(std::string("\xFF\0{hero}\n\n", 10)).right, 0);
}

}  // namespace

#include "stories_grammar.h"

#include <map>

namespace rapt::inline RAPT_ABI::story_grammar {

namespace {

using Words = std::vector<std::string>;

// --- Facts. Within a list no two values begin alike, so that recalling a word is recalling one letter.

const Words kGirls = {"Ada", "Emma", "Greta", "Mia", "Olga", "Zoe"};
const Words kBoys = {"Ben", "Finn", "Hugo", "Leo", "Paul", "Tom"};
const Words kColours = {"red", "blue", "green", "yellow", "white", "pink", "silver", "violet", "crimson", "tan"};
const Words kObjects = {"acorn", "ball", "cup",  "drum",   "flute", "hat",
                        "jar",   "kite", "lamp", "mirror", "ring",  "shell"};
const Words kPlaces = {"in the garden", "at the market", "by the river",  "under the bridge", "on the hill",
                       "at the tower",  "in the forest", "at the school", "by the lake",      "in the castle"};
const Words kAnimals = {"badger", "cat", "dog", "fox", "goat", "mouse", "owl", "swan"};

// --- Rules: every alternative is equally likely. {name} is another rule, or a mention of a fact.

const std::map<std::string, Words> kRules = {
    {"story", {"{opening} {liked} {rest}"}},
    {"rest",
     {"{meet} {give}\n{ask_taker}\n\n", "{meet} {keep}\n{ask_keeper}\n\n", "{beast} {wish} {steal}\n{ask_thief}\n\n",
      "{beast} {wish} {rescue}\n{ask_owner}\n\n"}},

    // how it begins
    {"opening",
     {"One {weather} {day} little {hero} {saw} a {odd} {colour} {object}.",
      "Little {hero} {sat} {place} and {saw} a {odd} {colour} {object}."}},
    {"liked",
     {"Little {hero} {softly} {sniffed} the {colour} {object}.", "Little {hero} {sniffed} the {colour} {object}."}},

    // with a friend
    {"meet",
     {"Old {friend} came by and {asked} little {hero} for the {colour} {object}.",
      "{Soon} old {friend} {asked} little {hero} for the {colour} {object}."}},
    {"give",
     {"Little {hero} {softly} gave old {friend} the {colour} {object}, and old {friend} {laughed}.",
      "Little {hero} sold old {friend} the {colour} {object} for {price}.",
      "So {she} gave old {friend} the {colour} {object}, and {he} {laughed}."}},
    {"keep",
     {"But little {hero} {softly} kept the {colour} {object}, and old {friend} {laughed}.",
      "But little {hero} put the {colour} {object} in {her} {bag}, and old {friend} {laughed}.",
      "Little {hero} {laughed} and hid the {colour} {object} {nook}."}},

    // with an animal
    {"beast", {"{Soon} a {shy} {animal} came to little {hero}.", "A {shy} {animal} came by."}},
    {"wish",
     {"The {animal} wanted the {colour} {object}.", "The {animal} {sniffed} the {colour} {object} of little {hero}."}},
    {"steal",
     {"The {animal} {softly} took the {colour} {object}, and little {hero} {laughed}.",
      "Little {hero} gave the {animal} the {colour} {object} for {price}.",
      "So {she} {softly} gave the {animal} the {colour} {object}."}},
    {"rescue",
     {"Little {hero} gave the {animal} {tasty} {plums} and kept the {colour} {object}.",
      "The {animal} took the {colour} {object}, but little {hero} {softly} took it back.",
      "But little {hero} put the {colour} {object} in {her} {bag}."}},

    // what it was about
    {"ask_taker", {"Who has the {colour} {object}? Old {friend}.", "{ask_friend}", "{what}"}},
    {"ask_keeper", {"Who has the {colour} {object}? Little {hero}.", "{ask_friend}", "{what}"}},
    {"ask_thief", {"Who has the {colour} {object}? The {animal}.", "{ask_animal}", "{what}"}},
    {"ask_owner", {"Who has the {colour} {object}? Little {hero}.", "{ask_animal}", "{what}"}},
    {"ask_friend", {"Who met little {hero}? Old {friend}."}},
    {"ask_animal", {"Who met little {hero}? The {animal}."}},
    {"what", {"What did little {hero} see? The {colour} {object}.", "What colour was the {object}? {Colour}."}},

    {"sniffed",
     {"ate", "broke", "bit", "dropped", "found", "hugged", "kicked", "kissed", "licked", "liked", "loved", "praised",
      "pushed", "saw", "sniffed", "touched"}},
    // words
    {"weather",
     {"bright", "calm", "chilly", "clear", "cold",  "cool",  "damp",  "dry",   "dull",  "fine", "foggy", "fresh",
      "grey",   "hot",  "lovely", "mild",  "misty", "quiet", "rainy", "snowy", "sunny", "warm", "wet",   "windy"}},
    {"day", {"afternoon", "day", "evening", "Friday", "Monday", "morning", "night", "noon", "Sunday", "Thursday"}},
    {"sat", {"cooked", "danced", "dozed",   "dreamed", "drew",   "hummed", "jogged", "joked",
             "knelt",  "napped", "painted", "played",  "read",   "rested", "sang",   "sat",
             "slept",  "smiled", "stood",   "swam",    "walked", "waited", "worked", "yawned"}},
    {"Soon", {"Soon", "Later", "Suddenly", "Just then", "At last", "By chance"}},
    {"saw", {"saw", "found", "noticed", "spotted", "discovered", "got"}},
    {"odd", {"big",   "broken", "cheap",  "clean",   "cute", "dusty", "fancy",  "flat", "funny", "heavy", "huge",
             "lost",  "long",   "magic",  "muddy",   "neat", "new",   "pretty", "rare", "round", "rusty", "shiny",
             "small", "soft",   "sticky", "strange", "thin", "tiny",  "toy",    "warm", "wet",   "worn"}},
    {"nook",
     {"under a bench", "behind a bush", "beside a stone", "near a tree", "inside a boot", "on a wall", "behind a door",
      "on a chair", "under a bed", "near a well", "in a box", "beside a cart", "under a leaf", "in a nest", "on a roof",
      "inside a cave"}},
    {"softly", {"badly",   "bravely", "calmly", "fast",   "gladly", "gently",   "happily", "kindly",
                "lazily",  "loudly",  "neatly", "nicely", "often",  "politely", "proudly", "quickly",
                "quietly", "rudely",  "sadly",  "shyly",  "slowly", "softly",   "twice",   "wildly"}},
    {"asked",
     {"asked", "begged", "bribed", "called", "dressed", "fought", "hugged", "kissed", "nagged", "paid", "pushed",
      "robbed", "shook", "tickled", "visited", "woke"}},
    {"price",
     {"a coin", "a dance", "a hug", "a kiss", "a poem", "a promise", "a shoe", "a song", "four eggs", "nine nuts",
      "one cent", "six carrots", "ten pounds", "three cakes", "two plums", "some soup"}},
    {"bag", {"bag", "basket", "bed", "boat", "drawer", "lap", "pocket", "shoe"}},
    {"tasty",
     {"bitter", "brown", "cold", "crisp", "dry", "fresh", "fried", "hot", "juicy", "plain", "raw", "ripe", "salty",
      "sour", "sweet", "warm"}},
    {"plums",
     {"apples", "beans", "bread", "cakes", "carrots", "cheese", "fish", "grapes", "honey", "nuts", "pears", "pies",
      "plums", "rice", "soup", "toast"}},
    {"laughed",
     {"cheered", "chuckled", "clapped", "cried", "giggled", "grinned", "laughed", "left", "nodded", "shouted", "sighed",
      "sneezed", "waved", "went home", "whistled", "winked"}},
    {"shy",
     {"bold",  "brave", "clever", "clumsy", "fat", "fierce", "gentle", "hungry", "lame", "lazy",    "merry", "mad",
      "noisy", "plump", "proud",  "quick",  "sad", "shy",    "silly",  "sleepy", "sly",  "spotted", "tame",  "wild"}},
};

struct MentionName {
  Fact fact;
  Form form;
};
const std::map<std::string, MentionName> kMentions = {
    {"hero", {kHero, kPlain}},       {"she", {kHero, kPronoun}},    {"her", {kHero, kPossessive}},
    {"friend", {kFriend, kPlain}},   {"he", {kFriend, kPronoun}},   {"colour", {kColour, kPlain}},
    {"Colour", {kColour, kCapital}}, {"object", {kObject, kPlain}}, {"place", {kPlace, kPlain}},
    {"animal", {kAnimal, kPlain}},
};

Words joined(const Words& a, const Words& b) {
  Words all = a;
  all.insert(all.end(), b.begin(), b.end());
  return all;
}

Words capitals(Words words) {
  for (std::string& word : words)
    if (word[0] >= 'a') word[0] = char(word[0] - 'a' + 'A');
  return words;
}

/// The names in braces of a template.
Words names_in(std::string_view text) {
  Words names;
  for (size_t open = text.find('{'); open != text.npos; open = text.find('{', open + 1))
    names.emplace_back(text.substr(open + 1, text.find('}', open) - open - 1));
  return names;
}

/// Adds the nodes of a template that goes on at `next`; returns its first node.
int add(std::vector<StoryNode>& nodes, std::string_view text, int next) {
  auto push = [&](StoryNode node) {
    nodes.push_back(std::move(node));
    return int(nodes.size()) - 1;
  };
  // from the last part to the first, as each part has to know what follows
  while (!text.empty()) {
    if (text.back() != '}') {
      size_t begin = text.rfind('}') + 1;  // npos + 1 = 0
      next = push({.kind = StoryNode::kText, .text = std::string(text.substr(begin)), .next = {next}});
      text = text.substr(0, begin);
      continue;
    }
    size_t open = text.rfind('{');
    std::string name(text.substr(open + 1, text.size() - open - 2));
    text = text.substr(0, open);
    if (auto fact = kMentions.find(name); fact != kMentions.end()) {
      next = push({.kind = StoryNode::kMention, .next = {next}, .fact = fact->second.fact, .form = fact->second.form});
      continue;
    }
    auto rule = kRules.find(name);
    check(rule != kRules.end(), "stories: no rule is called {{{}}}", name);
    std::vector<int> alternatives;
    for (const std::string& alternative : rule->second) alternatives.push_back(add(nodes, alternative, next));
    next = alternatives.size() == 1 ? alternatives[0] : push({.kind = StoryNode::kBranch, .next = alternatives});
  }
  return next;
}

}  // namespace

int value_count(Fact fact) {
  switch (fact) {
    case kHero:
    case kFriend: return int(kGirls.size() + kBoys.size());
    case kColour: return int(kColours.size());
    case kObject: return int(kObjects.size());
    case kPlace: return int(kPlaces.size());
    default: return int(kAnimals.size());
  }
}

std::string_view mention(Fact fact, Form form, int value) {
  static const Words names = joined(kGirls, kBoys);
  static const Words capital_colours = capitals(kColours);
  bool girl = value < int(kGirls.size());
  if (form == kPronoun) return girl ? "she" : "he";
  if (form == kPossessive) return girl ? "her" : "his";
  auto i = size_t(value);
  switch (fact) {
    case kHero:
    case kFriend: return names[i];
    case kColour: return form == kCapital ? capital_colours[i] : kColours[i];
    case kObject: return kObjects[i];
    case kPlace: return kPlaces[i];
    default: return kAnimals[i];
  }
}

std::vector<int> allowed_values(Fact fact, const Facts& facts) {
  int begin = 0, end = value_count(fact);
  int other = fact == kHero ? facts[kFriend] : fact == kFriend ? facts[kHero] : -1;
  if (other >= 0) (other < int(kGirls.size()) ? begin : end) = int(kGirls.size());
  std::vector<int> values;
  for (int value = begin; value < end; ++value) values.push_back(value);
  return values;
}

Graph compile(std::string_view text) {
  Graph graph;
  graph.nodes.emplace_back();
  graph.start = add(graph.nodes, text, 0);
  return graph;
}

const Graph& story_graph() {
  static const Graph graph = compile("{story}");
  return graph;
}

const std::vector<std::vector<std::string>>& outlines() {
  static const std::vector<Words> all = [] {
    Words begin = names_in(kRules.at("story")[0]);
    begin.pop_back();  // {rest}
    std::vector<Words> outlines;
    for (const std::string& rest : kRules.at("rest")) outlines.push_back(joined(begin, names_in(rest)));
    return outlines;
  }();
  return all;
}

}  // namespace rapt::inline RAPT_ABI::story_grammar

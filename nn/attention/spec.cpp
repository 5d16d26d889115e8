#include "spec.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "../../core/nearest.h"

namespace rapt::inline RAPT_ABI {

namespace {

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts{""};
  for (char c : text) {
    if (c == at)
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

std::string joined(const std::set<std::string>& words) {
  std::string all;
  for (const std::string& w : words) all += (all.empty() ? "" : ", ") + w;
  return all;
}

bool begins_with_digit(const std::string& text) { return !text.empty() && std::isdigit((unsigned char)text[0]); }

// Whether a + between the two was meant as a sign: "window:+3", "scale:1e+3".
bool is_sign(const std::string& before, const std::string& after) {
  if (before.find(':') == std::string::npos || !begins_with_digit(after)) return false;
  const char last = before.back();
  if (last == ':' || last == ',' || last == '=') return true;
  return (last == 'e' || last == 'E') && begins_with_digit(before.substr(before.size() - 2));
}

// The word with an argument that is allowed.
std::string example_of(const std::string& name, const std::string& key, size_t place) {
  for (const char* word : {"drop:0.1", "longformer:256,4", "gqa:kv=1"}) {
    if (std::string(word).starts_with(name + ":")) return word;
  }
  return place == 0 ? name + ":8" : fmt::format("{}:{}=8", name, key);
}

}  // namespace

SpecWord::SpecWord(const std::string& text) : text_(text) {
  size_t colon = text.find(':');
  name_ = text.substr(0, colon);
  if (colon == text.npos) return;
  for (const std::string& argument : split(text.substr(colon + 1), ',')) {
    if (argument.empty()) fail("an argument is empty");
    size_t equal = argument.find('=');
    if (equal == argument.npos)
      arguments_.push_back({"", argument});
    else
      arguments_.push_back({argument.substr(0, equal), argument.substr(equal + 1)});
  }
}

void SpecWord::fail(const std::string& what) const {
  throw UsageError(fmt::format("attention word \"{}\": {}", text_, what));
}

const SpecWord::Argument* SpecWord::find(const std::string& key, size_t place) const {
  known_.insert(key);
  for (const Argument& a : arguments_) {
    if (a.key != key) continue;
    used_.insert(&a);
    return &a;
  }
  if (place < arguments_.size() && arguments_[place].key.empty()) {
    used_.insert(&arguments_[place]);
    return &arguments_[place];
  }
  return nullptr;
}

const SpecWord::Argument& SpecWord::required(const std::string& key, size_t place) const {
  const Argument* a = find(key, place);
  if (!a) fail(fmt::format("{} is missing, as in \"{}\"", key, example_of(name_, key, place)));
  return *a;
}

double SpecWord::parsed(const Argument& a, const std::string& key) const {
  char* end = nullptr;
  const double value = std::strtod(a.value.c_str(), &end);
  const bool digits = a.value.find_first_of("0123456789") != std::string::npos;  // neither "inf" nor "nan"
  if (!digits || *end != 0 || std::isnan(value)) fail(fmt::format("{} must be a number, got \"{}\"", key, a.value));
  return value;
}

double SpecWord::number(const std::string& key, size_t place) const {
  const Argument& a = required(key, place);
  const double value = parsed(a, key);
  using Limits = std::numeric_limits<Real>;
  if (!std::isfinite(Real(value)))
    fail(fmt::format("{} must be at most {} in size, got {}", key, Limits::max(), a.value));
  if (value != 0 && std::fabs(Real(value)) < Limits::min())
    fail(fmt::format("{} must be at least {} in size, got {}", key, Limits::min(), a.value));
  return value;
}

double SpecWord::number(const std::string& key, size_t place, double otherwise) const {
  return find(key, place) ? number(key, place) : otherwise;
}

int64_t SpecWord::whole(const std::string& key, size_t place, int64_t least, int64_t most) const {
  const Argument& a = required(key, place);
  const double value = parsed(a, key);
  if (value < double(least)) fail(fmt::format("{} must be at least {}, got {}", key, least, a.value));
  if (value > double(most)) fail(fmt::format("{} must be at most {}, got {}", key, most, a.value));
  if (value != std::floor(value)) fail(fmt::format("{} must be a whole number, got {}", key, a.value));
  return int64_t(value);
}

int64_t SpecWord::integer(const std::string& key, size_t place, int64_t least) const {
  return whole(key, place, least, kMost);
}

int64_t SpecWord::integer(const std::string& key, size_t place, int64_t least, int64_t otherwise, int64_t most) const {
  return find(key, place) ? whole(key, place, least, most) : otherwise;
}

uint64_t SpecWord::seed(const std::string& key, size_t place) const {
  const Argument& a = required(key, place);
  const char* end = a.value.data() + a.value.size();
  uint64_t digits = 0;
  const auto [stop, error] = std::from_chars(a.value.data(), end, digits);
  if (error == std::errc() && stop == end) return digits;  // exact, which a double is not from 2^53 on
  const double value = parsed(a, key);                     // 1e6
  if (!(value >= 0 && value < 0x1p64 && value == std::floor(value)))
    fail(fmt::format("{} must be a whole number from 0 to {}, got {}", key, std::numeric_limits<uint64_t>::max(),
                     a.value));
  return uint64_t(value);
}

std::string SpecWord::choice(size_t place, const std::vector<std::string>& allowed,
                             const std::string& otherwise) const {
  known_.insert(allowed.begin(), allowed.end());
  flags_.insert(allowed.begin(), allowed.end());
  if (place >= arguments_.size() || !arguments_[place].key.empty()) return otherwise;
  const Argument& a = arguments_[place];
  used_.insert(&a);
  if (std::ranges::find(allowed, a.value) == allowed.end()) {
    std::string near = nearest(a.value, allowed);
    fail(fmt::format("there is no \"{}\"{}; known are {}", a.value,
                     near.empty() ? "" : fmt::format(", did you mean \"{}\"?", near),
                     joined({allowed.begin(), allowed.end()})));
  }
  return a.value;
}

bool SpecWord::flag(const std::string& flag_name) const {
  known_.insert(flag_name);
  flags_.insert(flag_name);
  for (const Argument& a : arguments_) {
    if (!a.key.empty() || a.value != flag_name) continue;
    used_.insert(&a);
    return true;
  }
  return false;
}

void SpecWord::done() const {
  for (const Argument& a : arguments_) {
    if (used_.contains(&a)) continue;
    std::string given = a.key.empty() ? a.value : a.key;
    for (const Argument* other : used_) {
      if (other->key == a.key && (a.key.empty() ? other->value == a.value && flags_.contains(given) : true))
        fail(fmt::format("\"{}\" is given twice", given));
    }
    if (known_.contains(given)) {
      if (!flags_.contains(given)) fail(fmt::format("\"{0}\" needs a value, {0}=…", given));
      fail(fmt::format("\"{}\" {}", given, a.key.empty() ? "is one too many, one can be chosen" : "takes no value"));
    }
    std::string near = nearest(given, std::vector<std::string>(known_.begin(), known_.end()));
    fail(fmt::format("unknown argument \"{}\"{}{}", given,
                     near.empty() ? "" : fmt::format(", did you mean \"{}\"?", near),
                     known_.empty() ? "; it takes none" : "; known are " + joined(known_)));
  }
}

std::vector<std::string> specs_in_turn(const std::string& spec) {
  std::vector<std::string> specs = split(spec, '/');
  for (const std::string& one : specs) {
    check<UsageError>(!one.empty() || specs.size() == 1,
                      "attention \"{}\": the words of a layer are missing; layers that take turns are joined by single "
                      "slashes, as in mha+rope+window:256/mha+rope",
                      spec);
  }
  return specs;
}

std::vector<SpecWord> parse_spec(const std::string& spec) {
  std::vector<SpecWord> words;
  const std::vector<std::string> parts = split(spec, '+');
  for (size_t i = 0; i < parts.size(); ++i) {
    check<UsageError>(!parts[i].empty(), "attention \"{}\": a word is empty; words are joined by single + signs", spec);
    check<UsageError>(i + 1 == parts.size() || !is_sign(parts[i], parts[i + 1]),
                      "attention word \"{}+{}\": + joins words, so numbers are written without it", parts[i],
                      parts[i + 1 < parts.size() ? i + 1 : i]);
    words.emplace_back(parts[i]);
  }
  return words;
}

void unknown_word(const std::string& word, std::vector<std::string> known) {
  std::string near = nearest(word, known);
  std::ranges::sort(known);
  throw UsageError(fmt::format("attention: there is no word \"{}\"{}; known are {}", word,
                               near.empty() ? "" : fmt::format(", did you mean \"{}\"?", near),
                               joined({known.begin(), known.end()})));
}

std::vector<std::string> plain_words() {
  return {"causal", "window", "prefix", "chunked", "dilated",  "longformer", "scale",          "softcap", "plus-one",
          "relu",   "entmax", "topk",   "hard",    "inverted", "signed",     "stick-breaking", "drop"};
}

bool apply_plain_word(const SpecWord& w, int64_t heads, AttentionOptions& o) {
  const std::string& name = w.name();
  auto normalize = [&](const Normalizer& n) {
    if (o.normalizer.kind != Normalizer::Kind::softmax || o.normalizer.sink)
      w.fail(
          fmt::format("weights are already normalised by \"{}\"; one normaliser can be chosen", o.normalizer.name()));
    o.normalizer = n;
  };
  if (name == "causal") {
    o.mask = o.mask & (w.choice(0, {"top-left", "bottom-right"}, "") == "top-left" ? causal_top_left() : causal());
  } else if (name == "window") {
    int64_t left = w.integer("left", 0, 0), right = w.integer("right", 1, 0, left);
    if (left + right == 0) w.fail("a window of 0 reads nothing but the query's own position; give at least 1");
    o.mask = o.mask & window(left, right);
  } else if (name == "prefix") {
    o.mask = o.mask & prefix(w.integer("length", 0, 1));
  } else if (name == "chunked") {
    o.mask = o.mask & chunked(w.integer("length", 0, 1)) & causal();
  } else if (name == "dilated") {
    int64_t near = w.integer("near", 1, 0, 0);
    Mask every = dilated(w.integer("step", 0, 1));
    o.mask = o.mask & (near > 0 ? every | window(near) : every) & causal();
  } else if (name == "longformer") {
    o.mask = o.mask & (window(w.integer("window", 0, 1)) | global(w.integer("global", 1, 1)));
  } else if (name == "scale") {
    o.scale = w.number("factor", 0);
    if (o.scale == 0) w.fail("a scale of 0 makes all scores equal");
  } else if (name == "softcap" && w.has("cap", 0)) {
    double cap = w.number("cap", 0);
    if (cap <= 0) w.fail(fmt::format("the cap must be above 0, got {}", cap));
    o.score = o.score | softcap(cap);
  } else if (name == "plus-one") {
    normalize(softmax_plus_one(heads));
  } else if (name == "relu") {
    double power = w.number("power", 0, 1);
    if (power <= 0) w.fail(fmt::format("the power must be above 0, got {}", power));
    normalize(relu_weights(power));
  } else if (name == "entmax") {
    double alpha = w.number("alpha", 0, 1.5);
    if (!(alpha > 1 && alpha <= 2)) w.fail(fmt::format("alpha must be in (1, 2], got {}", alpha));
    normalize(entmax(alpha));
  } else if (name == "topk") {
    normalize(top_k(w.integer("k", 0, 1)));
  } else if (name == "hard") {
    normalize(hard_attention());
  } else if (name == "inverted") {
    normalize(inverted_softmax());
  } else if (name == "signed") {
    normalize(signed_softmax());
  } else if (name == "stick-breaking") {
    normalize(stick_breaking());
    o.mask = o.mask & strictly_causal();
  } else if (name == "drop") {
    double p = w.number("p", 0);
    if (!(p >= 0 && p <= 1)) w.fail(fmt::format("a probability is in [0, 1], got {}", p));
    o.dropout = p;
    if (w.has("seed", SpecWord::kNowhere)) o.dropout_state = WeightDropout{p, w.seed("seed", SpecWord::kNowhere), 0};
  } else {
    return false;
  }
  return true;
}

RotaryOptions rotary_options(const SpecWord& w) {
  constexpr size_t nowhere = SpecWord::kNowhere;
  RotaryOptions o;
  o.theta = w.number("theta", nowhere, o.theta);
  if (o.theta <= 1) w.fail(fmt::format("theta must be above 1, got {}", o.theta));
  o.dims = w.integer("dims", nowhere, 0, 0);
  if (o.dims % 2 != 0) w.fail(fmt::format("channels turn in pairs, so dims must be even, got {}", o.dims));
  if (w.flag("interleaved")) o.style = RotaryStyle::interleaved;
  o.xpos = w.name() == "xpos";
  const std::pair<const char*, RotaryScaling> scalings[] = {{"linear", RotaryScaling::linear},
                                                            {"ntk", RotaryScaling::ntk},
                                                            {"yarn", RotaryScaling::yarn},
                                                            {"llama3", RotaryScaling::llama3}};
  for (const auto& [scaling, kind] : scalings) {
    if (!w.has(scaling, nowhere)) continue;
    if (o.scaling != RotaryScaling::none) w.fail("only one scaling can be chosen");
    o.scaling = kind;
    o.factor = w.number(scaling, nowhere);
    if (o.factor < 1) w.fail(fmt::format("the factor must be at least 1, got {}", o.factor));
  }
  o.original_context = w.integer("original", nowhere, 1, 0);
  if ((o.scaling == RotaryScaling::yarn || o.scaling == RotaryScaling::llama3) && o.original_context == 0)
    w.fail("this scaling needs original=, the context that the model was trained on");
  return o;
}

}  // namespace rapt::inline RAPT_ABI

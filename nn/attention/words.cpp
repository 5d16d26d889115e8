#include "words.h"

#include <algorithm>

#include "differential.h"
#include "kernel.h"
#include "latent.h"
#include "recurrent.h"
#include "relative.h"
#include "sparse.h"
#include "spec.h"

namespace rapt::inline RAPT_ABI {

namespace {

using LayerPointer = std::unique_ptr<AttentionLayer>;

struct Build {
  const AttentionLayerSizes& sizes;
  GroupedQueryOptions options = {};
  std::vector<PartPointer> parts = {};
  // Made when all words are read: a family that takes parts, or one that doesn't.
  std::function<std::unique_ptr<GroupedQueryAttention>()> family = {};
  std::function<LayerPointer()> layer = {};
  bool turns = false;  // whether that layer takes rotary positions
  std::optional<RotaryOptions> rotary = {};
  std::string normalizer = {};  // the word that chose one

  void choose_normalizer(const SpecWord& w) {
    if (!normalizer.empty()) w.fail(fmt::format("\"{}\" is a normaliser already; one can be chosen", normalizer));
    normalizer = w.text();
  }

  PartSizes part_sizes() const {
    int64_t kv = options.key_value_heads > 0 ? options.key_value_heads : sizes.heads;
    int64_t head_dim = options.head_dim > 0 ? options.head_dim : sizes.dim / sizes.heads;
    return {sizes.dim, sizes.heads, kv, head_dim, sizes.context};
  }
};

RecurrentOptions recurrent_options(const SpecWord& w, const Build& b) {
  return {.key_value_heads = w.integer("kv", SpecWord::kNowhere, 1, 0),
          .bias = b.sizes.bias,
          .qkv_deviation = b.sizes.qkv_deviation,
          .proj_deviation = b.sizes.proj_deviation};
}

template <class Layer>
void recurrent(const SpecWord& w, Build& b) {
  RecurrentOptions common = recurrent_options(w, b);
  if constexpr (std::is_same_v<Layer, Performer>) {
    PerformerOptions o;
    o.features = w.integer("features", SpecWord::kNowhere, 1, 0);
    o.seed = uint64_t(b.sizes.layer);
    o.common = common;
    b.layer = [&b, o] { return std::make_unique<Layer>(b.sizes.dim, b.sizes.heads, o); };
  } else {
    b.turns = !std::is_same_v<Layer, LinearAttention>;
    b.layer = [&b, common]() mutable {
      common.rotary = b.rotary;
      return std::make_unique<Layer>(b.sizes.dim, b.sizes.heads, common);
    };
  }
}

void check_divides(const SpecWord& w, const Build& b, int64_t kv) {
  if (b.sizes.heads % kv != 0) w.fail(fmt::format("{} key-value heads do not divide {} heads", kv, b.sizes.heads));
}

void kernel_family(const SpecWord& w, Build& b) {
  std::string name = w.choice(0, {"gaussian", "laplace", "epanechnikov", "boxcar"}, "gaussian");
  SmoothingKernel kernel = name == "laplace"        ? SmoothingKernel::laplace
                           : name == "epanechnikov" ? SmoothingKernel::epanechnikov
                           : name == "boxcar"       ? SmoothingKernel::boxcar
                                                    : SmoothingKernel::gaussian;
  const bool normalize = !w.flag("sum");
  if (name == "epanechnikov" || name == "boxcar" || !normalize) b.choose_normalizer(w);
  b.family = [&b, kernel, normalize] {
    return std::make_unique<KernelAttention>(b.sizes.dim, b.sizes.heads, KernelOptions{b.options, kernel, normalize});
  };
}

void latent_family(const SpecWord& w, Build& b) {
  LatentOptions o;
  o.rank_q = w.integer("rank-q", SpecWord::kNowhere, 1, 0);
  o.rank_kv = w.integer("rank", SpecWord::kNowhere, 1, 0);
  o.d_rope = w.integer("rope", SpecWord::kNowhere, 2, 0);
  o.bias = b.sizes.bias;
  o.qkv_deviation = b.sizes.qkv_deviation;
  o.proj_deviation = b.sizes.proj_deviation;
  b.turns = true;
  b.layer = [&b, o]() mutable {
    o.rotary = b.rotary.value_or(RotaryOptions{});
    return std::make_unique<MultiHeadLatentAttention>(b.sizes.dim, b.sizes.heads, o);
  };
}

void differential_family(const SpecWord& w, Build& b) {
  DifferentialOptions o;
  o.key_value_heads = w.integer("kv", SpecWord::kNowhere, 1, 0);
  o.depth = b.sizes.layer;
  o.bias = b.sizes.bias;
  o.qkv_deviation = b.sizes.qkv_deviation;
  o.proj_deviation = b.sizes.proj_deviation;
  b.turns = true;
  b.layer = [&b, o]() mutable {
    o.rotary = b.rotary;
    return std::make_unique<DifferentialAttention>(b.sizes.dim, b.sizes.heads, o);
  };
}

enum class Kind { family, layer, position, part, normalizer };  // layer: a family that takes no parts

struct Word {
  const char* name;
  const char* usage;
  const char* help;
  Kind kind;
  void (*apply)(const SpecWord&, Build&);
};

const std::vector<Word>& words() {
  static const std::vector<Word> all{
      {"mha", "mha", "multi-head attention (the default)", Kind::family, [](const SpecWord&, Build&) {}},
      {"gqa", "gqa:kv=2", "grouped queries: 2 key-value heads", Kind::family,
       [](const SpecWord& w, Build& b) {
         b.options.key_value_heads = w.integer("kv", 0, 1);
         check_divides(w, b, b.options.key_value_heads);
       }},
      {"mqa", "mqa", "one key-value head", Kind::family,
       [](const SpecWord&, Build& b) { b.options.key_value_heads = 1; }},
      {"kernel", "kernel:gaussian",
       "weights from distances: gaussian, laplace, epanechnikov or boxcar; with sum not divided by their sum",
       Kind::family, kernel_family},
      {"deberta", "deberta:reach=64", "disentangled content and position", Kind::family,
       [](const SpecWord& w, Build& b) {
         int64_t reach = w.integer("reach", 0, 1, 64);
         b.family = [&b, reach] {
           return std::make_unique<DebertaAttention>(b.sizes.dim, b.sizes.heads, DebertaOptions{b.options, reach});
         };
       }},
      {"moba", "moba:block=64,count=4", "mixture of blocks: the 4 blocks whose mean key suits best", Kind::family,
       [](const SpecWord& w, Build& b) {
         int64_t block = w.integer("block", SpecWord::kNowhere, 1, 64),
                 count = w.integer("count", SpecWord::kNowhere, 1, 4);
         b.family = [&b, block, count] {
           return std::make_unique<MixtureOfBlockAttention>(b.sizes.dim, b.sizes.heads,
                                                            MixtureOfBlockOptions{b.options, block, count});
         };
       }},
      {"nsa", "nsa:block=32,count=4,window=64", "native sparse: compressed blocks, selected blocks and a window",
       Kind::family,
       [](const SpecWord& w, Build& b) {
         NativeSparseOptions o;
         o.block = w.integer("block", SpecWord::kNowhere, 1, o.block);
         o.count = w.integer("count", SpecWord::kNowhere, 1, o.count);
         o.window = w.integer("window", SpecWord::kNowhere, 1, o.window);
         b.family = [&b, o]() mutable {
           o.common = b.options;
           return std::make_unique<NativeSparseAttention>(b.sizes.dim, b.sizes.heads, o);
         };
       }},
      {"mla", "mla:rank=64,rope=16",
       "multi-head latent attention: keys and values from 64 numbers, rotary positions in 16; rank-q=R", Kind::layer,
       latent_family},
      {"differential", "differential:kv=2", "the difference of two softmaxes; takes rope", Kind::layer,
       differential_family},
      {"linear", "linear", "linear attention, elu + 1", Kind::layer, recurrent<LinearAttention>},
      {"performer", "performer:features=64", "softmax by random features", Kind::layer, recurrent<Performer>},
      {"retention", "retention", "RetNet: fixed decays, and rotary positions in interleaved pairs; takes rope",
       Kind::layer, recurrent<RetentiveAttention>},
      {"gla", "gla", "gated linear attention: learned decays; takes rope", Kind::layer,
       recurrent<GatedLinearAttention>},
      {"delta", "delta", "DeltaNet; takes rope", Kind::layer, recurrent<DeltaNet>},
      {"gated-delta", "gated-delta", "gated DeltaNet, q and k of length 1; takes rope", Kind::layer,
       recurrent<GatedDeltaNet>},

      {"rope", "rope:theta=10000,interleaved,dims=R",
       "rotary positions; scaled by linear=F, ntk=F, or yarn=F or llama3=F "
       "with original=N",
       Kind::position,
       [](const SpecWord& w, Build& b) {
         if (b.turns) {
           b.rotary = rotary_options(w);
         } else {
           b.parts.push_back(rotary_part(rotary_options(w)));
         }
       }},
      {"xpos", "xpos", "rotary positions that fade with the distance", Kind::position,
       [](const SpecWord& w, Build& b) { b.parts.push_back(rotary_part(rotary_options(w))); }},
      {"alibi", "alibi:learned", "scores fall with the distance, by fixed or learned slopes", Kind::position,
       [](const SpecWord& w, Build& b) { b.parts.push_back(alibi_part(b.part_sizes(), w.flag("learned"))); }},
      {"t5", "t5:buckets=32,max=128",
       "a learned number for each bucket of distances; q k is scaled, T5 itself has scale:1", Kind::position,
       [](const SpecWord& w, Build& b) {
         b.parts.push_back(t5_part(b.part_sizes(), w.integer("buckets", SpecWord::kNowhere, 2, 32),
                                   w.integer("max", SpecWord::kNowhere, 2, 128, kMostT5Reach)));
       }},
      {"distance", "distance", "a learned number for each distance", Kind::position,
       [](const SpecWord&, Build& b) { b.parts.push_back(distance_part(b.part_sizes())); }},
      {"dynamic", "dynamic:hidden=32", "a small network of the distance", Kind::position,
       [](const SpecWord& w, Build& b) {
         b.parts.push_back(dynamic_bias_part(b.sizes.heads, {.hidden = w.integer("hidden", 0, 1, 32)}));
       }},
      {"shaw", "shaw:16", "learned keys and values for each distance, clipped at 16", Kind::position,
       [](const SpecWord& w, Build& b) { b.parts.push_back(shaw_part(b.part_sizes(), w.integer("reach", 0, 1, 16))); }},
      {"xl", "xl", "Transformer-XL's relative positions", Kind::position,
       [](const SpecWord&, Build& b) { b.parts.push_back(transformer_xl_part(b.part_sizes())); }},
      {"forget", "forget", "forget gates", Kind::position,
       [](const SpecWord&, Build& b) { b.parts.push_back(forget_part(b.part_sizes())); }},
      {"cope", "cope:64", "contextual positions, 64 of them", Kind::position,
       [](const SpecWord& w, Build& b) {
         b.parts.push_back(contextual_part(
             b.part_sizes(),
             w.integer("positions", 0, 2, std::min<int64_t>(64, std::max<int64_t>(2, b.sizes.context)))));
       }},

      {"bigbird", "bigbird:window=3,global=1,random=2,block=64,seed=0",
       "blocks of 64: the position's own and the 2 before it, the first, and 2 at random", Kind::part,
       [](const SpecWord& w, Build& b) {
         BigBirdOptions o;
         o.window = w.integer("window", SpecWord::kNowhere, 1, o.window);
         o.global = w.integer("global", SpecWord::kNowhere, 0, o.global);
         o.random = w.integer("random", SpecWord::kNowhere, 0, o.random);
         o.block = w.integer("block", SpecWord::kNowhere, 1, o.block);
         if (w.has("seed", SpecWord::kNowhere)) o.seed = w.seed("seed", SpecWord::kNowhere);
         o.layer = uint64_t(b.sizes.layer);
         Mask mask = bigbird(b.sizes.context, o);
         b.parts.push_back(plain_part(w.name(), [mask](AttentionOptions& call) { call.mask = call.mask & mask; }));
       }},
      {"qk-norm", "qk-norm", "RMS norm of queries and keys", Kind::part,
       [](const SpecWord&, Build& b) { b.parts.push_back(qk_norm_part(b.part_sizes())); }},
      {"cosine", "cosine", "queries and keys of length 1, learned temperature", Kind::part,
       [](const SpecWord&, Build& b) { b.parts.push_back(cosine_part(b.part_sizes())); }},
      {"temperature", "temperature", "a learned factor for each head", Kind::part,
       [](const SpecWord&, Build& b) { b.parts.push_back(temperature_part(b.part_sizes())); }},
      {"memory", "memory:16", "16 learned keys and values", Kind::part,
       [](const SpecWord& w, Build& b) {
         b.parts.push_back(memory_part(b.part_sizes(), w.integer("count", 0, 1, 16)));
       }},
      {"gate", "gate", "the result times sigmoid(gate(x))", Kind::part,
       [](const SpecWord&, Build& b) { b.parts.push_back(gate_part(b.part_sizes())); }},
      {"head-dim", "head-dim:32", "width of a head, instead of dim / heads", Kind::part,
       [](const SpecWord& w, Build& b) { b.options.head_dim = w.integer("width", 0, 1); }},
      {"sink", "sink", "a learned score that every row has besides", Kind::normalizer,
       [](const SpecWord&, Build& b) { b.parts.push_back(sink_part(b.part_sizes())); }},
      {"sigmoid", "sigmoid", "weights sigmoid(s + b)", Kind::normalizer,
       [](const SpecWord&, Build& b) { b.parts.push_back(sigmoid_part(b.part_sizes())); }},
      {"stick-breaking", "stick-breaking", "each key takes its part sigmoid(s + b) of what the nearer ones left",
       Kind::normalizer, [](const SpecWord&, Build& b) { b.parts.push_back(stick_breaking_part(b.part_sizes())); }},
      {"talking", "talking", "scores and weights mixed over the heads", Kind::normalizer,
       [](const SpecWord&, Build& b) { b.parts.push_back(talking_part(b.part_sizes())); }},
  };
  return all;
}

// Plain words that mean something in a causal layer.
struct PlainWord {
  const char* usage;
  const char* help;
  bool normalizer = false;
};
constexpr PlainWord kPlainWords[] = {
    {"window:256", "reads its own position and the 256 before it"},
    {"chunked:256", "reads its own chunk of 256 positions"},
    {"dilated:2,8", "reads the 8 positions before it, and every second of the others"},
    {"longformer:256,4", "the same, and the first 4 positions"},
    {"scale:0.125", "of q k, instead of 1/sqrt(D)"},
    {"softcap:30", "30 tanh(s / 30)"},
    {"drop:0.1", "drops weights while training"},
    {"plus-one", "softmax with one more term 1", true},
    {"relu:2", "max(0, s)^2", true},
    {"topk:8", "softmax of the 8 largest scores", true},
    {"entmax:1.5", "sparse weights", true},
    {"signed", "sign(s) softmax(|s|)", true},
};

// Words of which the layer would lose one, or not be what either says.
struct Clash {
  std::set<std::string> one, other;
  const char* why;
};
const std::vector<Clash>& clashes() {
  static const std::vector<Clash> all{
      {{"kernel"},
       {"scale", "xl", "shaw"},
       "the score would not be a function of the distance between query and key any more"},
      {{"deberta", "cosine"}, {"scale"}, "that sets a scale of its own"},
      {{"deberta"}, {"cosine"}, "each of them sets a scale of its own"},
      {{"memory"}, {"forget", "kernel", "deberta", "moba"}, "that has something for each key of the sequence"},
      {{"xl", "shaw"},
       {"topk", "entmax", "stick-breaking", "cope", "talking"},
       "that needs whole rows, which have no relative terms"},
      {{"xl"}, {"rope", "xpos", "shaw"}, "each says where a key stands, and would change what the other adds"},
      {{"rope"}, {"xpos"}, "both turn queries and keys"},
  };
  return all;
}

void check_together(const std::vector<SpecWord>& given) {
  std::set<std::string> names;
  for (const SpecWord& w : given) names.insert(w.name());
  for (const Clash& clash : clashes()) {
    for (const SpecWord& w : given) {
      if (!clash.one.contains(w.name())) continue;
      for (const std::string& name : names) {
        if (clash.other.contains(name)) w.fail(fmt::format("it doesn't go with \"{}\": {}", name, clash.why));
      }
    }
  }
  if (!names.contains("nsa")) return;
  for (const SpecWord& w : given) {
    static const std::set<std::string> fit{"nsa", "causal", "rope", "xpos", "qk-norm", "gate", "head-dim"};
    if (!fit.contains(w.name()))
      w.fail(
          "it would change one of the three attentions of nsa; that goes with rope, xpos, qk-norm, gate and head-dim");
  }
}

// A causal layer leaves out what some words say in general.
void check_causal(const SpecWord& w) {
  if (w.name() == "window" && w.has("right", 1))
    w.fail("nothing behind a position is read anyway; write the left side alone");
  if (w.name() == "drop" && w.has("seed", SpecWord::kNowhere))
    w.fail("the seed is the run's; one of its own would drop the same weights in every step");
}

std::string word_of(const char* usage) {
  std::string text = usage;
  return text.substr(0, text.find(':'));
}

std::vector<std::string> known_words() {
  std::vector<std::string> all{"causal"};
  for (const Word& w : words()) all.emplace_back(w.name);
  for (const PlainWord& w : kPlainWords) all.push_back(word_of(w.usage));
  return all;
}

}  // namespace

LayerPointer make_attention(const std::string& spec, const AttentionLayerSizes& sizes) {
  const std::vector<std::string> turns = specs_in_turn(spec);
  Build build{sizes};
  GroupedQueryOptions& o = build.options;
  o.bias = sizes.bias;
  o.dropout = sizes.dropout;
  o.qkv_deviation = sizes.qkv_deviation;
  o.proj_deviation = sizes.proj_deviation;

  std::string family;
  std::set<std::string> seen;
  std::vector<SpecWord> given = parse_spec(turns[size_t(sizes.layer) % turns.size()]);
  const std::string first = given.front().name();
  // Parts are as wide as a head. Masks and the scale are of q·k itself; memory is read whatever the masks say, and
  // what is written for each key is written for it too.
  auto rank = [](const SpecWord& w) {
    static const std::set<std::string> early{"scale",      "window",  "chunked",       "dilated",
                                             "longformer", "bigbird", "stick-breaking"};
    for (const Word& word : words()) {
      if (w.name() == word.name && (word.kind == Kind::family || word.kind == Kind::layer)) return 0;
    }
    return w.name() == "head-dim" ? 1 : early.contains(w.name()) ? 2 : w.name() == "memory" ? 3 : 4;
  };
  std::ranges::stable_sort(given, {}, rank);
  for (const SpecWord& w : given) {
    if (!seen.insert(w.name()).second) w.fail("it is there twice");
    if (build.layer && !(build.turns && w.name() == "rope"))
      w.fail(fmt::format("\"{}\" has no scores or weights to change; it stands alone", family));
    auto known = std::ranges::find_if(words(), [&](const Word& word) { return word.name == w.name(); });
    if (known != words().end()) {
      if (known->kind == Kind::family || known->kind == Kind::layer) {
        if (!family.empty()) w.fail(fmt::format("\"{}\" is a family already; one can be chosen", family));
        if (w.name() != first) w.fail("it names a family, which comes first");
        family = w.name();
      }
      if (known->kind == Kind::normalizer || w.name() == "cope") build.choose_normalizer(w);
      known->apply(w, build);
    } else if (w.name() != "causal") {
      auto plain =
          std::ranges::find_if(kPlainWords, [&](const PlainWord& word) { return word_of(word.usage) == w.name(); });
      if (plain == std::end(kPlainWords)) unknown_word(w.name(), known_words());
      if (plain->normalizer) build.choose_normalizer(w);
      check_causal(w);
      AttentionOptions probe;
      if (!apply_plain_word(w, sizes.heads, probe))
        w.fail(fmt::format("its number is missing, as in \"{}\"", plain->usage));
      SpecWord word = w;
      int64_t heads = sizes.heads;
      build.parts.push_back(
          plain_part(w.name(), [word, heads](AttentionOptions& options) { apply_plain_word(word, heads, options); }));
    }
    w.done();
  }
  check_together(given);
  if (build.layer) return build.layer();
  if (!build.family) return std::make_unique<GroupedQueryAttention>(sizes.dim, sizes.heads, o, std::move(build.parts));
  std::unique_ptr<GroupedQueryAttention> layer = build.family();
  for (PartPointer& part : build.parts) layer->add(std::move(part));
  return layer;
}

void check_attention(const std::string& spec, const AttentionLayerSizes& sizes) {
  const int64_t count = std::min<int64_t>(3, sizes.context);
  for (const std::string& one : specs_in_turn(spec)) {
    const std::unique_ptr<AttentionLayer> layer = make_attention(one, sizes);
    EvalMode eval;
    NoGrad no_grad;
    try {
      (*layer)(reshape(arange(count * sizes.dim) / double(count * sizes.dim) - 0.5, {1, count, sizes.dim}));
    } catch (const Error& error) {
      throw UsageError(fmt::format("attention \"{}\": {}", one, error.what()));
    }
  }
}

bool has_positions(const std::string& spec) {
  auto positional = [](const SpecWord& w) {
    return std::ranges::any_of(words(), [&](const Word& known) {
      return known.name == w.name() &&
             (known.kind == Kind::position || w.name() == "retention" || w.name() == "mla" || w.name() == "deberta");
    });
  };
  return std::ranges::any_of(specs_in_turn(spec),
                             [&](const std::string& one) { return std::ranges::any_of(parse_spec(one), positional); });
}

std::string describe_attention_words() {
  std::string all =
      "Attention is spelled in words joined by +: a family first, then whatever changes it, in the order in which it\n"
      "applies. All attention in a model is causal. Layers take turns in what / joins: mha+rope+window:256/mha+rope\n"
      "has a window in every second layer, beginning with the first.\n";
  auto section = [&](const char* title, Kind kind) {
    all += fmt::format("\n{}\n", title);
    for (const Word& w : words()) {
      if (w.kind == kind) all += fmt::format("  {:<36} {}\n", w.usage, w.help);
    }
  };
  section("families:", Kind::family);
  section("families that stand alone (the last ones have no scores, and are linear in the sequence):", Kind::layer);
  section("positions (without one in any layer, the model learns a position embedding):", Kind::position);
  section("parts:", Kind::part);
  for (const PlainWord& w : kPlainWords) {
    if (!w.normalizer) all += fmt::format("  {:<36} {}\n", w.usage, w.help);
  }
  section("normalisers, at most one (softmax without):", Kind::normalizer);
  for (const PlainWord& w : kPlainWords) {
    if (w.normalizer) all += fmt::format("  {:<36} {}\n", w.usage, w.help);
  }
  all +=
      "\nexamples: mha   mha+rope   gqa:kv=2+rope+qk-norm   mha+alibi:learned   kernel:gaussian+rope\n"
      "          gqa:kv=2+rope:theta=10000+window:256+sink+softcap:30   gated-delta\n";
  return all;
}

std::vector<std::string> example_specs(int64_t context) {
  auto part = [&](int64_t of) { return std::max<int64_t>(1, context / of); };
  auto usage_of = [&](const std::string& name, const char* usage) {
    if (name == "moba") return fmt::format("moba:block={},count=4", part(16));
    if (name == "nsa") return fmt::format("nsa:block={},count={},window={}", part(32), part(8), part(4));
    if (name == "bigbird") return fmt::format("bigbird:window=5,global=1,random=3,block={}", part(16));
    if (name == "window") return fmt::format("window:{}", part(2));
    if (name == "chunked") return fmt::format("chunked:{}", std::max<int64_t>(1, 3 * context / 4));
    if (name == "longformer") return fmt::format("longformer:{},{}", part(2), part(32));
    return std::string(usage);
  };
  std::vector<std::string> all;
  for (const Word& w : words()) {
    std::string name = w.name, usage = usage_of(name, w.usage);
    const char* form = "mha+rope+qk-norm+{0}";  // rotary positions and norms help the others to learn
    if (name == "gla")
      form = "{1}+rope";
    else if (name == "mha" || w.kind == Kind::layer)
      form = name == "mla" ? "{0}" : "{1}";
    else if (w.kind == Kind::family)
      form = name == "deberta" ? "{1}+qk-norm" : "{0}+rope+qk-norm";
    else if (w.kind == Kind::position)
      form = name == "rope" ? "mha+rope" : "mha+{0}+qk-norm";
    else if (name == "qk-norm")
      form = "mha+rope+qk-norm";
    all.push_back(fmt::format(fmt::runtime(form), usage, name));
  }
  for (const PlainWord& w : kPlainWords) {
    const std::string name = word_of(w.usage);
    // Nothing of an earlier chunk is ever read unless other layers read everything.
    const char* before = name == "chunked" ? "mha+rope+qk-norm/" : "";
    all.push_back(fmt::format("{}mha+rope+qk-norm+{}", before, usage_of(name, w.usage)));
  }
  // Other forms of these words; kernel:boxcar is none, because its queries and keys have no gradient.
  for (const char* spec : {"kernel:laplace+rope+qk-norm", "kernel:epanechnikov+rope+qk-norm", "differential+rope",
                           "mha+alibi", "mha+rope:yarn=2,original=64"})
    all.emplace_back(spec);
  return all;
}

}  // namespace rapt::inline RAPT_ABI

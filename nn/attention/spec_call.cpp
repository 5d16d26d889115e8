#include "spec_call.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <tuple>

#include "../../autograd/ops/recurrence.h"
#include "../../core/attention/problem.h"
#include "kernel.h"

namespace rapt::inline RAPT_ABI {

namespace {

std::string quoted(const SpecWord& w) { return fmt::format("attention word \"{}\"", w.text()); }

struct Builder {
  SpecCall& call;
  const SpecTensors& tensors;

  int64_t heads() const { return call.q.shape[1]; }
  AttentionOptions& options() const { return call.options; }
  void modify(const Score& score) const { options().score = options().score | score; }
  void normalize(const SpecWord& w, const Normalizer& n) const {
    const Normalizer& old = options().normalizer;
    if (old.kind != Normalizer::Kind::softmax || old.sink)
      w.fail(fmt::format("weights are already normalised by \"{}\"; one normaliser can be chosen", old.name()));
    options().normalizer = n;
  }

  // Tensors of the file. `shape` says which are right: "(P, D) or (H, P, D)", "that broadcasts to (B, H, N, M)". A word
  // reads its arguments first: a wrong one is wrong whatever the file has.
  Tensor real(const SpecWord& w, const char* name, const std::string& shape) const {
    w.done();
    const Tensor& x = tensors.real(quoted(w), name, shape);
    check_shape(w, name, shape, x.shape);
    return x;
  }
  Tokens integer(const SpecWord& w, const char* name, const std::string& shape) const {
    w.done();
    const Tokens& x = tensors.integer(quoted(w), name, shape);
    check_shape(w, name, shape, x.shape);
    return x;
  }
  // (H), with dimensions of size 1 behind it, or what broadcasts to `shape`.
  Tensor per_head(const SpecWord& w, const char* name, const std::string& shape) const {
    w.done();
    const Tensor& x = tensors.real(quoted(w), name, shape);
    const std::string full = shape.substr(shape.rfind('('));
    const bool one_each = x.rank() == 1 && x.numel() > 1;
    check_shape(w, name, one_each ? "(H)" : fmt::format("that broadcasts to {}", full), x.shape);
    Shape spread = x.shape;
    for (int64_t n = std::ranges::count(full, ','); one_each && n > 1; --n) spread.push_back(1);
    return one_each ? reshape(x, spread) : x;
  }
  void check_shape(const SpecWord& w, const char* name, const std::string& shape, const Shape& is) const;
  int64_t size(const std::string& letter) const;
};

// What a letter in the shape of a word's tensor stands for; −1: any size, −2: any odd one.
int64_t Builder::size(const std::string& letter) const {
  const Shape &q = call.q.shape, &k = call.k.shape, &v = call.v.shape;
  const std::pair<const char*, int64_t> known[] = {
      {"1", 1},     {"B", q[0]},  {"H", q[1]},
      {"N", q[2]},  {"M", k[2]},  {"D", q[3]},
      {"Dv", v[3]}, {"2C+1", -2}, {"N+M-1", std::max<int64_t>(0, q[2] + k[2] - 1)}};
  for (const auto& [text, value] : known) {
    if (letter == text) return value;
  }
  return -1;
}

void Builder::check_shape(const SpecWord& w, const char* name, const std::string& shape, const Shape& is) const {
  const bool broadcast = shape.starts_with("that broadcasts");
  std::string expected;
  bool fits = false;
  for (size_t open = shape.find('('); open != std::string::npos; open = shape.find('(', open + 1)) {
    const size_t close = shape.find(')', open);
    const std::string letters = shape.substr(open + 1, close - open - 1);
    std::vector<int64_t> sizes;
    std::string numbers;
    for (size_t at = 0, comma; at < letters.size(); at = comma + 2) {
      comma = std::min(letters.find(", ", at), letters.size());
      const std::string letter = letters.substr(at, comma - at);
      sizes.push_back(size(letter));
      numbers += fmt::format("{}{}", at == 0 ? "" : ", ", sizes.back() < 0 ? letter : std::to_string(sizes.back()));
    }
    const int rank = int(sizes.size());
    bool right = broadcast ? is.rank <= rank : is.rank == rank;
    for (int d = 1; right && d <= is.rank; ++d) {
      const int64_t allowed = sizes[size_t(rank - d)], got = is[-d];
      right = allowed == -1 || (allowed == -2 && got % 2 == 1) || got == allowed || (broadcast && got == 1);
    }
    fits |= right;
    expected += fmt::format("{}({}) = ({})", expected.empty() ? "" : " or ", letters, numbers);
  }
  check<DataError>(fits, "{}: expected {} {}{}, got {}", quoted(w), name, broadcast ? "that broadcasts to " : "",
                   expected, is);
}

void t5_word(const SpecWord& w, Builder b) {
  const int64_t reach = w.integer("max", SpecWord::kNowhere, 1, 128, kMostT5Reach),
                buckets = w.integer("buckets", SpecWord::kNowhere, 2, 0);
  const bool bidirectional = w.flag("bidirectional");
  const Tensor table = b.real(w, "table", "(H, buckets)");
  const int64_t exact = table.shape[1] / (bidirectional ? 4 : 2);
  if (buckets != 0 && buckets != table.shape[1])
    w.fail(fmt::format("buckets={}, but the file's table is {}", buckets, table.shape));
  if (reach <= exact)
    w.fail(fmt::format("max must be above {}, the distances with a bucket of their own in the file's table {}, got {}",
                       exact, table.shape, reach));
  try {
    b.modify(t5_bias(table, reach, bidirectional));
  } catch (const Error& error) {
    throw DataError(fmt::format("{}: {}", quoted(w), error.what()));
  }
}

void blocks_word(const SpecWord& w, Builder b) {
  const int64_t size = w.integer("size", 0, 1);
  const Tokens blocks = b.integer(w, "blocks", "(M/SIZE, M/SIZE)");
  const int64_t queries = b.call.q.shape[2], keys = b.call.k.shape[2];
  check<DataError>(queries <= keys,
                   "{}: blocks are counted from the first key, before which no query may stand, but there are more "
                   "queries than keys: N = {}, M = {}",
                   quoted(w), queries, keys);
  b.options().mask = b.options().mask & block_list(blocks, size);
}

void softcap_word(const SpecWord& w, Builder b) {
  const Tensor c = b.per_head(w, "c", "(), (H) or (B, H, N, M)");
  for (Real x : c.to_vector())
    check<DataError>(x > 0 && std::isfinite(x), "{}: expected c above 0 and finite, got {}", quoted(w), x);
  b.modify(softcap(c));
}

void rope_word(const SpecWord& w, Builder b) {
  RotaryEmbedding rotary(rotary_options(w));
  w.done();
  const int64_t dims = rotary.options().dims, width = b.call.q.shape[3];
  check<DataError>(dims <= width, "{}: {} channels can't turn, q {} has {}", quoted(w), dims, b.call.q.shape, width);
  check<DataError>(dims > 0 || width % 2 == 0, "{}: channels turn in pairs, but q {} has {}", quoted(w), b.call.q.shape,
                   width);
  // the last query stands at the last key
  int64_t offset = b.call.k.shape[2] - b.call.q.shape[2];
  if (offset < 0) w.fail("there are more queries than keys, so the first have no position");
  b.call.q = rotary.queries(b.call.q, offset);
  b.call.k = rotary.keys(b.call.k, 0);
}

struct CallWord {
  const char* name;
  const char* usage;  // word, arguments, [tensors]
  const char* help;
  void (*apply)(const SpecWord&, Builder);
};

void kernel_word(const SpecWord& w, Builder b) {
  const bool normalize = !w.flag("sum");
  w.done();
  const Tensor h = b.real(w, "h", "(H)");
  SpecCall& c = b.call;
  for (Real x : h.to_vector()) check<DataError>(!(x <= 0), "{}: expected h above 0, got {}", quoted(w), x);
  const SmoothingKernel kernel = w.name() == "rbf"       ? SmoothingKernel::gaussian
                                 : w.name() == "laplace" ? SmoothingKernel::laplace
                                 : w.name() == "boxcar"  ? SmoothingKernel::boxcar
                                                         : SmoothingKernel::epanechnikov;
  const AttentionOptions o = kernel_options(kernel, c.q, c.k, h, normalize);
  c.options.scale = o.scale;
  b.modify(o.score);
  if (o.normalizer.weight) b.normalize(w, o.normalizer);
}

void recurrence_word(const SpecWord& w, Builder b) {
  SpecCall& c = b.call;
  c.recurrence = w.name();
  if (w.name() == "linear") c.normalize = w.flag("normalize");
  const bool unit_length = (w.name() == "delta" || w.name() == "gated-delta") && w.flag("l2");
  w.done();
  auto strength = [&] { return b.per_head(w, "beta", "(B, H, N)"); };
  auto log_decay = [&](const char* name) {
    const Tensor x = b.per_head(w, name, "(H) or (B, H, N)");
    for (Real value : x.to_vector()) {
      check<DataError>(!(value < 0), "{}: expected {} of at least 0, got {}", quoted(w), name, value);
      if (value == 0 && x.node)
        c.without_gradient = fmt::format(
            "{}: {} has a 0; its gradient goes through the logarithm, which needs numbers above 0", quoted(w), name);
    }
    return log(x);
  };
  if (w.name() == "retention") c.decay = log_decay("gamma");
  if (w.name() == "delta") c.beta = strength();
  if (w.name() == "gated-delta") {
    c.decay = log_decay("alpha");
    c.beta = strength();
  }
  check<DataError>(c.q.shape[2] == c.k.shape[2], "{}: a recurrence has as many queries as keys, got q {} and k {}",
                   quoted(w), c.q.shape, c.k.shape);
  if (unit_length) {
    auto unit = [](const Tensor& x) { return x / sqrt(sum(x * x, {-1}, true) + 1e-12); };
    c.q = unit(c.q);
    c.k = unit(c.k);
  }
}

void shaw_word(const SpecWord& w, Builder b) {
  const Tensor rk = b.real(w, "rk", "(2C+1, D)"), rv = b.real(w, "rv", "(2C+1, Dv)");
  SpecCall& c = b.call;
  check<DataError>(rv.shape[0] == rk.shape[0], "{}: rk (2C+1, D) and rv (2C+1, Dv) must have the same C, got {} and {}",
                   quoted(w), rk.shape, rv.shape);
  const int64_t reach = rk.shape[0] / 2;
  double scale = c.options.scale != 0 ? c.options.scale : 1 / std::sqrt(double(c.q.shape[3]));
  b.modify(score_modifier(
      "shaw",
      [reach](auto s, At at, auto t) {
        return s + t(at.batch, at.head, at.row, std::clamp<int64_t>(at.key - at.query, -reach, reach) + reach);
      },
      matmul(c.q * scale, transpose(rk, 0, 1))));
  c.options.relative_values = rv;
}

void xl_word(const SpecWord& w, Builder b) {
  SpecCall& c = b.call;
  auto per_channel = [&](const char* name) { return unsqueeze(b.real(w, name, "(H, D)"), 1); };
  Tensor q = c.q;
  c.options.relative_queries = q + per_channel("w");
  c.options.relative_keys = b.real(w, "r", "(H, N+M-1, D) or (1, N+M-1, D)");
  c.q = q + per_channel("u");
}

const std::vector<CallWord>& call_words() {
  static const std::vector<CallWord> all{
      {"mha", "mha", "plain attention; may be left out", [](const SpecWord&, Builder) {}},
      {"document", "document [document i64 (B, M)]", "query and key in the same document",
       [](const SpecWord& w, Builder b) {
         b.options().mask = b.options().mask & document(b.integer(w, "document", "(B, M) or (1, M)"));
       }},
      {"padding", "padding [pad bool (B, M)]", "keys where pad is true are not read",
       [](const SpecWord& w, Builder b) {
         b.options().mask = b.options().mask & key_padding(b.integer(w, "pad", "(B, M) or (1, M)"));
       }},
      {"mask", "mask [keep bool]", "entries where keep, broadcast to (B, H, N, M), is true are read",
       [](const SpecWord& w, Builder b) {
         b.options().mask =
             b.options().mask & keep_where(b.real(w, "keep", "that broadcasts to (B, H, N, M)").detach());
       }},
      {"blocks", "blocks:SIZE [blocks i64 or bool (M/SIZE, M/SIZE)]",
       "entries in blocks of SIZE x SIZE positions where blocks is not 0 are read", blocks_word},
      {"bias", "bias [bias]", "added to the score, broadcast to (B, H, N, M)",
       [](const SpecWord& w, Builder b) { b.modify(bias(b.real(w, "bias", "that broadcasts to (B, H, N, M)"))); }},
      {"softcap", "softcap:CAP or softcap [c]", "c tanh(s / c)", softcap_word},
      {"temperature", "temperature [t (H)]", "s times t",
       [](const SpecWord& w, Builder b) { b.modify(temperature(b.per_head(w, "t", "(H) or (B, H, N, M)"))); }},
      {"alibi", "alibi [slope (H)]", "s - slope |key - query|",
       [](const SpecWord& w, Builder b) { b.modify(alibi(b.real(w, "slope", "(H)"))); }},
      {"t5", "t5:buckets=32,max=128,bidirectional [table (H, buckets)]",
       "s + table of the distance's bucket; s is scaled by 1/sqrt(D), T5 itself has scale:1", t5_word},
      {"distance", "distance [table (H, N+M-1)]", "s + table at key - query + N - 1",
       [](const SpecWord& w, Builder b) { b.modify(relative_bias(b.real(w, "table", "(H, N+M-1)"))); }},
      {"forget", "forget [f (B, H, M)]", "s + the sum of the log gates f after the key, up to the query",
       [](const SpecWord& w, Builder b) { b.modify(forget_gates(b.real(w, "f", "(B, H, M)"))); }},
      {"shaw", "shaw [rk (2C+1, D), rv (2C+1, Dv)]", "keys and values with a vector for each clipped distance",
       shaw_word},
      {"xl", "xl [u (H, D), w (H, D), r (H, N+M-1, D)]", "Transformer-XL: (q + u) k + (q + w) r at key - query + N - 1",
       xl_word},
      {"cope", "cope [e (P, D) or (H, P, D)]", "contextual positions: q e at the sum of the gates",
       [](const SpecWord& w, Builder b) {
         const Tensor e = b.real(w, "e", "(P, D) or (H, P, D)");
         check<DataError>(e.shape[-2] >= 2, "{}: expected at least 2 positions P, got e {}", quoted(w), e.shape);
         b.normalize(w, contextual_positions(matmul(b.call.q, transpose(e, -1, -2))));
       }},
      {"sink", "sink [sink (H)]", "one more score in every row, of a key without a value",
       [](const SpecWord& w, Builder b) { b.normalize(w, softmax_with_sink(b.real(w, "sink", "(H)"))); }},
      {"sigmoid", "sigmoid [b (H)]", "weights sigmoid(s + b)",
       [](const SpecWord& w, Builder b) {
         b.modify(bias(b.per_head(w, "b", "(H) or (B, H, N, M)")));
         b.normalize(w, sigmoid_weights());
       }},
      {"rbf", "rbf [h (H)]", "exp(-|q - k|^2 / 2h^2), divided by its sum; rbf:sum without", kernel_word},
      {"laplace", "laplace [h (H)]", "exp(-|q - k| / h), likewise", kernel_word},
      {"epanechnikov", "epanechnikov [h (H)]", "max(0, 1 - |q - k|^2 / h^2), likewise", kernel_word},
      {"boxcar", "boxcar [h (H)]", "1 where |q - k| < h, likewise", kernel_word},
      {"talking", "talking [pre (H, H), post (H, H)]", "scores and weights mixed over the heads",
       [](const SpecWord& w, Builder b) {
         const Tensor before = b.real(w, "pre", "(H, H)");
         b.normalize(w, talking_heads(before, b.real(w, "post", "(H, H)")));
       }},
      {"rope", "rope:theta=10000,interleaved,dims=R", "rotary positions of q and k", rope_word},
      {"linear", "linear:normalize", "S += k v; o = S q (causal; with normalize over q times the sum of k)",
       recurrence_word},
      {"retention", "retention [gamma (H)]", "S = gamma S + k v; o = S q", recurrence_word},
      {"delta", "delta:l2 [beta (B, H, N)]", "S += beta k (v - S k); o = S q; q and k as they are, with l2 of length 1",
       recurrence_word},
      {"gated-delta", "gated-delta:l2 [alpha (B, H, N), beta (B, H, N)]",
       "the same from alpha S; the paper's q and k have length 1: write l2", recurrence_word},
  };
  return all;
}

constexpr const char* kPlainHelp =
    "  causal, causal:top-left             keys up to the query; aligned at the end, or at the beginning\n"
    "  window:L,R                          keys from L before the query to R behind it\n"
    "  prefix:P                            causal, but all read the first P keys; causal beside it changes nothing\n"
    "  chunked:C                           causal, in chunks of C positions\n"
    "  dilated:D,W                         causal, every D-th key, and the W before the query (0 without it)\n"
    "  longformer:W,G                      window W, and G positions that read and are read by all\n"
    "  scale:X                             of q k; 1/sqrt(D) without it\n"
    "  plus-one                            softmax with one more term 1\n"
    "  relu:P, entmax:A, topk:K, hard      max(0, s)^P; entmax; the K largest of a row; the largest alone\n"
    "  inverted, signed                    softmax over the queries, then over the row; sign(s) softmax(|s|)\n"
    "  stick-breaking                      strictly causal\n"
    "  drop:P,seed=S                       drops weights with probability P\n";

using WordNames = std::set<std::string>;

// A score may be changed in the same way again after something else; for other words a second one would be lost or
// means the same as one.
const WordNames& score_words() {
  static const WordNames all{"softcap", "temperature", "bias", "alibi", "t5", "distance", "forget"};
  return all;
}
const WordNames& kernel_words() {
  static const WordNames all{"rbf", "laplace", "epanechnikov", "boxcar"};
  return all;
}
const WordNames& recurrence_words() {
  static const WordNames all{"linear", "retention", "delta", "gated-delta"};
  return all;
}
const WordNames& normalizer_words() {
  static const WordNames all{"plus-one", "relu",           "entmax", "topk",    "hard",    "inverted",     "signed",
                             "sink",     "stick-breaking", "cope",   "sigmoid", "talking", "epanechnikov", "boxcar"};
  return all;
}

// Distances come from q·k, so a kernel takes it as it is: what is in the way stands before it, or anywhere.
void check_kernel(const std::vector<SpecWord>& words) {
  auto kernel = std::ranges::find_if(words, [](const SpecWord& w) { return kernel_words().contains(w.name()); });
  if (kernel == words.end()) return;
  for (auto w = words.begin(); w != words.end(); ++w) {
    const std::string& name = w->name();
    const bool before = w < kernel, changes_score = score_words().contains(name) || name == "sigmoid";
    if (name == "scale" || (before && (changes_score || name == "xl" || name == "shaw")))
      kernel->fail("distances come from q·k as it is: no scale goes with it, and no xl and no score word before it");
    if (!before && (name == "xl" || name == "shaw" || name == "rope" || (w != kernel && kernel_words().contains(name))))
      w->fail(fmt::format("after {} the score would not be a function of |q - k| any more", kernel->name()));
  }
}

// Unknown words, and contradictions between known ones: whatever the file has, and first.
void check_words(const std::string& spec, const std::vector<SpecWord>& words) {
  std::vector<std::string> known = plain_words();
  for (const CallWord& w : call_words()) known.emplace_back(w.name);
  WordNames seen;
  std::string normalizer, recurrence;
  for (const SpecWord& w : words) {
    const std::string& name = w.name();
    if (std::ranges::find(known, name) == known.end()) unknown_word(name, known);
    if (!seen.insert(name).second && !score_words().contains(name)) w.fail("it is there twice");
    if (normalizer_words().contains(name) || (kernel_words().contains(name) && w.flag("sum"))) {
      if (!normalizer.empty())
        w.fail(fmt::format("weights are already normalised by \"{}\"; one normaliser can be chosen", normalizer));
      normalizer = name;
    }
    if (recurrence_words().contains(name)) recurrence = name;
  }
  for (const SpecWord& w : words) {
    if (seen.contains("prefix") && w.text() == "causal:top-left")
      w.fail("a prefix is causal as aligned at the end, at the bottom right");
    if (w.name() == "xl" && seen.contains("shaw"))
      w.fail(
          "it doesn't go with \"shaw\": both add a term of the distance, and shaw's would have u or not by the order");
    if (w.name() == "xl" && seen.contains("rope"))
      w.fail("it doesn't go with \"rope\", which would turn either u or the queries of r");
    const bool fits = recurrence.empty() || w.name() == recurrence || w.text() == "causal" || w.name() == "rope" ||
                      w.name() == "scale" || w.name() == "mha";
    check<UsageError>(fits,
                      "attention \"{}\": {} is a recurrence without scores or weights; it goes with rope, scale and "
                      "causal alone",
                      spec, recurrence);
  }
  check_kernel(words);
}

// Positions of a chunk of a recurrence; its dense twin is one chunk.
int64_t chunk_length(const SpecCall& call, bool dense) { return dense ? std::max<int64_t>(1, call.q.shape[2]) : 32; }

// What the reader gives, if there is one; its errors begin with who wanted it.
template <class T>
std::optional<T> read_wanted(const std::string& who, const std::string& name,
                             const std::function<std::optional<T>(const std::string&)>& read) {
  if (!read) return std::nullopt;
  try {
    return read(name);
  } catch (const DataError& error) {
    throw DataError(fmt::format("{}: {}", who, error.what()));
  }
}

}  // namespace

const Tensor& SpecTensors::real(const std::string& who, const std::string& name, const std::string& shape) const {
  auto found = reals.find(name);
  if (found == reals.end()) {
    std::optional<Tensor> read = read_wanted(who, name, read_real);
    check<DataError>(read.has_value(), "{} needs a tensor \"{}\" {}, which is missing", who, name, shape);
    found = reals.emplace(name, std::move(*read)).first;
  }
  used.insert(name);
  return found->second;
}

const Tokens& SpecTensors::integer(const std::string& who, const std::string& name, const std::string& shape) const {
  auto found = integers.find(name);
  if (found == integers.end()) {
    std::optional<Tokens> read = read_wanted(who, name, read_integer);
    check<DataError>(read.has_value(), "{} needs an integer tensor \"{}\" {}, which is missing", who, name, shape);
    found = integers.emplace(name, std::move(*read)).first;
  }
  used.insert(name);
  return found->second;
}

SpecCall spec_call(const std::string& spec, const SpecTensors& tensors) {
  std::vector<SpecWord> words = parse_spec(spec);
  check_words(spec, words);
  SpecCall call;
  for (const auto& [name, shape, to] :
       {std::tuple("q", "(B, H, N, D)", &call.q), std::tuple("k", "(B, Hkv, M, D)", &call.k),
        std::tuple("v", "(B, Hkv, M, Dv)", &call.v)}) {
    *to = tensors.real("attention", name, shape);
    check<DataError>(to->rank() == 4, "attention: {} must be {}, but is {}", name, shape, to->shape);
  }
  Builder builder{call, tensors};
  // What is wrong with the file is told when all words have been read: a wrong argument of a later one comes first.
  std::exception_ptr fault;
  auto attempt = [&](const std::function<void()>& read) {
    try {
      read();
    } catch (const UsageError&) {
      throw;
    } catch (const Error&) {
      if (!fault) fault = std::current_exception();
    }
  };
  attempt([&] {
    attention_problem("attention", {call.q.detach(), call.k.detach(), call.v.detach(), call.options, {}, {}});
  });
  // the scale is of q·k, before whatever other words do to a score
  std::stable_partition(words.begin(), words.end(), [](const SpecWord& w) { return w.name() == "scale"; });
  const bool has_prefix = std::ranges::any_of(words, [](const SpecWord& w) { return w.name() == "prefix"; });
  for (const SpecWord& word : words) {
    attempt([&] {
      AttentionOptions ignored;
      const bool included = has_prefix && word.name() == "causal";  // a prefix is causal, but for the first keys
      if (!apply_plain_word(word, builder.heads(), included ? ignored : call.options)) {
        auto known = std::ranges::find_if(call_words(), [&](const CallWord& w) { return w.name == word.name(); });
        known->apply(word, builder);  // check_words has seen that it is there
      }
      word.done();
    });
  }
  if (fault) std::rethrow_exception(fault);
  return call;
}

bool SpecCall::has_lse() const {
  const Normalizer& n = options.normalizer;
  if (!recurrence.empty() || n.kind == Normalizer::Kind::elementwise) return false;
  return !n.rows || (n.rows->name() != "entmax" && n.rows->name() != "stick-breaking");
}

bool SpecCall::has_tiles() const {
  const bool relative = options.relative_keys || options.relative_values;
  return !relative || (!options.normalizer.rows && options.normalizer.kind != Normalizer::Kind::inverted);
}

AttentionResult SpecCall::run(bool dense) const {
  if (recurrence.empty())
    return dense ? attention_dense_with_lse(q, k, v, options) : attention_with_lse(q, k, v, options);
  const int64_t chunk = chunk_length(*this, dense);
  Tensor scaled = options.scale == 0 ? q : q * options.scale;
  if (recurrence == "linear") return {linear_attention(scaled, k, v, {.normalize = normalize, .chunk = chunk}), {}};
  if (recurrence == "retention") return {decay_attention(scaled, k, v, decay, chunk), {}};
  return {delta_rule(scaled, k, v, beta, decay, chunk), {}};
}

std::string SpecCall::explain(bool dense) const {
  if (recurrence.empty() && !dense) return to_string(rapt::explain(q.shape, k.shape, v.shape, options));
  if (recurrence.empty()) {
    std::vector<Tensor> tables;
    for (const Tensor& t : options.tables()) tables.push_back(t.detach());
    const AttentionOptions& o = options;
    const ScoreShape s = attention_problem("attention", {q.detach(), k.detach(), v.detach(), o, tables, {}}).scores();
    const double bytes = double(s.batch * s.heads) * double(s.queries) * double(s.keys) * double(sizeof(Real));
    return fmt::format(
        "mask {}, score {}, {}{}{}{}, with whole matrices\n"
        "scores, weights and what is between them: (B, H, N, M) = ({}, {}, {}, {}), {:.3g} MB each",
        o.mask.name(), o.score.name(), o.normalizer.name(), o.relative_keys ? ", relative keys" : "",
        o.relative_values ? ", relative values" : "", o.dropout > 0 ? fmt::format(", dropout {}", o.dropout) : "",
        s.batch, s.heads, s.queries, s.keys, bytes / (1 << 20));
  }
  const Recurrence kind = recurrence == "linear"      ? (normalize ? Recurrence::linear_normalized : Recurrence::linear)
                          : recurrence == "retention" ? Recurrence::decay
                          : decay                     ? Recurrence::gated_delta
                                                      : Recurrence::delta;
  return to_string(rapt::explain(kind, q.shape, k.shape, v.shape, decay.shape, chunk_length(*this, dense)));
}

std::string describe_spec_words() {
  std::string all = kPlainHelp;
  for (const CallWord& w : call_words()) {
    std::string usage = w.usage;
    all += usage.size() < 35 ? fmt::format("  {:<35} {}\n", usage, w.help)
                             : fmt::format("  {}\n  {:<35} {}\n", usage, "", w.help);
  }
  return all;
}

}  // namespace rapt::inline RAPT_ABI

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "../../core/random.h"
#include "../../data/formats/safetensors.h"
#include "../../nn/attention/spec_call.h"
#include "../expect.h"
#include "program.h"

namespace rapt::test {
namespace {

struct File {
  std::map<std::string, Tensor> reals;
  std::map<std::string, std::vector<int64_t>> integers;  // as one row; see shapes
  std::map<std::string, std::vector<int64_t>> shapes;
  std::map<std::string, Dtype> dtypes;  // of one number each, of any kind

  void write(const std::string& path) const {
    std::vector<TensorView> views;
    for (const auto& [name, tensor] : reals) views.push_back(tensor_view(name, tensor));
    for (const auto& [name, values] : integers) {
      TensorView view = tensor_view(name, std::span<const int64_t>(values));
      view.shape = shapes.at(name);
      views.push_back(view);
    }
    static constexpr std::byte kBytes[8] = {};
    for (const auto& [name, dtype] : dtypes)
      views.push_back({name, dtype, {1}, std::span(kBytes).first(size_t(bits_of(dtype)) / 8)});
    write_safetensors(path, views);
  }
};

constexpr int64_t B = 2, H = 4, G = 2, N = 20, M = 23, D = 8, Dv = 6;

File inputs(bool with_dlse = true) {
  manual_seed(5);
  File f;
  f.reals = {{"q", normal({B, H, N, D})},
             {"k", normal({B, G, M, D})},
             {"v", normal({B, G, M, Dv})},
             {"dout", normal({B, H, N, Dv})}};
  if (with_dlse) f.reals["dlse"] = normal({B, H, N});
  return f;
}

// Every word of the grammar, once by tiles and once with whole matrices: the same names and numbers in both files.
TEST(AttentionProgram, EveryWordAgreesWithItsDenseTwin) {
  TemporaryFolder folder;
  auto add = [](File f, std::initializer_list<std::pair<const char*, Tensor>> more) {
    for (const auto& [name, tensor] : more) f.reals[name] = tensor;
    return f;
  };
  File f = inputs(), without = inputs(false), square = inputs(false);
  square.reals["k"] = normal({B, G, N, D}, 0, Real(0.3));
  square.reals["v"] = normal({B, G, N, Dv});
  File documents = f, padded = f, listed = f;
  listed.shapes["blocks"] = {4, 4};
  listed.integers["blocks"] = {1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 1, 0, 0, 1};
  documents.shapes["document"] = padded.shapes["pad"] = {B, M};
  for (int64_t i = 0; i < B * M; ++i) {
    documents.integers["document"].push_back(i % M / 8);
    padded.integers["pad"].push_back(i % 3 == 0);
  }
  auto per_head = [](double low, double high) { return uniform({H}, Real(low), Real(high)); };
  std::vector<std::pair<std::string, File>> cases{
      {"mha", f},
      {"causal", f},
      {"causal:top-left", f},
      {"window:3,2", f},
      {"causal+prefix:4", f},
      {"chunked:5", f},
      {"dilated:2", f},
      {"dilated:3,2", f},
      {"longformer:3,2", f},
      {"document", documents},
      {"padding", padded},
      {"blocks:6", listed},
      {"causal+blocks:7", listed},
      {"mask", add(f, {{"keep", from_values({N, 1}, std::vector<Real>(N, 1))}})},
      {"bias", add(f, {{"bias", normal({H, N, 1})}})},
      {"scale:0.3+softcap:3", f},
      {"softcap", add(f, {{"c", per_head(1, 3)}})},
      {"temperature", add(f, {{"t", per_head(0.5, 2)}})},
      {"causal+alibi", add(f, {{"slope", per_head(0, 1)}})},
      {"t5:buckets=8,max=16,bidirectional", add(f, {{"table", normal({H, 8})}})},
      {"distance", add(f, {{"table", normal({H, N + M - 1})}})},
      {"forget", add(f, {{"f", uniform({B, H, M}, -1, 0)}})},
      {"shaw", add(f, {{"rk", normal({7, D})}, {"rv", normal({7, Dv})}})},
      {"softcap:3+softcap:2", f},
      {"xl", add(f, {{"u", normal({H, D})}, {"w", normal({H, D})}, {"r", normal({H, N + M - 1, D})}})},
      {"causal+cope", add(f, {{"e", normal({5, D})}})},
      {"stick-breaking", without},
      {"sink", add(f, {{"sink", normal({H})}})},
      {"plus-one", f},
      {"sigmoid", add(without, {{"b", normal({H})}})},
      {"relu:2", without},
      {"entmax:1.5", without},
      {"topk:3", f},
      {"hard", f},
      {"inverted", f},
      {"signed", f},
      {"rbf", add(f, {{"h", per_head(1, 2)}})},
      {"rbf:sum", add(without, {{"h", per_head(1, 2)}})},
      {"laplace", add(f, {{"h", per_head(1, 2)}})},
      {"epanechnikov:sum", add(without, {{"h", per_head(4, 6)}})},
      {"epanechnikov", add(f, {{"h", per_head(4, 6)}})},
      {"boxcar", add(f, {{"h", per_head(4, 6)}})},
      {"talking", add(f, {{"pre", normal({H, H})}, {"post", normal({H, H})}})},
      {"linear", square},
      {"retention", add(square, {{"gamma", per_head(0.5, 1)}})},
      {"delta", add(square, {{"beta", uniform({B, H, N})}})},
      {"gated-delta", add(square, {{"alpha", uniform({B, H, N}, Real(0.5), 1)}, {"beta", uniform({B, H, N})}})},
      {"rope:theta=100,interleaved", f},
      {"drop:0.3,seed=7", f},
      {"drop:0.3,seed=18446744073709551615", f},
      {"causal+rope+window:9,0+softcap:5+sink+drop:0.1,seed=3", add(f, {{"sink", normal({H})}})},
  };
  for (const auto& [spec, file] : cases) {
    SCOPED_TRACE(spec);
    file.write(folder / "in.safetensors");
    std::string command = "attention --backward --spec '" + spec + "' --in in.safetensors --out ";
    Result tiled = rapt(folder, command + "tiled.safetensors"),
           dense = rapt(folder, command + "dense.safetensors --dense");
    ASSERT_EQ(tiled.code, 0) << tiled.err;
    ASSERT_EQ(dense.code, 0) << dense.err;
    Safetensors a = Safetensors::open(folder / "tiled.safetensors"),
                b = Safetensors::open(folder / "dense.safetensors");
    ASSERT_EQ(a.tensors().size(), b.tensors().size());
    for (const auto& [name, tensor] : file.reals) {
      if (name == "dout" || name == "dlse" || name == "keep") continue;
      if (spec == "boxcar" && name == "h") continue;
      ASSERT_TRUE(a.find("d" + name)) << name;
      EXPECT_EQ(a.tensor("d" + name).shape, tensor.shape);
    }
    bool has_lse = spec != "linear" && spec != "retention" && !spec.ends_with("delta");
    EXPECT_EQ(a.find("lse") != nullptr, has_lse);
    for (const TensorView& view : a.tensors())
      EXPECT_LE(relative_difference(a.tensor(view.name), b.tensor(view.name)), 5e-5) << view.name;
  }
}

// out by one specification and by another.
void expect_same(const TemporaryFolder& folder, const std::string& a, const std::string& b, bool same = true) {
  for (const auto& [spec, to] : {std::pair{a, "a.safetensors"}, std::pair{b, "b.safetensors"}}) {
    Result r = rapt(folder, "attention --spec '" + spec + "' --in in.safetensors --out " + to);
    ASSERT_EQ(r.code, 0) << r.err;
  }
  Tensor x = Safetensors::open(folder / "a.safetensors").tensor("out"),
         y = Safetensors::open(folder / "b.safetensors").tensor("out");
  EXPECT_EQ(x.to_vector() == y.to_vector(), same) << a << " and " << b;
}

TEST(AttentionProgram, PrefixAndScaleMeanTheSameInAnyOrder) {
  TemporaryFolder folder;
  File f = inputs(false);
  f.reals["rk"] = normal({7, D});
  f.reals["rv"] = normal({7, Dv});
  f.shapes["document"] = {B, M};
  for (int64_t i = 0; i < B * M; ++i) f.integers["document"].push_back(i % M / 12);
  f.write(folder / "in.safetensors");
  expect_same(folder, "prefix:12", "causal", false);
  for (const char* spec : {"causal+prefix:12", "prefix:12+causal", "prefix:12+causal:bottom-right"})
    expect_same(folder, "prefix:12", spec);
  for (const char* spec : {"document+causal+prefix:12", "document+prefix:12+causal", "causal+document+prefix:12"})
    expect_same(folder, "document+prefix:12", spec);
  expect_same(folder, "scale:0.3+shaw", "shaw+scale:0.3");
  expect_same(folder, "scale:0.3+shaw", "shaw", false);
}

// Where b of the sigmoid, xl's term and shaw's stand among the score words.
TEST(AttentionProgram, TermsAreAddedWhereTheGrammarSays) {
  TemporaryFolder folder;
  File f = inputs(false);
  f.reals["b"] = normal({H});
  f.reals["bias"] = reshape(f.reals["b"], {H, 1, 1});
  f.reals["rk"] = normal({7, D});
  f.reals["rv"] = zeros({7, Dv});
  f.reals["u"] = normal({H, D});
  f.reals["w"] = normal({H, D});
  f.reals["r"] = normal({H, N + M - 1, D});
  f.write(folder / "in.safetensors");
  expect_same(folder, "sigmoid+softcap:0.5", "softcap:0.5+sigmoid", false);
  expect_same(folder, "xl+softcap:0.5", "softcap:0.5+xl");
  expect_same(folder, "xl+softcap:0.5", "xl", false);
  expect_same(folder, "shaw+softcap:0.5", "softcap:0.5+shaw", false);
  f.reals["b"] = zeros({H});
  f.write(folder / "zero.safetensors");
  // softcap:C+sigmoid is σ(cap(s) + b), the other σ(cap(s + b))
  for (const auto& [spec, same] : {std::pair("sigmoid+softcap:0.5", "bias+softcap:0.5+sigmoid"),
                                   std::pair("softcap:0.5+sigmoid", "softcap:0.5+bias+sigmoid")}) {
    ASSERT_EQ(rapt(folder, fmt::format("attention --spec {} --in in.safetensors --out a", spec)).code, 0);
    ASSERT_EQ(rapt(folder, fmt::format("attention --spec {} --in zero.safetensors --out b", same)).code, 0);
    Tensor a = Safetensors::open(folder / "a").tensor("out"), b = Safetensors::open(folder / "b").tensor("out");
    EXPECT_LE(relative_difference(a, b), 1e-6) << spec;
  }
}

// Whole numbers of any size: what no word reads is not looked at, and documents are told apart by all 64 bits.
TEST(AttentionProgram, WholeNumbersOfAnySize) {
  TemporaryFolder folder;
  File f = inputs(false);
  f.shapes["document"] = f.shapes["pad"] = {B, M};
  for (int64_t i = 0; i < B * M; ++i) {
    f.integers["document"].push_back(i % M / 8);
    f.integers["pad"].push_back(i % 3 == 0);
  }
  f.write(folder / "in.safetensors");
  ASSERT_EQ(rapt(folder, "attention --spec document+padding --in in.safetensors --out small").code, 0);
  f.integers["extra"] = {int64_t{1} << 40, std::numeric_limits<int64_t>::min()};
  f.shapes["extra"] = {2};
  f.dtypes = {{"eighth", Dtype::kF8_E4M3}, {"complex", Dtype::kC64}};
  for (int64_t& id : f.integers["document"]) id = id * (int64_t{1} << 32) - (int64_t{1} << 62);
  for (int64_t& pad : f.integers["pad"]) pad *= int64_t{1} << 32;
  f.write(folder / "in.safetensors");
  Result r = rapt(folder, "attention --spec document+padding --in in.safetensors --out large");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(Safetensors::open(folder / "small").tensor("out").to_vector(),
            Safetensors::open(folder / "large").tensor("out").to_vector());
}

// What whole matrices alone carry.
TEST(AttentionProgram, ExplainsAndBenchesWholeMatrices) {
  TemporaryFolder folder;
  File f = inputs(false);
  f.reals["rk"] = normal({7, D});
  f.reals["rv"] = normal({7, Dv});
  f.write(folder / "in.safetensors");
  for (const char* spec : {"topk:2+shaw", "inverted+shaw"}) {
    const std::string command = fmt::format("attention --in in.safetensors --spec {} ", spec);
    for (const char* what : {"--explain", "--bench", "--out o"}) {
      Result r = rapt(folder, command + what);
      EXPECT_EQ(r.code, 2) << r.err;
      expect_contains(r.err, "give --dense");
    }
    Result plan = rapt(folder, command + "--dense --explain --out o");
    EXPECT_EQ(plan.code, 0) << plan.err;
    expect_contains(plan.out, "with whole matrices\n");
    expect_contains(plan.out, "(2, 4, 20, 23)");
    EXPECT_TRUE(std::filesystem::exists(folder.path / "o"));
    std::filesystem::remove(folder.path / "o");
    Result bench = rapt(folder, command + "--dense --bench");
    EXPECT_EQ(bench.code, 0) << bench.err;
    expect_contains(bench.out, "dense: forward");
    expect_contains(bench.out, "no tiled form to compare with");
  }
  Result plan = rapt(folder, "attention --in in.safetensors --spec causal --dense --explain");
  expect_contains(plan.out, "mask causal");
  expect_contains(plan.out, "with whole matrices");
  EXPECT_EQ(plan.out.find("tiles"), std::string::npos) << plan.out;
  Result both = rapt(folder, "attention --in in.safetensors --spec causal --dense --bench");
  expect_contains(both.out, "tiled takes");
}

// Decays of 0 forget everything; only their gradient is none.
TEST(AttentionProgram, DecaysOfZeroRunWithoutGradient) {
  TemporaryFolder folder;
  File f = inputs(false);
  for (const char* name : {"k", "v"}) f.reals[name] = normal({B, G, N, name[0] == 'k' ? D : Dv});
  f.reals["gamma"] = zeros({H});
  f.reals["alpha"] = zeros({H});
  f.reals["beta"] = ones({H});
  f.write(folder / "in.safetensors");
  for (const auto& [spec, tensor] : {std::pair("retention", "gamma"), std::pair("gated-delta", "alpha")}) {
    const std::string command = fmt::format("attention --in in.safetensors --out o --spec {}", spec);
    Result r = rapt(folder, command);
    EXPECT_EQ(r.code, 0) << r.err;
    for (Real x : Safetensors::open(folder / "o").tensor("out").to_vector()) ASSERT_TRUE(std::isfinite(x));
    Result refused = rapt(folder, command + " --backward");
    EXPECT_EQ(refused.code, 3);
    expect_contains(refused.err, fmt::format("in.safetensors: attention word \"{}\": {} has a 0", spec, tensor));
    expect_contains(refused.err, "logarithm");
  }
}

// Contradictions are found before tensors are looked for, and so are wrong arguments.
TEST(AttentionProgram, ContradictionsComeBeforeTensors) {
  auto error_of = [](const std::string& spec) -> std::string {
    SpecTensors tensors;
    tensors.reals = {{"q", zeros({B, H, N, D})}, {"k", zeros({B, G, M, D})}, {"v", zeros({B, G, M, Dv})}};
    try {
      spec_call(spec, tensors);
    } catch (const UsageError& error) {
      return error.what();
    } catch (const std::exception& error) {
      ADD_FAILURE() << spec << ": " << error.what();
    }
    return "";
  };
  const char* normalizers[] = {"plus-one", "relu:2",         "entmax", "topk:3",  "hard",    "inverted",     "signed",
                               "sink",     "stick-breaking", "cope",   "sigmoid", "talking", "epanechnikov", "boxcar"};
  for (const char* a : normalizers) {
    for (const char* b : normalizers) {
      const std::string error = error_of(fmt::format("{}+{}", a, b));
      EXPECT_NE(error.find(a == b ? "there twice" : "one normaliser"), std::string::npos) << error;
    }
  }
  for (const char* recurrence : {"linear", "retention", "delta", "gated-delta"}) {
    for (const char* other : {"mask", "document", "sink", "bias", "xl", "plus-one"})
      expect_contains(error_of(fmt::format("{}+{}", other, recurrence)), "a recurrence without scores");
  }
  for (const char* kernel : {"rbf", "laplace", "epanechnikov", "boxcar"}) {
    expect_contains(error_of(fmt::format("{}+scale:2", kernel)), "no scale");
    expect_contains(error_of(fmt::format("scale:2+{}", kernel)), "no scale");
    for (const char* score : {"softcap", "temperature", "bias", "alibi", "t5", "distance", "forget", "shaw", "xl"})
      expect_contains(error_of(fmt::format("{}+{}", score, kernel)), "no score word before");
    for (const char* other : {"shaw", "xl", "rope"})
      expect_contains(error_of(fmt::format("{}+{}", kernel, other)), "not be a function of");
  }
  expect_contains(error_of("rbf+laplace"), "not be a function of");
  expect_contains(error_of("rbf:sum+sink"), "one normaliser");
  for (const char* spec : {"xl+shaw", "shaw+xl"}) expect_contains(error_of(spec), "doesn't go with \"shaw\"");
  for (const char* spec : {"xl+rope", "rope:dims=4+xl"}) expect_contains(error_of(spec), "doesn't go with \"rope\"");
  expect_contains(error_of("alibi+softcap:-3"), "above 0");
  expect_contains(error_of("alibi+causl"), "did you mean \"causal\"");
  expect_contains(error_of("alibi:8"), "it takes none");
  expect_contains(error_of("t5:bukets=8"), "did you mean \"buckets\"");
  expect_contains(error_of("t5:max=1e12"), "max must be at most 1000000, got 1e12");
  expect_contains(error_of("delta:l3"), "did you mean \"l2\"");
}

// A list of blocks is the mask that it spells.
TEST(AttentionProgram, BlocksAreTheMaskTheySpell) {
  TemporaryFolder folder;
  File f = inputs(false);
  f.shapes["blocks"] = {4, 4};
  f.integers["blocks"] = {1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 1, 0, 0, 1};
  f.shapes["keep"] = {N, M};
  for (int64_t i = M - N; i < M; ++i) {
    for (int64_t j = 0; j < M; ++j) f.integers["keep"].push_back(f.integers["blocks"][size_t(i / 6 * 4 + j / 6)]);
  }
  f.write(folder / "in.safetensors");
  expect_same(folder, "blocks:6", "mask");
  expect_same(folder, "blocks:6", "mha", false);
}

TEST(AttentionProgram, ExplainsBenchesAndLists) {
  TemporaryFolder folder;
  inputs().write(folder / "in.safetensors");
  Result plan = rapt(folder, "attention --spec causal+window:4,0+softcap:3 --in in.safetensors --explain");
  EXPECT_EQ(plan.code, 0) << plan.err;
  EXPECT_NE(plan.out.find("softcap 3"), std::string::npos) << plan.out;
  EXPECT_NE(plan.out.find("partial"), std::string::npos) << plan.out;
  EXPECT_NE(rapt(folder, "attention --spec topk:3 --in in.safetensors --explain").out.find("blocks of rows"),
            std::string::npos);
  File square = inputs(false);
  for (const char* name : {"k", "v"}) square.reals[name] = normal({B, G, N, name[0] == 'k' ? D : Dv});
  square.reals["gamma"] = ones({H});
  square.write(folder / "square.safetensors");
  Result recurrence = rapt(folder, "attention --spec retention --in square.safetensors --explain");
  EXPECT_EQ(recurrence.code, 0) << recurrence.err;
  expect_contains(recurrence.out, "decay_attention, by chunks\n1 chunks of 20 positions in each of 8 heads: 8 tasks");
  expect_contains(recurrence.out, "backward: ");
  Result bench = rapt(folder, "attention --spec causal --in in.safetensors --bench");
  EXPECT_EQ(bench.code, 0) << bench.err;
  EXPECT_NE(bench.out.find("dense: forward"), std::string::npos) << bench.out;
  Result words = rapt(folder, "attention --words");
  for (const char* word : {"causal", "window", "t5", "shaw", "gated-delta", "rope"})
    EXPECT_NE(words.out.find(word), std::string::npos) << word;
}

TEST(AttentionProgram, SaysWhatIsWrong) {
  TemporaryFolder folder;
  inputs().write(folder / "in.safetensors");
  File wrong = inputs();
  wrong.reals["slope"] = zeros({3});
  wrong.reals["bias"] = zeros({3, 5});
  wrong.reals["table"] = zeros({H, 8});
  wrong.reals["sink"] = zeros({H});
  wrong.reals["h"] = zeros({H});
  wrong.reals["rk"] = zeros({7, D});
  wrong.reals["rv"] = zeros({5, Dv});
  wrong.reals["u"] = wrong.reals["w"] = zeros({H, D});
  wrong.reals["r"] = zeros({H, N + M - 1, D});
  wrong.shapes["blocks"] = {2, 2};
  wrong.integers["blocks"] = {1, 1, 1, 1};
  wrong.write(folder / "wrong.safetensors");
  File heads = inputs();
  heads.reals["k"] = normal({B, 3, M, D});
  heads.reals["v"] = normal({B, 3, M, Dv});
  heads.write(folder / "heads.safetensors");
  File kernel = inputs();
  kernel.reals["h"] = ones({H});
  kernel.reals["rk"] = zeros({7, D});
  kernel.reals["rv"] = zeros({7, Dv});
  kernel.reals["u"] = kernel.reals["w"] = zeros({H, D});
  kernel.reals["r"] = zeros({H, N + M - 1, D});
  kernel.reals["gamma"] = kernel.reals["b"] = full({H}, -1);
  kernel.write(folder / "kernel.safetensors");
  make_file(folder / "broken.safetensors", "no");
  File few = inputs(false);  // fewer keys than queries
  few.reals["q"] = normal({B, H, 8, D});
  few.reals["k"] = normal({B, G, 6, D});
  few.reals["v"] = normal({B, G, 6, Dv});
  few.shapes["blocks"] = {2, 2};
  few.integers["blocks"] = {1, 1, 1, 1};
  few.write(folder / "few.safetensors");
  File kinds = inputs(false);
  kinds.reals["document"] = kinds.reals["pad"] = zeros({B, M});
  kinds.reals["blocks"] = zeros({4, 4});
  kinds.reals["c"] = from_values({H}, std::vector<Real>{3, 0, 2, 1});
  kinds.reals["table"] = zeros({H, 7});
  kinds.reals["e"] = zeros({1, D});
  kinds.reals.erase("dout");
  kinds.dtypes = {{"bias", Dtype::kF8_E4M3}, {"t", Dtype::kU64}};
  kinds.write(folder / "kinds.safetensors");
  auto shapes = [&](const char* name, const Shape& q, const Shape& k, const Shape& v) {
    File f;
    f.reals = {{"q", zeros(q)}, {"k", zeros(k)}, {"v", zeros(v)}};
    f.write(folder / name);
  };
  shapes("b", {2, 4, 5, 8}, {3, 2, 5, 8}, {3, 2, 5, 6});
  shapes("bv", {2, 4, 5, 8}, {2, 2, 5, 8}, {3, 2, 5, 6});
  shapes("hkv", {2, 4, 5, 8}, {2, 2, 5, 8}, {2, 4, 5, 6});
  shapes("m", {2, 4, 5, 8}, {2, 2, 6, 8}, {2, 2, 7, 6});
  shapes("d", {2, 4, 5, 8}, {2, 2, 5, 7}, {2, 2, 5, 6});
  shapes("d0", {2, 4, 5, 0}, {2, 2, 5, 0}, {2, 2, 5, 6});
  shapes("dv0", {2, 4, 5, 8}, {2, 2, 5, 8}, {2, 2, 5, 0});
  shapes("h0", {2, 0, 5, 8}, {2, 2, 5, 8}, {2, 2, 5, 6});
  shapes("n", {2, 4, 5, 8}, {2, 2, 6, 8}, {2, 2, 6, 6});
  shapes("q3", {4, 5, 8}, {2, 2, 5, 8}, {2, 2, 5, 6});
  shapes("k3", {2, 4, 5, 8}, {2, 5, 8}, {2, 2, 5, 6});
  shapes("v3", {2, 4, 5, 8}, {2, 2, 5, 8}, {2, 5, 6});
  shapes("odd", {2, 4, 5, 7}, {2, 2, 5, 7}, {2, 2, 5, 6});
  File no_q = inputs(false);
  no_q.reals.erase("q");
  no_q.write(folder / "no-q");
  struct {
    const char *arguments, *expected;
    int code;
  } cases[] = {
      {"--spec causl --in in.safetensors --out o", "did you mean \"causal\"", 2},
      {"--spec window:0 --in in.safetensors --out o", "window of 0", 2},
      {"--spec chunked:0 --in in.safetensors --out o", "at least 1", 2},
      {"--spec softcap:-3 --in in.safetensors --out o", "above 0", 2},
      {"--spec sink+plus-one --in wrong.safetensors --out o", "one normaliser", 2},
      {"--spec linear+softcap:3 --in in.safetensors --out o", "recurrence", 2},
      {"--spec t5:bukets=8 --in wrong.safetensors --out o", "did you mean \"buckets\"", 2},
      {"--spec drop:0.1,seed=1+drop:0.3 --in in.safetensors --out o", "there twice", 2},
      {"--spec scale:1+scale:2 --in in.safetensors --out o", "there twice", 2},
      {"--spec shaw+shaw --in kernel.safetensors --out o", "there twice", 2},
      {"--spec xl+xl --in kernel.safetensors --out o", "there twice", 2},
      {"--spec rope+rope --in in.safetensors --out o", "there twice", 2},
      {"--spec causal:top-left+prefix:3 --in in.safetensors --out o", "a prefix is causal", 2},
      {"--spec rbf+scale:2 --in kernel.safetensors --out o", "no scale", 2},
      {"--spec laplace+xl --in kernel.safetensors --out o", "not be a function of", 2},
      {"--spec xl+laplace --in kernel.safetensors --out o", "no xl", 2},
      {"--spec epanechnikov+shaw --in kernel.safetensors --out o", "not be a function of", 2},
      {"--spec shaw+rbf --in kernel.safetensors --out o", "no score word before", 2},
      {"--spec rbf+rope --in kernel.safetensors --out o", "not be a function of", 2},
      {"--spec linear+window:3 --in in.safetensors --out o", "recurrence", 2},
      {"--spec retention --in kernel.safetensors --out o", "gamma of at least 0, got -1", 3},
      {"--spec rbf --in wrong.safetensors --out o", "h above 0, got 0", 3},
      {"--spec shaw --in wrong.safetensors --out o", "the same C", 3},
      {"--spec blocks:8 --in wrong.safetensors --out o", "at least (3, 3)", 3},
      {"--spec blocks:8 --in in.safetensors --out o", "needs an integer tensor \"blocks\"", 3},
      {"--spec stick-breaking --backward --in in.safetensors --out o", "no log-sum-exp", 3},
      {"--spec entmax --backward --in in.safetensors --out o", "no log-sum-exp", 3},
      {"--spec relu:2 --backward --in in.safetensors --out o", "no log-sum-exp", 3},
      {"--spec sigmoid --backward --in kernel.safetensors --out o", "no log-sum-exp", 3},
      {"--spec softcap:1e300 --in in.safetensors --out o", "word \"softcap:1e300\": cap must be at most", 2},
      {"--spec softcap:1e-300 --in in.safetensors --out o", "word \"softcap:1e-300\": cap must be at least", 2},
      {"--spec scale:1e300 --in in.safetensors --out o", "factor must be at most", 2},
      {"--spec scale:-1e400 --in in.safetensors --out o", "factor must be at most", 2},
      {"--spec scale:inf --in in.safetensors --out o", "factor must be a number, got \"inf\"", 2},
      {"--spec softcap --in kinds.safetensors --out o", "word \"softcap\": expected c above 0 and finite, got 0", 3},
      {"--spec drop:0.1,seed=18446744073709551616 --in in.safetensors --out o", "from 0 to 18446744073709551615", 2},
      {"--spec drop:0.1,seed=-1 --in in.safetensors --out o", "from 0 to 18446744073709551615, got -1", 2},
      {"--spec drop:0.1,seed=1.5 --in in.safetensors --out o", "from 0 to 18446744073709551615, got 1.5", 2},
      {"--spec drop --in in.safetensors --out o", "as in \"drop:0.1\"", 2},
      {"--spec longformer:2 --in in.safetensors --out o", "as in \"longformer:256,4\"", 2},
      {"--spec window:1e300 --in in.safetensors --out o", "left must be at most 1000000000000000, got 1e300", 2},
      {"--spec window:2.5 --in in.safetensors --out o", "a whole number, got 2.5", 2},
      {"--spec window:+3 --in in.safetensors --out o", "word \"window:+3\"", 2},
      {"--spec scale:1e+3 --in in.safetensors --out o", "word \"scale:1e+3\"", 2},
      {"--spec blocks:3 --in few.safetensors --out o", "more queries than keys: N = 8, M = 6", 3},
      {"--spec padding --in kinds.safetensors --out o",
       "kinds.safetensors: attention word \"padding\": pad must be I64, I32, U8 or BOOL, but is F", 3},
      {"--spec document --in kinds.safetensors --out o", "document must be I64, I32, U8 or BOOL, but is F", 3},
      {"--spec blocks:6 --in kinds.safetensors --out o", "blocks must be I64, I32, U8 or BOOL, but is F", 3},
      {"--spec bias --in kinds.safetensors --out o",
       "kinds.safetensors: attention word \"bias\": bias must be F32, F64, F16, BF16, I64, I32, U8 or BOOL, but is "
       "F8_E4M3",
       3},
      {"--spec temperature --in kinds.safetensors --out o", "U8 or BOOL, but is U64", 3},
      {"--spec t5:max=4 --in wrong.safetensors --out o", "word \"t5:max=4\": max must be above 4", 2},
      {"--spec t5:bidirectional --in kinds.safetensors --out o", "word \"t5:bidirectional\": t5_bias: the table", 3},
      {"--spec cope --in kinds.safetensors --out o", "word \"cope\": expected at least 2 positions", 3},
      {"--spec rope:theta=0 --in in.safetensors --out o", "word \"rope:theta=0\": theta must be above 1", 2},
      {"--spec rope:theta=0.5 --in in.safetensors --out o", "theta must be above 1, got 0.5", 2},
      {"--spec rope:theta=1 --in in.safetensors --out o", "theta must be above 1, got 1", 2},
      {"--spec rope:dims=3 --in in.safetensors --out o", "word \"rope:dims=3\": channels turn in pairs", 2},
      {"--spec rope:dims=10 --in in.safetensors --out o", "word \"rope:dims=10\": 10 channels can't turn", 3},
      {"--spec rope --in odd --out o", "word \"rope\": channels turn in pairs", 3},
      {"--spec rope:interleaved,interleaved --in in.safetensors --out o", "\"interleaved\" is given twice", 2},
      {"--spec rope:theta=9,theta=8 --in in.safetensors --out o", "\"theta\" is given twice", 2},
      {"--spec rope:interleaved=1 --in in.safetensors --out o", "\"interleaved\" takes no value", 2},
      {"--spec rope:linear --in in.safetensors --out o", "\"linear\" needs a value", 2},
      {"--spec causal:top-left,bottom-right --in in.safetensors --out o", "one can be chosen", 2},
      {"--spec mha --backward --in kinds.safetensors --out o",
       "kinds.safetensors: --backward needs a tensor \"dout\" (B, H, N, Dv), which is missing", 3},
      {"--in no-q --out o", "no-q: attention needs a tensor \"q\" (B, H, N, D), which is missing", 3},
      {"--in b --out o", "q and k must have the same B, got q (2, 4, 5, 8) and k (3, 2, 5, 8)", 3},
      {"--in bv --out o", "k and v must have the same B, got k (2, 2, 5, 8) and v (3, 2, 5, 6)", 3},
      {"--in hkv --out o", "k and v must have the same Hkv, got k (2, 2, 5, 8) and v (2, 4, 5, 6)", 3},
      {"--in m --out o", "k and v must have the same M, got k (2, 2, 6, 8) and v (2, 2, 7, 6)", 3},
      {"--in d --out o", "q and k must have the same D, got q (2, 4, 5, 8) and k (2, 2, 5, 7)", 3},
      {"--in q3 --out o", "q must be (B, H, N, D), but is (4, 5, 8)", 3},
      {"--in k3 --out o", "k must be (B, Hkv, M, D), but is (2, 5, 8)", 3},
      {"--in v3 --out o", "v must be (B, Hkv, M, Dv), but is (2, 5, 6)", 3},
      {"--in h0 --out o", "H must be a multiple of Hkv, both at least 1", 3},
      {"--spec linear --in h0 --out o", "H must be a multiple of Hkv, both at least 1", 3},
      {"--spec linear --in d0 --out o", "D must be at least 1", 3},
      {"--spec linear --in dv0 --out o", "Dv must be at least 1", 3},
      {"--spec linear --in n --out o", "word \"linear\": a recurrence has as many queries as keys", 3},
      {"--spec causal --out o", "--in is missing", 2},
      {"--spec causal --in in.safetensors", "nothing to do", 2},
      {"--spec alibi --in in.safetensors --out o", "slope", 3},
      {"--spec alibi --in wrong.safetensors --out o", "expected slope (H) = (4), got (3,)", 3},
      {"--spec bias --in wrong.safetensors --out o",
       "expected bias that broadcasts to (B, H, N, M) = (2, 4, 20, 23), got (3, 5)", 3},
      {"--spec distance --in wrong.safetensors --out o", "expected table (H, N+M-1) = (4, 42), got (4, 8)", 3},
      {"--spec causal --in heads.safetensors --out o", "multiple of Hkv", 3},
      {"--spec causal --in missing.safetensors --out o", "missing.safetensors", 3},
      {"--spec causal --in broken.safetensors --out o", "broken.safetensors", 3},
  };
  for (const auto& c : cases) {
    Result r = rapt(folder, std::string("attention ") + c.arguments);
    EXPECT_EQ(r.code, c.code) << c.arguments << ": " << r.err;
    EXPECT_NE(r.err.find(c.expected), std::string::npos) << c.arguments << ": " << r.err;
    EXPECT_FALSE(std::filesystem::exists(folder.path / "o"));
  }
}

// Each tensor of each word with one more in each dimension that can be wrong, and with one more dimension.
TEST(AttentionProgram, TensorsOfTheWrongShapeAreNamed) {
  struct Given {
    const char* name;
    Shape shape;
    std::set<int> free = {};  // dimensions of which any size is right
  };
  struct Word {
    const char* spec;
    std::vector<Given> tensors;
    bool recurrence = false;
  };
  const Word words[] = {
      {"document", {{"document", {B, M}}}},
      {"padding", {{"pad", {B, M}}}},
      {"mask", {{"keep", {B, H, N, M}}}},
      {"blocks:6", {{"blocks", {4, 4}, {0, 1}}}},
      {"bias", {{"bias", {H, N, M}}}},
      {"softcap", {{"c", {H}}}},
      {"temperature", {{"t", {H}}}},
      {"alibi", {{"slope", {H}}}},
      {"t5:max=16", {{"table", {H, 8}, {1}}}},
      {"t5:max=16,bidirectional", {{"table", {H, 8}}}},
      {"t5:buckets=8,max=16", {{"table", {H, 8}}}},
      {"distance", {{"table", {H, N + M - 1}}}},
      {"forget", {{"f", {B, H, M}}}},
      {"shaw", {{"rk", {7, D}}, {"rv", {7, Dv}}}},
      {"xl", {{"u", {H, D}}, {"w", {H, D}}, {"r", {H, N + M - 1, D}}}},
      {"cope", {{"e", {5, D}, {0}}}},
      {"cope", {{"e", {H, 5, D}, {1}}}},
      {"sink", {{"sink", {H}}}},
      {"sigmoid", {{"b", {H}}}},
      {"rbf", {{"h", {H}}}},
      {"laplace", {{"h", {H}}}},
      {"epanechnikov", {{"h", {H}}}},
      {"boxcar", {{"h", {H}}}},
      {"talking", {{"pre", {H, H}}, {"post", {H, H}}}},
      {"retention", {{"gamma", {H}}}, true},
      {"delta", {{"beta", {B, H, N}}}, true},
      {"gated-delta", {{"alpha", {B, H, N}}, {"beta", {B, H, N}}}, true},
  };
  const std::string help = describe_spec_words();
  size_t described = 0;
  for (size_t at = help.find('['); at != std::string::npos; at = help.find('[', at + 1)) ++described;
  std::set<std::string> tested;
  for (const Word& word : words) tested.insert(std::string(word.spec).substr(0, std::string(word.spec).find(':')));
  EXPECT_EQ(tested.size(), described) << "a word that reads tensors has no row here";
  for (const Word& word : words) {
    SpecTensors right;
    const int64_t keys = word.recurrence ? N : M;
    right.reals = {{"q", zeros({B, H, N, D})}, {"k", zeros({B, G, keys, D})}, {"v", zeros({B, G, keys, Dv})}};
    auto set = [](SpecTensors& to, const char* name, const Shape& shape) {
      to.reals[name] = ones(shape);
      to.integers[name] = Tokens(shape, std::vector<int32_t>(size_t(shape.numel()), 1));
    };
    for (const Given& given : word.tensors) set(right, given.name, given.shape);
    EXPECT_NO_THROW(spec_call(word.spec, right).run(false)) << word.spec;
    for (const Given& given : word.tensors) {
      std::vector<Shape> wrong{given.shape};
      wrong[0].insert(0, 2);
      while (wrong[0].rank < 5) wrong[0].insert(0, 2);  // more than anything broadcasts to
      for (int d = 0; d < given.shape.rank; ++d) {
        if (given.free.contains(d)) continue;
        wrong.push_back(given.shape);
        ++wrong.back()[d];
      }
      for (const Shape& shape : wrong) {
        SpecTensors tensors = right;
        set(tensors, given.name, shape);
        SCOPED_TRACE(fmt::format("{} with {} {}", word.spec, given.name, shape));
        std::string text;
        try {
          spec_call(word.spec, tensors).run(false);
          ADD_FAILURE() << "nothing was thrown";
        } catch (const std::exception& error) {
          text = error.what();
        }
        EXPECT_NE(text.find(std::string(given.name) + " "), std::string::npos) << text;
        EXPECT_TRUE(text.find(fmt::format("{}", shape)) != std::string::npos) << text;
      }
    }
  }
}

}  // namespace
}  // namespace rapt::test

#include <gtest/gtest.h>

#include <cmath>
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

  void write(const std::string& path) const {
    std::vector<TensorView> views;
    for (const auto& [name, tensor] : reals) views.push_back(tensor_view(name, tensor));
    for (const auto& [name, values] : integers) {
      TensorView view = tensor_view(name, std::span<const int64_t>(values));
      view.shape = shapes.at(name);
      views.push_back(view);
    }
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
      {"laplace", add(f, {{"h", per_head(1, 2)}})},
      {"epanechnikov", add(f, {{"h", per_head(4, 6)}})},
      {"boxcar", add(f, {{"h", per_head(4, 6)}})},
      {"talking", add(f, {{"pre", normal({H, H})}, {"post", normal({H, H})}})},
      {"linear", square},
      {"retention", add(square, {{"gamma", per_head(0.5, 1)}})},
      {"delta", add(square, {{"beta", uniform({B, H, N})}})},
      {"gated-delta", add(square, {{"alpha", uniform({B, H, N}, Real(0.5), 1)}, {"beta", uniform({B, H, N})}})},
      {"rope:theta=100,interleaved", f},
      {"drop:0.3,seed=7", f},
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

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "../../core/random.h"
#include "../../nn/attention/words.h"
#include "../../train/generate.h"
#include "../../train/one_step.h"
#include "../../watch/trap_nan.h"
#include "../expect.h"
#include "program.h"

// What watches training: --trap-nan, --check-finite, replay, --profile, graph, diff-runs.

namespace rapt::test {
namespace {

using TrainingRun = Run;  // a test has a member Run

constexpr const char* kTwoLayers = " --layers 2 --heads 2 --dim 16 --context 16 --batch 4 --warmup 5 --eval-every 10 ";

class Watching : public testing::Test {
 protected:
  TemporaryFolder folder;
  void SetUp() override { make_file(folder / "text.txt", little_text()); }
  Result train(const std::string& more) {
    return rapt(folder, "train text.txt --out run" + std::string(kTwoLayers) + more);
  }
  // A run that has diverged; gives the path of the step that was kept.
  std::string diverge() {
    EXPECT_EQ(train("--steps 10").code, 0);
    Result r = rapt(folder, "train --resume run --steps 400 --lr 1e30 --schedule constant --clip 0");
    EXPECT_EQ(r.code, 4) << r.err;
    size_t at = r.err.find("rapt replay ");
    EXPECT_NE(at, std::string::npos) << r.err;
    return r.err.substr(at + 12, r.err.find('\n', at) - at - 12);
  }
};

// Training, evaluating and sampling raise no floating-point exception, whatever the attention.
TEST(Training, TrapsNothingWithAnyAttention) {
  Tokenizer tokenizer = Tokenizer::characters(little_text());
  TokenStream tokens(tokenizer, little_text());
  for (const std::string& spec : example_specs(16)) {
    SCOPED_TRACE(spec);
    RunConfig c;
    c.layers = 2, c.heads = 2, c.dim = 16, c.context = 16, c.batch = 3, c.attention = spec;
    c.optimizer = spec.size() % 2 ? "adamw" : "muon";
    c.dropout = spec.size() % 3 ? 0 : 0.1;
    TrainingRun run(c, tokenizer);
    TrainBatches batches = train_batches(run.config, tokens.span());
    TrainerOptions options = trainer_options(run, [&](int64_t s, int64_t m) { return batches.batch(s, m); });
    options.learning_rate = [](int64_t) { return 1e-2; };
    Trainer trainer(run.model.parameters(), *run.optimizer, options);
    TrapNan trap;
    trainer.step();
    trainer.step();
    std::vector<int32_t> prompt{0, 1};
    generate(run.model, prompt, {.tokens = 20, .top_p = 0.9}, [](int32_t) { return true; });
  }
}

TEST_F(Watching, TrapsAndChecksPassOrdinaryTraining) {
  for (const char* more : {"--optimizer muon --sample-every 6 ", "--optimizer adamw --norm rms --mlp swiglu ",
                           "--optimizer sgd --dropout 0.1 --accumulate 2 --attention mha "}) {
    std::filesystem::remove_all(folder / "run");
    Result r = train("--steps 12 --trap-nan --check-finite " + std::string(more));
    EXPECT_EQ(r.code, 0) << more << r.err;
  }
  EXPECT_EQ(rapt(folder, "sample run --tokens 30 --trap-nan --check-finite").code, 0);
  EXPECT_EQ(rapt(folder, "eval run --trap-nan --check-finite").code, 0);
}

TEST_F(Watching, WatchingChangesNoBit) {
  ASSERT_EQ(train("--steps 10").code, 0);
  std::filesystem::rename(folder / "run", folder / "plain");
  ASSERT_EQ(train("--steps 10 --trap-nan --check-finite --profile --record-values values").code, 0);
  const char* name = "/ckpt-00000010.safetensors";
  EXPECT_TRUE(read_file(folder / "run" + name) == read_file(folder / "plain" + name));
}

TEST_F(Watching, ADivergedStepIsKeptAndCanBeRepeated) {
  std::string step = diverge();
  ASSERT_TRUE(std::filesystem::exists(folder / step)) << step;
  Result plain = rapt(folder, "replay " + step);
  EXPECT_EQ(plain.code, 4) << plain.err;
  expect_contains(plain.err, "not finite");
  EXPECT_EQ(rapt(folder, "replay " + step + " --threads 3").err, plain.err);

  Result checked = rapt(folder, "replay " + step + " --check-finite");
  EXPECT_EQ(checked.code, 4);
  expect_contains(checked.err, ".cpp:");
  expect_contains(checked.err, "is not finite: ");
  expect_contains(checked.err, "the first at [");

  Result trapped = rapt(folder, "replay " + step + " --trap-nan");
  EXPECT_EQ(trapped.code, 128 + 8) << trapped.err;
  expect_contains(trapped.err, "rapt: an ");
  expect_contains(trapped.err, "\n  in ");
  expect_contains(trapped.err, "addr2line -Cfie ");

  std::filesystem::remove(folder / "text.txt");  // nothing but the file is needed
  EXPECT_EQ(rapt(folder, "replay " + step).err, plain.err);
}

TEST_F(Watching, CheckFiniteStopsTraining) {
  ASSERT_EQ(train("--steps 10").code, 0);
  Result r = rapt(folder, "train --resume run --steps 400 --lr 1e30 --schedule constant --clip 0 --check-finite");
  EXPECT_EQ(r.code, 4);
  expect_contains(r.err, "training diverged at step ");
  expect_contains(r.err, "is not finite: ");
  expect_contains(r.err, "rapt replay run/step-");
}

TEST_F(Watching, TheNextStepOfARunCanBeRepeated) {
  ASSERT_EQ(train("--steps 20 --stop-at 10").code, 130);
  Result next = rapt(folder, "replay run");
  ASSERT_EQ(next.code, 0) << next.err;
  ASSERT_EQ(rapt(folder, "train --resume run").code, 0);
  std::istringstream log(read_file(folder / "run/log.jsonl"));
  std::string line;
  for (int i = 0; i < 11; ++i) std::getline(log, line);
  auto json = nlohmann::json::parse(line);
  char expected[64];
  std::snprintf(expected, sizeof expected, "loss %.6f, gradient norm %.6f", json.at("loss").get<double>(),
                json.at("grad_norm").get<double>());
  expect_contains(next.out, "step 11,");
  expect_contains(next.out, expected);
}

TEST_F(Watching, BadStepsAreNamed) {
  std::string step = diverge();
  std::string bytes = read_file(folder / step);
  make_file(folder / "cut.safetensors", bytes.substr(0, bytes.size() / 2));
  make_file(folder / "empty.safetensors", "");
  std::string other = bytes;
  other.replace(other.find("one training step"), 17, "two training step");
  make_file(folder / "other.safetensors", other);
  other = bytes;
  other.replace(other.find("batch.0.y"), 9, "batch.0.z");
  make_file(folder / "incomplete.safetensors", other);
  struct BadCommand {
    const char *arguments, *message;
    int code;
  };
  for (const BadCommand& bad :
       {BadCommand{"replay nothing.safetensors", "nothing.safetensors: there is no such", 3},
        BadCommand{"replay cut.safetensors", "cut.safetensors", 3},
        BadCommand{"replay empty.safetensors", "empty.safetensors", 3}, BadCommand{"replay text.txt", "text.txt", 3},
        BadCommand{"replay run/ckpt-00000010.safetensors", "no step that training has kept", 3},
        BadCommand{"replay other.safetensors", "no step that training has kept", 3},
        BadCommand{"replay incomplete.safetensors", "batch.0.y", 3}, BadCommand{"replay", "step is required", 2},
        BadCommand{"graph nowhere", "nowhere", 3},
        BadCommand{"graph run --expand blocks.7", "no module \"blocks.7\", did you mean", 2},
        BadCommand{"graph run --out graph", "needs an ending", 2}, BadCommand{"diff-runs run nowhere", "nowhere", 3},
        BadCommand{"diff-runs run text.txt", "no file of values", 3}, BadCommand{"diff-runs run", "b is required", 2},
        BadCommand{"eval run --record-values no/where", "no/where", 3}}) {
    Result r = rapt(folder, bad.arguments);
    EXPECT_EQ(r.code, bad.code) << bad.arguments << ": " << r.err;
    expect_contains(r.err, bad.message);
    EXPECT_EQ(r.err.rfind("rapt: ", 0), 0u) << r.err;
  }
  Result r = rapt(folder, "eval run", "RAPT_TRACE=no/where");
  EXPECT_EQ(r.code, 3) << r.err;
  expect_contains(r.err, "no: there is no such folder");
}

TEST_F(Watching, ProfilesAnyCommand) {
  Result r = train("--steps 10 --profile");
  ASSERT_EQ(r.code, 0) << r.err;
  for (const char* part : {"by module", "by operation", "linear_cross_entropy", "  blocks ", "GF/s", "trace.json"}) {
    expect_contains(r.err, part);
  }
  auto trace = nlohmann::json::parse(read_file(folder / "trace.json"));
  EXPECT_GT(trace.at("traceEvents").size(), 100u);
  Result e = rapt(folder, "eval run --json", "RAPT_TRACE=eval.json");
  EXPECT_EQ(e.code, 0);
  EXPECT_EQ(nlohmann::json::parse(e.out).size(), 3u) << "standard output stays what it was";
  EXPECT_TRUE(std::filesystem::exists(folder / "eval.json"));
}

TEST_F(Watching, DiffRunsFindsTheFirstDifference) {
  ASSERT_EQ(train("--steps 3 --record-values a --threads 1").code, 0);
  std::filesystem::remove_all(folder / "run");
  ASSERT_EQ(
      rapt(folder, "train text.txt --out run --threads 2 --steps 3" + std::string(kTwoLayers), "RAPT_VALUES=b").code,
      0);
  Result same = rapt(folder, "diff-runs a b");
  EXPECT_EQ(same.code, 0) << same.out;
  expect_contains(same.out, "equal: ");

  ASSERT_EQ(rapt(folder, "train text.txt --out other --steps 3 --mlp silu" + std::string(kTwoLayers)).code, 0);
  std::filesystem::remove_all(folder / "run");
  ASSERT_EQ(train("--steps 3 --stop-at 2 --lr 0.001").code, 130);
  Result r = rapt(folder, "diff-runs run other");
  EXPECT_EQ(r.code, 1) << r.err;
  expect_contains(r.out, "0 results are equal");
  expect_contains(r.out, "A forward of embedding, in token_embedding (");
}

TEST_F(Watching, DiffRunsNamesWhatIsComputedOtherwise) {
  ASSERT_EQ(rapt(folder, "train text.txt --out run --steps 1 --record-values a" + std::string(kTwoLayers)).code, 0);
  ASSERT_EQ(
      rapt(folder, "train text.txt --out other --steps 1 --mlp silu --record-values b" + std::string(kTwoLayers)).code,
      0);
  Result r = rapt(folder, "diff-runs a b");
  EXPECT_EQ(r.code, 1) << r.err;
  expect_contains(r.out, "A forward of gelu, in blocks.0.mlp (");
  expect_contains(r.out, "B forward of silu, in blocks.0.mlp (");
  expect_contains(r.out, "before it, equal:\n");
  expect_contains(r.out, "forward of linear, in blocks.0.mlp.up (");
}

TEST_F(Watching, GraphIsDrawnByGraphvizWhereItIs) {
  ASSERT_EQ(train("--steps 3").code, 0);
  Result without = rapt(folder, "graph run", "PATH=/nowhere;");
  EXPECT_EQ(without.code, 0) << without.err;
  expect_contains(without.out, "Graphviz is not installed");
  std::string text = read_file(folder / "graph.dot");
  expect_contains(text, "\"module blocks.0\" -> \"module blocks.1\";");
  expect_contains(text, "linear_cross_entropy");

  std::filesystem::create_directories(folder / "bin");
  make_file(folder / "bin/dot", "#!/bin/sh\necho \"$@\" > words; cp \"$2\" \"$4\"\n");
  std::filesystem::permissions(folder / "bin/dot", std::filesystem::perms::owner_all);
  Result with = rapt(folder, "graph run --out 'my graph.svg' --expand blocks.0", "PATH=$PWD/bin:$PATH;");
  EXPECT_EQ(with.code, 0) << with.err;
  EXPECT_EQ(read_file(folder / "words"), "-Tsvg my graph.dot -o my graph.svg\n");
  expect_contains(read_file(folder / "my graph.svg"), "module blocks.0.attention");
  EXPECT_FALSE(std::filesystem::exists(folder / "my graph.dot"));

  make_file(folder / "bin/dot", "#!/bin/sh\nexit 1\n");
  Result failing = rapt(folder, "graph run --out x.svg", "PATH=$PWD/bin:$PATH;");
  EXPECT_EQ(failing.code, 1);
  expect_contains(failing.err, "dot could not draw x.svg");
  EXPECT_EQ(rapt(folder, "graph run --out y.dot --depth 0", "PATH=$PWD/bin:$PATH;").code, 0);
}

}  // namespace
}  // namespace rapt::test

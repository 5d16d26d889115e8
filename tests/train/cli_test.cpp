#include <fmt/core.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "../../data/formats/checkpoint_folder.h"
#include "program.h"

namespace rapt::test {
namespace {

constexpr const char* kTiny = " --layers 1 --heads 2 --dim 16 --context 16 --batch 4 --warmup 5 --eval-every 10 ";

class Program : public testing::Test {
 protected:
  TemporaryFolder folder;
  void SetUp() override { make_file(folder / "text.txt", little_text()); }

  Result train(const std::string& more) { return rapt(folder, "train text.txt --out run" + std::string(kTiny) + more); }
  std::string checkpoint(const std::string& run, int step) {
    char name[64];
    std::snprintf(name, sizeof name, "/ckpt-%08d.safetensors", step);
    return read_file(folder / (run + name));
  }
  std::string all_files() {
    std::string all;
    std::vector<std::filesystem::path> paths;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder.path)) {
      std::string name = entry.path().filename().string();
      if (!name.starts_with("std")) paths.push_back(entry.path());
    }
    std::sort(paths.begin(), paths.end());
    for (const auto& path : paths) {
      all += path.string() + "\n";
      if (path.filename() != ".lock") all += read_file(path);
    }
    return all;
  }
};

TEST_F(Program, HelpAndVersion) {
  for (const char* arguments : {"--help", "train --help", "sample --help", "eval --help", "--version"}) {
    Result r = rapt(folder, arguments);
    EXPECT_EQ(r.code, 0) << arguments;
    EXPECT_GT(r.out.size(), 20u) << arguments;
    EXPECT_EQ(r.err, "") << arguments;
  }
  EXPECT_NE(rapt(folder, "--version").out.find("kernels"), std::string::npos);
}

TEST_F(Program, TrainsEvaluatesAndSamples) {
  Result r = train("--steps 30 --optimizer adamw --lr 1e-2");
  ASSERT_EQ(r.code, 0) << r.err;
  EXPECT_NE(r.out.find("saved in run"), std::string::npos) << r.out;
  EXPECT_EQ(r.out.find('\r'), std::string::npos) << "a pipe gets plain lines";
  for (const char* name : {"config.json", "log.jsonl", "LATEST", "ckpt-00000030.safetensors"}) {
    EXPECT_TRUE(std::filesystem::exists(folder / (std::string("run/") + name))) << name;
  }

  std::istringstream log(read_file(folder / "run/log.jsonl"));
  int lines = 0;
  double first = 0, last = 0;
  for (std::string line; std::getline(log, line); ++lines) {
    auto json = nlohmann::json::parse(line);
    EXPECT_EQ(json.at("step"), lines + 1);
    for (const char* key : {"loss", "lr", "grad_norm", "tokens_per_second"})
      EXPECT_TRUE(json.at(key).is_number()) << key;
    EXPECT_EQ(json.at("val_loss").is_null(), (lines + 1) % 10 != 0);
    (lines == 0 ? first : last) = json.at("loss");
  }
  EXPECT_EQ(lines, 30);
  EXPECT_LT(last, first - 0.3);

  Result e = rapt(folder, "eval run --json");
  ASSERT_EQ(e.code, 0) << e.err;
  auto json = nlohmann::json::parse(e.out);
  EXPECT_EQ(json.size(), 3u);
  EXPECT_GT(json.at("loss").get<double>(), 0);
  EXPECT_GT(json.at("bits_per_byte").get<double>(), 0);
  EXPECT_EQ(json.at("tokens"), int(little_text().size() / 10) - 1);
  EXPECT_EQ(rapt(folder, "eval run text.txt --json").code, 0);

  Result s = rapt(folder, "sample run --prompt 'the ' --tokens 40 --seed 3");
  ASSERT_EQ(s.code, 0) << s.err;
  EXPECT_EQ(s.out.rfind("the ", 0), 0u);
  EXPECT_EQ(s.out.size(), 4 + 40 + 1u);
  EXPECT_EQ(rapt(folder, "sample run --prompt 'the ' --tokens 40 --seed 3").out, s.out);
  EXPECT_NE(rapt(folder, "sample run --prompt 'the ' --tokens 40 --seed 4").out, s.out);
  EXPECT_EQ(rapt(folder, "sample run --prompt 'the ' --tokens 9 --temperature 0 --seed 1").out,
            rapt(folder, "sample run --prompt 'the ' --tokens 9 --top-k 1 --seed 2").out);
}

TEST_F(Program, AnyNumberOfThreadsGivesTheSameCheckpoint) {
  ASSERT_EQ(rapt(folder, "train text.txt --out one --threads 1 --steps 20 --dropout 0.1" + std::string(kTiny)).code, 0);
  std::string one = checkpoint("one", 20);
  ASSERT_GT(one.size(), 1000u);
  for (int threads : {2, 3, 8}) {
    std::string out = fmt::format("t{}", threads);
    Result r = rapt(
        folder, fmt::format("train text.txt --out {} --threads {} --steps 20 --dropout 0.1{}", out, threads, kTiny));
    ASSERT_EQ(r.code, 0) << r.err;
    EXPECT_TRUE(checkpoint(out, 20) == one) << threads;
  }
}

TEST_F(Program, ResumingIsExact) {
  for (std::string more :
       {"", "--optimizer adamw --accumulate 2 --dropout 0.1 ", "--optimizer sgd --tokenizer bytes "}) {
    SCOPED_TRACE(more);
    std::filesystem::remove_all(folder / "whole");
    std::filesystem::remove_all(folder / "halves");
    std::string flags = kTiny + more + "--steps 40";
    ASSERT_EQ(rapt(folder, "train text.txt --out whole" + flags).code, 0);
    ASSERT_EQ(rapt(folder, "train text.txt --out halves --stop-at 17" + flags).code, 130);
    Result resumed = rapt(folder, "train --resume halves");
    ASSERT_EQ(resumed.code, 0) << resumed.err;
    EXPECT_TRUE(checkpoint("halves", 40) == checkpoint("whole", 40));
    // the log reads as if nothing had happened, but for the speed
    std::istringstream a(read_file(folder / "whole/log.jsonl")), b(read_file(folder / "halves/log.jsonl"));
    for (std::string x, y; std::getline(a, x);) {
      ASSERT_TRUE(std::getline(b, y));
      EXPECT_EQ(x.substr(0, x.find("tokens_per_second")), y.substr(0, y.find("tokens_per_second")));
    }
  }
}

TEST_F(Program, ResumingTakesNewFlagsAndStaysExact) {
  ASSERT_EQ(train("--steps 6 --lr 1e-2 --optimizer adamw --threads 1").code, 0);
  auto resume = [&](const std::string& to, const std::string& more) {
    if (!std::filesystem::exists(folder / to)) std::filesystem::copy(folder / "run", folder / to);
    return rapt(folder, "train --threads 1 --steps 12 --resume " + to + more).code;
  };
  auto numbers = [&](const std::string& run) {
    std::string all;
    auto file = Safetensors::open(folder / (run + "/ckpt-00000012.safetensors"));
    for (const TensorView& t : file.tensors())
      all.append(reinterpret_cast<const char*>(t.bytes.data()), t.bytes.size());
    return all;
  };
  ASSERT_EQ(resume("same", ""), 0);
  for (const char* flag : {" --weight-decay 0.5", " --beta1 0.5", " --beta2 0.5", " --dropout 0.3"}) {
    SCOPED_TRACE(flag);
    std::filesystem::remove_all(folder / "whole");
    std::filesystem::remove_all(folder / "halves");
    ASSERT_EQ(resume("whole", flag), 0);
    EXPECT_FALSE(numbers("whole") == numbers("same")) << "the flag changes nothing";
    ASSERT_EQ(resume("halves", std::string(flag) + " --stop-at 9"), 130);
    ASSERT_EQ(resume("halves", ""), 0);
    EXPECT_TRUE(checkpoint("halves", 12) == checkpoint("whole", 12));
  }
}

TEST_F(Program, AnInterruptSavesAndCanBeResumed) {
  // when the first step is in the log, or after a minute
  std::string interrupt =
      "& pid=$!; for i in $(seq 1200); do [ -s interrupted/log.jsonl ] && break; sleep 0.05; done; kill -INT $pid; "
      "wait $pid";
  Result r = rapt(folder, "train text.txt --out interrupted --steps 1000000 --schedule constant" + std::string(kTiny),
                  "", interrupt);
  EXPECT_EQ(r.code, 130) << r.err;
  EXPECT_NE(r.out.find("--resume interrupted"), std::string::npos) << r.out;
  std::string latest = read_file(folder / "interrupted/LATEST");
  std::optional<int64_t> step = checkpoint_step(latest.substr(0, latest.find('\n')));
  ASSERT_TRUE(step) << latest;
  EXPECT_EQ(rapt(folder, fmt::format("train --resume interrupted --stop-at {}", *step + 3)).code, 130);
  EXPECT_EQ(read_file(folder / "interrupted/LATEST"), checkpoint_name(*step + 3) + "\n");
}

struct Bad {
  const char* name;
  const char* arguments;
  int code;
  const char* message;  // part of it
};
void PrintTo(const Bad& bad, std::ostream* out) { *out << bad.name; }

class BadInput : public Program, public testing::WithParamInterface<Bad> {};

TEST_P(BadInput, GetsOneClearMessageAndLosesNothing) {
  make_file(folder / "empty.txt", "");
  make_file(folder / "short.txt", "too short");
  make_file(folder / "binary.txt", std::string("abc\0def", 7) + little_text());
  make_file(folder / "latin1.txt", "caf\xe9 " + little_text());
  make_file(folder / "unknown.txt", little_text() + "\xe2\x82\xac" + little_text());
  std::filesystem::create_directories(folder / "folder");
  ASSERT_EQ(train("--steps 10").code, 0);
  std::filesystem::copy(folder / "run", folder / "cut");
  std::filesystem::copy(folder / "run", folder / "changed");
  std::filesystem::resize_file(folder / "cut/ckpt-00000010.safetensors", 3000);
  std::string bytes = read_file(folder / "changed/ckpt-00000010.safetensors");
  bytes[bytes.size() - 100] = char(bytes[bytes.size() - 100] ^ 1);
  make_file(folder / "changed/ckpt-00000010.safetensors", bytes);
  std::filesystem::copy(folder / "run", folder / "other");
  std::string config = read_file(folder / "other/config.json");
  for (auto [from, to] : {std::pair("\"layers\": 1", "\"layers\": 3"), std::pair("\"dim\": 16", "\"dim\": 32")}) {
    ASSERT_NE(config.find(from), std::string::npos) << config;
    config.replace(config.find(from), std::strlen(from), to);
  }
  make_file(folder / "other/config.json", config);
  for (const char* name : {"config.json", "log.jsonl", "LATEST", "BEST"}) {
    std::string theirs = std::string("their-") + name;
    std::filesystem::create_directories(folder / theirs);
    make_file(folder / (theirs + "/" + name), "{\"port\": 80}\n");
  }
  std::filesystem::create_directories(folder / "elsewhere");
  std::string before = all_files();

  Result r = rapt(folder, GetParam().arguments);
  EXPECT_EQ(r.code, GetParam().code) << r.out << r.err;
  EXPECT_EQ(r.err.rfind("rapt: ", 0), 0u) << r.err;
  EXPECT_NE(r.err.find(GetParam().message), std::string::npos) << r.err;
  EXPECT_LT(std::count(r.err.begin(), r.err.end(), '\n'), 8) << r.err;
  EXPECT_TRUE(all_files() == before) << "a file has changed";
}

constexpr Bad kBad[] = {
    {"MissingText", "train nothing.txt", 3, "nothing.txt"},
    {"EmptyText", "train empty.txt", 3, "empty"},
    {"BinaryText", "train binary.txt", 3, "binary.txt"},
    {"NotUtf8", "train latin1.txt", 3, "UTF-8"},
    {"ShortText", "train short.txt", 3, "short"},
    {"AFolderAsText", "train folder", 3, "folder"},
    {"HeadsDoNotDivide", "train text.txt --heads 3 --dim 16", 2, "heads"},
    {"UnknownFlag", "train text.txt --layrs 2", 2, "--layers"},
    {"UnknownFlagWithValue", "train text.txt --larning-rate=2", 2, "unknown flag"},
    {"TooManySteps", "train text.txt --steps 99999999999999999999", 2, "below 2^63"},
    {"TooManyLayers", "train text.txt --layers 1000000000", 2, "--layers 1000000000"},
    {"TooWide", "train text.txt --dim 10000000 --heads 1", 2, "GB"},
    {"NoThreads", "train text.txt --threads 0", 2, "--threads: must be above 0, got 0"},
    {"TooManyThreads", "train text.txt --threads 100000", 2, "from 1 to 1024"},
    {"TemperatureNotANumber", "sample run --temperature nan", 2, "--temperature: must not be negative, got nan"},
    {"NotANumber", "train text.txt --layers two", 2, "--layers"},
    {"Negative", "train text.txt --lr -1", 2, "--lr"},
    {"UnknownCommand", "trane", 2, "train"},
    {"UnknownOptimizer", "train text.txt --optimizer adam", 2, "adamw"},
    {"UnknownSchedule", "train text.txt --schedule cosin", 2, "cosine"},
    {"UnknownTokenizer", "train text.txt --tokenizer char", 2, "characters"},
    {"OutHoldsARun", "train text.txt --out run", 2, "--resume run"},
    {"OutHoldsAConfigOfOthers", "train text.txt --steps 1 --out their-config.json", 2,
     "their-config.json/config.json is not of"},
    {"OutHoldsALogOfOthers", "train text.txt --steps 1 --out their-log.jsonl", 2,
     "their-log.jsonl/log.jsonl is not of"},
    {"OutHoldsALatestOfOthers", "train text.txt --steps 1 --out their-LATEST", 2, "their-LATEST/LATEST is not of"},
    {"OutHoldsABestOfOthers", "train text.txt --steps 1 --out their-BEST", 2, "their-BEST/BEST is not of"},
    {"ShortTextIntoANewFolder", "train short.txt --out new", 3, "short"},
    {"OutIsAFile", "train text.txt --out text.txt", 3, "text.txt"},
    {"OutCantBeWritten", "train text.txt --out /proc/run", 3, "/proc/run"},
    {"ResumeNothing", "train --resume folder", 3, "folder"},
    {"ResumeWithOtherModel", "train --resume run --layers 3", 2, "--layers 3"},
    {"ResumeWithUnknownCharacter", "train unknown.txt --resume run --steps 20", 3, "U+20AC"},
    {"EvalUnknownCharacter", "eval run unknown.txt", 3, "U+20AC"},
    {"SampleUnknownCharacter", "sample run --prompt 'm\xc3\xa9'", 3, "U+00E9"},
    {"EvalMissingRun", "eval nowhere", 3, "nowhere"},
    {"TruncatedCheckpoint", "eval cut", 3, "ckpt-00000010"},
    {"CheckpointOfAnotherModel", "eval other", 3, "layers 1 (in config.json: 3)\n  dim 16 (in config.json: 32)"},
    {"ResumeFromACheckpointOfAnotherModel", "train --resume other --steps 20", 3, "another configuration"},
    {"ChangedCheckpoint", "eval changed", 3, "ckpt-00000010"},
    {"TopPOutOfRange", "sample run --top-p 1.5", 2, "--top-p"},
    {"SampleWithoutRun", "sample", 2, "run"},
};
INSTANTIATE_TEST_SUITE_P(Table, BadInput, testing::ValuesIn(kBad), [](const auto& test) { return test.param.name; });

TEST_F(Program, ARunWithoutItsTextSaysHowToGiveIt) {
  ASSERT_EQ(train("--steps 4").code, 0);
  std::filesystem::create_directories(folder / "elsewhere");
  for (const char* arguments : {"eval ../run", "train --resume ../run --steps 5"}) {
    Result r = rapt(folder, arguments, "cd elsewhere;");
    EXPECT_EQ(r.code, 3) << arguments;
    EXPECT_EQ(r.err.rfind("rapt: text: can't open text.txt", 0), 0u) << r.err;
    EXPECT_NE(r.err.find("the run names this text, relative to the folder where it was started"), std::string::npos)
        << r.err;
    EXPECT_NE(r.err.find("train --resume RUN TEXT"), std::string::npos) << r.err;
  }
  Result r = rapt(folder, "train --resume ../run ../text.txt --steps 5", "cd elsewhere;");
  EXPECT_EQ(r.code, 0) << r.err;
  EXPECT_EQ(r.out.find("is not the text"), std::string::npos) << r.out;
  EXPECT_EQ(rapt(folder, "eval ../run", "cd elsewhere;").code, 0);
}

TEST_F(Program, ADamagedConfigurationIsTakenFromTheCheckpoint) {
  ASSERT_EQ(train("--steps 4").code, 0);
  std::string config = read_file(folder / "run/config.json");
  make_file(folder / "run/config.json", config.substr(0, 40));
  Result e = rapt(folder, "eval run");
  EXPECT_EQ(e.code, 0) << e.err;
  EXPECT_NE(e.err.find("the configuration is taken from"), std::string::npos) << e.err;
  EXPECT_EQ(rapt(folder, "train --resume run --steps 5").code, 0);
  EXPECT_EQ(read_file(folder / "run/config.json").size(), config.size());
}

TEST_F(Program, ARunThatEndedBeforeItsFirstCheckpointCanBeStartedAgain) {
  ASSERT_EQ(train("--steps 4").code, 0);
  for (const char* name : {"ckpt-00000004.safetensors", "LATEST", "BEST"}) {
    std::filesystem::remove(folder / (std::string("run/") + name));
  }
  Result r = train("--steps 2");
  EXPECT_EQ(r.code, 0) << r.err;
  std::string log = read_file(folder / "run/log.jsonl");
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 2) << log;
}

TEST_F(Program, DivergenceStopsAndKeepsTheLastGoodCheckpoint) {
  ASSERT_EQ(train("--steps 10").code, 0);
  Result r = rapt(folder, "train --resume run --steps 400 --lr 1e30 --schedule constant --clip 0");
  EXPECT_EQ(r.code, 4) << r.out << r.err;
  EXPECT_NE(r.err.find("step"), std::string::npos) << r.err;
  EXPECT_NE(r.err.find("not finite"), std::string::npos) << r.err;
  Result e = rapt(folder, "eval run --json");
  EXPECT_EQ(e.code, 0) << e.err;
}

TEST_F(Program, AValidationLossThatIsNotFiniteIsDivergence) {
  ASSERT_EQ(train("--steps 4 --optimizer adamw").code, 0);
  std::string before = read_file(folder / "run/LATEST");
  Result r = rapt(folder, "train --resume run --steps 5 --lr 1e39 --warmup 0 --schedule constant");
  EXPECT_EQ(r.code, 4) << r.out << r.err;
  EXPECT_EQ(r.err.rfind("rapt: training diverged at step 5: the validation loss is ", 0), 0u) << r.err;
  EXPECT_NE(r.err.find("(of the matrices) is not finite"), std::string::npos) << r.err;
  EXPECT_EQ(read_file(folder / "run/LATEST"), before);
  EXPECT_EQ(rapt(folder, "train --resume run --steps 6").code, 0);
}

TEST_F(Program, NoCheckpointIsMadeOfWeightsThatAreNotFinite) {
  ASSERT_EQ(train("--steps 4 --optimizer adamw").code, 0);
  std::string before = read_file(folder / "run/LATEST");
  Result r = rapt(folder, "train --resume run --steps 9 --stop-at 5 --lr 1e39 --warmup 0 --schedule constant");
  EXPECT_EQ(r.code, 4) << r.out << r.err;
  EXPECT_EQ(r.err.rfind("rapt: training diverged at step 5: the weight ", 0), 0u) << r.err;
  EXPECT_EQ(read_file(folder / "run/LATEST"), before);
  EXPECT_FALSE(std::filesystem::exists(folder / "run/ckpt-00000005.safetensors"));
}

TEST_F(Program, ACheckpointWithWeightsThatAreNotFiniteIsSkipped) {
  ASSERT_EQ(train("--steps 4").code, 0);
  {
    Checkpoint good = load_checkpoint(folder / "run/ckpt-00000004.safetensors");
    std::vector<TensorView> tensors(good.file.tensors().begin(), good.file.tensors().end());
    std::vector<float> infinite;
    for (TensorView& t : tensors) {
      if (t.name != "model.token_embedding.weight") continue;
      infinite.assign(t.bytes.size() / sizeof(float), std::numeric_limits<float>::infinity());
      t.bytes = std::as_bytes(std::span(infinite));
    }
    ASSERT_FALSE(infinite.empty());
    CheckpointFolder(folder / "run").save(6, tensors, good.metadata);
  }
  ASSERT_EQ(read_file(folder / "run/LATEST"), checkpoint_name(6) + "\n");
  Result r = rapt(folder, "train --resume run --steps 8 --stop-at 7");
  EXPECT_EQ(r.code, 130) << r.err;
  EXPECT_NE(r.out.find("resuming run at step 4"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("skipped ckpt-00000006.safetensors: the weight token_embedding.weight is not finite"),
            std::string::npos)
      << r.out;
  EXPECT_NE(r.out.find("going on from ckpt-00000004.safetensors"), std::string::npos) << r.out;
}

TEST_F(Program, AFullDiskIsReportedAndLosesNothing) {
  ASSERT_EQ(train("--steps 10").code, 0);
  std::string before = read_file(folder / "run/ckpt-00000010.safetensors");
  // a limit on the size of files stands in for the disk
  Result r = rapt(folder, "train --resume run --steps 20", "ulimit -f 8; trap '' XFSZ;");
  EXPECT_EQ(r.code, 3) << r.out << r.err;
  EXPECT_NE(r.err.find("ckpt-00000020"), std::string::npos) << r.err;
  EXPECT_TRUE(read_file(folder / "run/ckpt-00000010.safetensors") == before);
  EXPECT_EQ(rapt(folder, "eval run --json").code, 0);
}

TEST_F(Program, ALogThatCantGrowStopsNoTraining) {
  ASSERT_EQ(train("--steps 10").code, 0);
  // a first line so long that the limit leaves room for three lines more, and a checkpoint is smaller
  std::string line = "{\"step\": 1, \"long\": \"\"}\n";
  size_t limit = 512 * 256;
  ASSERT_LT(std::filesystem::file_size(folder / "run/ckpt-00000010.safetensors"), limit);
  make_file(folder / "run/log.jsonl", line.insert(line.size() - 3, limit - 500 - line.size(), 'x'));
  Result r = rapt(folder, "train --resume run --steps 30", "ulimit -f 256; trap '' XFSZ;");
  EXPECT_EQ(r.code, 0) << r.out << r.err;
  size_t warning = r.out.find("warning: run/log.jsonl: no line for step 1");
  ASSERT_NE(warning, std::string::npos) << r.out;
  EXPECT_EQ(r.out.find("warning", warning + 1), std::string::npos) << r.out;
  std::istringstream log(read_file(folder / "run/log.jsonl"));
  int lines = 0;
  for (std::string text; std::getline(log, text); ++lines) {
    EXPECT_NO_THROW(std::ignore = nlohmann::json::parse(text)) << text;
    EXPECT_FALSE(log.eof()) << "the last line has no end";
  }
  EXPECT_GE(lines, 3);
  EXPECT_LE(lines, 10);
  EXPECT_TRUE(std::filesystem::exists(folder / "run/ckpt-00000030.safetensors"));
}

}  // namespace
}  // namespace rapt::test

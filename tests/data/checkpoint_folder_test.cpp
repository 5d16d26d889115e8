#include <gtest/gtest.h>
#include <rapt/data/formats/checkpoint_folder.h>
#include <rapt/data/formats/crc32c.h>
#include <sys/wait.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "failing_calls.h"
#include "files.h"

namespace rapt {
namespace {

using namespace rapt_test;
using Names = std::set<std::string>;

// All the state of a step, made from its number.
struct State {
  int64_t step;
  Tensor weight = empty({3, 5}), scalar_ = empty({});
  std::vector<int64_t> order;
  std::string words;

  explicit State(int64_t s) : step(s) {
    for (int i = 0; i < 15; ++i) weight.mutable_data()[i] = Real(s) + Real(i) / 7;
    scalar_.mutable_data()[0] = -Real(s);
    for (int64_t i = 0; i < 9; ++i) order.push_back(i * s * 1'000'003 - s);
    words = "step " + std::to_string(s) + " \n\xFF";
  }
  std::vector<TensorView> tensors() const {
    return {tensor_view("model.weight", weight), tensor_view("s", scalar_), tensor_view("order", order),
            tensor_view("words", words)};
  }
  Metadata metadata() const {
    return {{"seed", "18446744073709551615"}, {"loss", exact_text(double(step) / 3)}, {"config", "{\"a\":\"é\\n\"}"}};
  }
  std::vector<std::string> save(CheckpointFolder& folder, bool best = false) const {
    return folder.save(step, tensors(), metadata(), best);
  }
};

// Whether a checkpoint holds exactly what State(step) does.
void expect_state(const Checkpoint& checkpoint, int64_t step) {
  State state(step);
  EXPECT_EQ(checkpoint.step, step);
  EXPECT_EQ(checkpoint.metadata, state.metadata());
  ASSERT_EQ(checkpoint.file.tensors().size(), 4u);
  for (const TensorView& t : state.tensors()) {
    const TensorView& found = checkpoint.file.at(t.name);
    EXPECT_EQ(found.dtype, t.dtype);
    EXPECT_EQ(found.shape, t.shape);
    EXPECT_EQ(bytes_of(found), bytes_of(t));
  }
}

int64_t latest_step(const std::filesystem::path& folder) {
  auto checkpoint = load_latest(folder);
  if (!checkpoint) return -1;
  expect_state(*checkpoint, checkpoint->step);
  return checkpoint->step;
}

std::string all_notes(const std::vector<std::string>& notes) {
  std::string all;
  for (const std::string& note : notes) all += note + "\n";
  return all;
}

void flip_bit(const std::filesystem::path& path, size_t byte) {
  std::string bytes = contents(path);
  bytes[byte] = char(bytes[byte] ^ 4);
  put(path, bytes);
}

// Sets a value of the header to another one of the same length, with a right CRC: a file somebody made on purpose.
void change_header(const std::filesystem::path& path, const std::string& from, const std::string& to) {
  std::string bytes = contents(path);
  size_t place = bytes.find(from);
  ASSERT_NE(place, std::string::npos);
  bytes.replace(place, from.size(), to);
  const std::string key = "\"rapt.header_crc32c\":\"";
  size_t digits = bytes.find(key) + key.size();
  bytes.replace(digits, 8, "00000000");
  uint64_t n;
  std::memcpy(&n, bytes.data(), 8);
  bytes.replace(digits, 8, fmt::format("{:08x}", crc32c(std::string_view(bytes).substr(8, n))));
  put(path, bytes);
}

const std::string kTen = "ckpt-00000010.safetensors", kTwenty = "ckpt-00000020.safetensors",
                  kThirty = "ckpt-00000030.safetensors";

// A folder with the checkpoints of steps 10 and 20.
struct TwoSteps : TempFolder {
  TwoSteps() {
    CheckpointFolder folder(path, 0);
    State(10).save(folder);
    State(20).save(folder);
  }
};

TEST(CheckpointFolder, SavesAndLoads) {
  TempFolder temp;
  std::filesystem::path run = temp / "runs/first/";
  {
    CheckpointFolder folder(run);
    EXPECT_FALSE(folder.load());
    EXPECT_TRUE(State(10).save(folder).empty());
    EXPECT_TRUE(State(20).save(folder).empty());
    EXPECT_EQ(folder.load()->step, 20);
  }
  EXPECT_EQ(contents(run / "LATEST"), kTwenty + "\n");
  auto checkpoint = load_latest(run);
  ASSERT_TRUE(checkpoint);
  EXPECT_TRUE(checkpoint->notes.empty());
  expect_state(*checkpoint, 20);
  EXPECT_EQ(checkpoint->file.tensor("model.weight").to_vector(), State(20).weight.to_vector());
  EXPECT_EQ(checkpoint->file.integers("order"), State(20).order);
  expect_state(load_checkpoint(run / kTen), 10);
  EXPECT_FALSE(load_best(run));
  EXPECT_HAS(message_of([&] { load_latest(temp / "nothing"); }), "nothing: can't list the folder: No such file");
}

TEST(CheckpointFolder, SameStateSameBytes) {
  TempFolder a, b;
  for (const TempFolder* temp : {&a, &b}) {
    CheckpointFolder folder(temp->path);
    State(10).save(folder);
  }
  EXPECT_EQ(contents(a / kTen), contents(b / kTen));
}

TEST(CheckpointFolder, StateIsReadByKey) {
  TempFolder temp;
  CheckpointFolder folder(temp.path);
  double third = 1.0 / 3, infinity = std::numeric_limits<double>::infinity();
  folder.save(0, {},
              {{"u", "18446744073709551615"},
               {"i", "-5"},
               {"t", exact_text(third)},
               {"denormal", exact_text(5e-324)},
               {"inf", exact_text(-infinity)},
               {"nan", exact_text(std::nan(""))},
               {"text", "12 apples"},
               {"empty", ""}});
  Checkpoint c = *folder.load();
  EXPECT_EQ(c.unsigned_integer("u"), std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(c.integer("i"), -5);
  EXPECT_EQ(c.number("t"), third);
  EXPECT_EQ(c.number("denormal"), 5e-324);
  EXPECT_EQ(c.number("inf"), -infinity);
  EXPECT_TRUE(std::isnan(c.number("nan")));
  EXPECT_EQ(c.number("i"), -5.0);
  EXPECT_EQ(c.text("text"), "12 apples");
  EXPECT_HAS(message_of([&] { c.text("none"); }), "ckpt-00000000.safetensors: the state \"none\" is missing");
  for (const char* key : {"u", "t", "text", "empty", "none"}) message_of([&] { c.integer(key); });
  for (const char* key : {"i", "t", "text", "empty"}) message_of([&] { c.unsigned_integer(key); });
  EXPECT_HAS(message_of([&] { c.number("text"); }), "expected a number as \"text\", found \"12 apples\"");
  message_of([&] { c.number("empty"); });
}

TEST(CheckpointFolder, Names) {
  EXPECT_EQ(checkpoint_name(250), "ckpt-00000250.safetensors");
  EXPECT_EQ(checkpoint_name(1234567890), "ckpt-1234567890.safetensors");
  for (int64_t step : {int64_t{0}, int64_t{7}, int64_t{99999999}, int64_t{100000000}, int64_t{1} << 62})
    EXPECT_EQ(checkpoint_step(checkpoint_name(step)), step);
  for (const char* name : {"", "ckpt-", "ckpt-.safetensors", "ckpt-250.safetensors", "ckpt-000000250.safetensors",
                           "ckpt-0000025x.safetensors", "ckpt-00000250.safetensors ", "ckpt--0000250.safetensors",
                           "ckpt-00000250.gguf", ".ckpt-00000250.tmp.7", "a/ckpt-00000250.safetensors",
                           "ckpt-99999999999999999999.safetensors", "ckpt-+0000250.safetensors"})
    EXPECT_FALSE(checkpoint_step(name)) << name;
}

TEST(CheckpointFolder, KeepsTheLastAndTheBest) {
  struct Row {
    int64_t keep;
    std::vector<int64_t> best;
    std::set<int64_t> left;
  } rows[] = {
      {0, {}, {10, 20, 30, 40, 50, 60}}, {1, {}, {50, 60}},           {2, {}, {50, 60}},       {3, {}, {40, 50, 60}},
      {2, {20}, {20, 50, 60}},           {2, {20, 30}, {30, 50, 60}}, {3, {60}, {40, 50, 60}}, {1, {10}, {10, 50, 60}},
      {9, {}, {10, 20, 30, 40, 50, 60}},
  };
  for (const Row& row : rows) {
    TempFolder temp;
    CheckpointFolder folder(temp.path, row.keep);
    for (int64_t step = 10; step <= 60; step += 10)
      State(step).save(folder, std::count(row.best.begin(), row.best.end(), step) > 0);
    Names expected = {".lock", "LATEST"};
    for (int64_t step : row.left) expected.insert(checkpoint_name(step));
    if (!row.best.empty()) expected.insert("BEST");
    EXPECT_EQ(temp.names(), expected);
    if (!row.best.empty()) expect_state(*load_best(temp.path), row.best.back());
  }
}

// Somebody went back to step 10 by hand: what comes after it is not touched, and does not count among the last.
TEST(CheckpointFolder, LeavesTheFutureOfARunThatWasTakenBack) {
  TempFolder temp;
  for (int64_t step : {10, 20, 30, 40}) {
    CheckpointFolder folder(temp.path, 0);
    State(step).save(folder);
  }
  put(temp / "LATEST", kTen + "\n");
  CheckpointFolder folder(temp.path, 2);
  State(15).save(folder);
  State(17).save(folder);
  EXPECT_EQ(latest_step(temp.path), 17);
  EXPECT_EQ(temp.names(), (Names{".lock", "LATEST", checkpoint_name(15), checkpoint_name(17), kTwenty, kThirty,
                                 checkpoint_name(40)}));
}

// The one before is what LATEST named until now, and also the one with the next lower number.
TEST(CheckpointFolder, KeepsTheOneBefore) {
  TempFolder temp;
  for (int64_t step : {10, 20, 30}) {
    CheckpointFolder folder(temp.path, 0);
    State(step).save(folder);
  }
  put(temp / "LATEST", kTen + "\n");
  CheckpointFolder folder(temp.path, 1);
  State(40).save(folder);
  EXPECT_EQ(temp.names(), (Names{".lock", "LATEST", kTen, kThirty, checkpoint_name(40)}));
  std::filesystem::remove(temp / "LATEST");
  State(50).save(folder);
  EXPECT_EQ(temp.names(), (Names{".lock", "LATEST", checkpoint_name(40), checkpoint_name(50)}));
}

TEST(CheckpointFolder, DeletesNothingWhenTheBestIsUnknown) {
  TempFolder temp;
  CheckpointFolder folder(temp.path, 1);
  State(10).save(folder);
  put(temp / "BEST", "ckpt-10\n");
  State(20).save(folder);
  EXPECT_HAS(all_notes(State(30).save(folder)), "no checkpoint is deleted");
  EXPECT_EQ(temp.names(), (Names{".lock", "BEST", "LATEST", kTen, kTwenty, kThirty}));
  EXPECT_HAS(message_of([&] { load_best(temp.path); }), "BEST: expected one line like");
}

TEST(CheckpointFolder, ReplacesTheSameStep) {
  TwoSteps run;
  CheckpointFolder folder(run.path, 2);
  State(20).save(folder);
  EXPECT_EQ(latest_step(run.path), 20);
  flip_bit(run / kTwenty, contents(run / kTwenty).size() - 1);
  EXPECT_EQ(latest_step(run.path), 10);
  State(20).save(folder);
  EXPECT_EQ(latest_step(run.path), 20);
  EXPECT_EQ(run.names(), (Names{".lock", "LATEST", kTen, kTwenty}));
}

TEST(CheckpointFolder, FallsBackToTheNewestThatVerifies) {
  struct Row {
    std::string latest;  // what stands in LATEST; "-" for no such file
    std::string note;
  } rows[] = {
      {"-", "LATEST: is missing"},
      {"", "LATEST: expected one line like \"ckpt-00000250.safetensors\", found \"\""},
      {"\n", "LATEST: expected one line"},
      {kTen, "LATEST: expected one line"},  // cut off before the newline
      {kTen + "\n\n", "LATEST: expected one line"},
      {kTen + "\n" + kTen + "\n", "LATEST: expected one line"},
      {" " + kTen + "\n", "LATEST: expected one line"},
      {"ckpt-10.safetensors\n", "LATEST: expected one line"},
      {"..\n", "LATEST: expected one line"},
      {std::string(100000, 'x'), "LATEST: expected one line"},
      {".ckpt-00000020.tmp.7\n", "LATEST: expected one line"},
      {kThirty + "\n", "skipped " + kThirty + ": "},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.latest.substr(0, 50));
    TwoSteps run;
    put(run / ".ckpt-00000020.tmp.7", contents(run / kTwenty));
    std::filesystem::remove(run / "LATEST");
    if (row.latest != "-") put(run / "LATEST", row.latest);
    auto checkpoint = load_latest(run.path);
    ASSERT_TRUE(checkpoint);
    expect_state(*checkpoint, 20);
    EXPECT_HAS(all_notes(checkpoint->notes), row.note);
    EXPECT_HAS(all_notes(checkpoint->notes), "going on from " + kTwenty);
  }
}

TEST(CheckpointFolder, LatestCountsEvenWhenThereIsANewerOne) {
  TwoSteps run;
  put(run / "LATEST", kTen + "\n");
  auto checkpoint = load_latest(run.path);
  expect_state(*checkpoint, 10);
  EXPECT_TRUE(checkpoint->notes.empty());
}

TEST(CheckpointFolder, RefusesAPathInLatest) {
  TwoSteps run;
  for (const std::string& name : {"../" + kTen, "/" + kTen, std::string("a/b"), "./" + kTwenty + "\n"}) {
    put(run / "LATEST", name);
    EXPECT_HAS(message_of([&] { load_latest(run.path); }), "LATEST: names a path");
  }
}

TEST(CheckpointFolder, SaysWhatIsDamagedAndTakesTheOneBefore) {
  TwoSteps run;
  std::string good = contents(run / kTwenty);
  size_t weight = good.size() - 15 * 4 - 4 - State(20).words.size();  // I64, then F32 by name, then U8
  flip_bit(run / kTwenty, weight + 9);
  auto checkpoint = load_latest(run.path);
  expect_state(*checkpoint, 10);
  EXPECT_HAS(all_notes(checkpoint->notes),
             "skipped " + kTwenty + ": " + (run / kTwenty).string() + ": tensor \"model.weight\" is damaged: expected");
  EXPECT_HAS(all_notes(checkpoint->notes), "going on from " + kTen);
  EXPECT_HAS(message_of([&] { load_checkpoint(run / kTwenty); }), "tensor \"model.weight\" is damaged");

  put(run / kTen, "");
  std::string message = message_of([&] { load_latest(run.path); });
  EXPECT_HAS(message, "there is no checkpoint that can be read");
  EXPECT_HAS(message, "tensor \"model.weight\" is damaged");
  EXPECT_HAS(message, "header too small");

  put(run / kTwenty, good);
  EXPECT_EQ(latest_step(run.path), 20);
}

TEST(CheckpointFolder, FindsAnyFlippedBitAndAnyTruncation) {
  TwoSteps run;
  std::string good = contents(run / kTwenty);
  for (size_t byte = 0; byte < good.size(); ++byte) {
    std::string bad = good;
    bad[byte] = char(bad[byte] ^ (1 << byte % 8));
    put(run / kTwenty, bad);
    SCOPED_TRACE(byte);
    message_of([&] { load_checkpoint(run / kTwenty); });
  }
  for (size_t size = 0; size < good.size(); size += 7) {
    put(run / kTwenty, good.substr(0, size));
    SCOPED_TRACE(size);
    message_of([&] { load_checkpoint(run / kTwenty); });
  }
  put(run / kTwenty, good);
  expect_state(load_checkpoint(run / kTwenty), 20);
}

TEST(CheckpointFolder, RejectsAFileThatIsNoneOfOurs) {
  TwoSteps run;
  std::string good = contents(run / kTwenty);
  auto message = [&] { return message_of([&] { load_checkpoint(run / kTwenty); }); };

  std::filesystem::copy_file(run / kTen, run / kTwenty, std::filesystem::copy_options::overwrite_existing);
  EXPECT_HAS(message(), "expected the checkpoint of step 20, found that of step \"10\"");
  EXPECT_EQ(latest_step(run.path), 10);

  Tensor w = ones({2});
  write_safetensors(run / kTwenty, {tensor_view("w", w)}, {{"format", "pt"}});
  EXPECT_HAS(message(), "expected \"rapt.header_crc32c\" in the metadata, found none: not a checkpoint of rapt");

  put(run / kTwenty, good);
  change_header(run / kTwenty, "\"rapt.step\":\"20\"", "\"rapt.step\":\"21\"");
  EXPECT_HAS(message(), "expected the checkpoint of step 20, found that of step \"21\"");

  put(run / kTwenty, good);
  change_header(run / kTwenty, "\"rapt.crc32c.s\":", "\"rapt.crc32c.t\":");
  EXPECT_HAS(message(), "expected \"rapt.crc32c.s\" in the metadata, found none");

  put(run / kTwenty, good);
  size_t crc = good.find("\"rapt.header_crc32c\":\"") + 22;
  put(run / kTwenty, good.replace(crc, 8, "ABCDEFGH"));
  EXPECT_HAS(message(), "the header is damaged: expected CRC32C ABCDEFGH, found ");

  std::filesystem::copy_file(run / kTen, run / "copy.safetensors");
  EXPECT_HAS(message_of([&] { load_checkpoint(run / "copy.safetensors"); }), "expected the file name of a checkpoint");
}

TEST(CheckpointFolder, RejectsAnotherFormatVersionInsteadOfGoingBack) {
  TwoSteps run;
  change_header(run / kTwenty, "\"rapt.format\":\"1\"", "\"rapt.format\":\"2\"");
  EXPECT_HAS(message_of([&] { load_latest(run.path); }), "has format version \"2\", but this program reads version 1");
}

TEST(CheckpointFolder, RemovesLeftoversUnderTheLock) {
  TwoSteps run;
  put(run / ".ckpt-00000030.tmp.4711", contents(run / kTwenty));
  put(run / ".LATEST.tmp.4711", kTwenty);
  put(run / ".notes.tmp", "somebody's own");
  put(run / "log.tmp.1", "somebody's own");
  EXPECT_EQ(latest_step(run.path), 20);
  EXPECT_EQ(run.names().size(), 8u);  // loading alone removes nothing
  CheckpointFolder folder(run.path);
  EXPECT_EQ(run.names(), (Names{".lock", ".notes.tmp", "LATEST", kTen, kTwenty, "log.tmp.1"}));
}

TEST(CheckpointFolder, OneWriterAtATime) {
  TwoSteps run;
  CheckpointFolder folder(run.path);
  put(run / ".ckpt-00000030.tmp.4711", "being written");
  EXPECT_HAS(message_of([&] { CheckpointFolder second(run.path); }), "in use by another process");
  EXPECT_EQ(contents(run / ".ckpt-00000030.tmp.4711"), "being written");
  EXPECT_EQ(latest_step(run.path), 20);
}

TEST(CheckpointFolder, RefusesWhatIsNotItsOwn) {
  TempFolder temp;
  CheckpointFolder folder(temp.path);
  EXPECT_HAS(message_of<Error>([&] { folder.save(-1, {}, {}); }), "expected a step of at least 0");
  for (const char* key : {"rapt.format", "rapt.step", "rapt.header_crc32c", "rapt.crc32c.x"})
    EXPECT_HAS(message_of<Error>([&] { folder.save(1, {}, {{key, "1"}}); }), "is taken");
  EXPECT_HAS(message_of<Error>([&] { CheckpointFolder(temp / "b", -1); }), "expected to keep the last 1, 2");
  folder.save(1, {}, {{"rapt.config", "mine"}});
  EXPECT_EQ(folder.load()->text("rapt.config"), "mine");
}

// Steps 10, 20, 30 are there (10 the best); saving 40 as the new best goes wrong at the k-th call, for every k.
void prepare(const std::filesystem::path& path) {
  CheckpointFolder folder(path, 2);
  State(10).save(folder, true);
  State(20).save(folder);
  State(30).save(folder);
}

// Whatever happened: the old state or the new one, bit for bit, and everything that the old one may need; then the
// run goes on as if nothing had been.
void expect_intact(const TempFolder& temp, int64_t expected_latest) {
  EXPECT_EQ(latest_step(temp.path), expected_latest);
  EXPECT_TRUE(load_latest(temp.path)->notes.empty());
  auto best = load_best(temp.path);
  ASSERT_TRUE(best);
  expect_state(*best, best->step);
  EXPECT_TRUE(best->step == 10 || best->step == 40);
  expect_state(load_checkpoint(temp / kThirty), 30);
  if (expected_latest == 30) expect_state(load_checkpoint(temp / kTwenty), 20);
  {
    CheckpointFolder folder(temp.path, 2);
    State(40).save(folder, true);
    State(50).save(folder);
  }
  EXPECT_EQ(latest_step(temp.path), 50);
  EXPECT_EQ(temp.names(), (Names{".lock", "BEST", "LATEST", checkpoint_name(40), checkpoint_name(50)}));
}

TEST(CheckpointFolder, AnyCallOfSavingMayFail) {
  for (auto mode : {FailingCalls::kFail, FailingCalls::kFailForGood})
    for (int error : {EIO, ENOSPC}) {
      int k = 0;
      for (;; ++k) {
        SCOPED_TRACE(k);
        TempFolder temp;
        prepare(temp.path);
        bool failed = false;
        int calls = 0;
        std::string trace;
        {
          CheckpointFolder folder(temp.path, 2);
          FailingCalls failing(mode, k, error);
          try {
            State(40).save(folder, true);
          } catch (const DataError& e) {
            failed = true;
            EXPECT_HAS(e.what(), error == EIO ? "Input/output error" : "No space left on device; free some space");
          }
          calls = failing.count();
          trace = failing.trace();
        }
        bool pointed = contents(temp / "LATEST") == checkpoint_name(40) + "\n";
        EXPECT_TRUE(failed || pointed) << trace;
        expect_intact(temp, pointed ? 40 : 30);
        if (HasFailure() || calls <= k) break;
      }
      EXPECT_GT(k, 25);  // or the calls were not counted
    }
}

TEST(CheckpointFolder, TheProcessMayDieAtAnyCallOfSaving) {
  for (auto mode : {FailingCalls::kDie, FailingCalls::kDieWithin}) {
    int k = 0;
    for (;; ++k) {
      SCOPED_TRACE(k);
      TempFolder temp;
      prepare(temp.path);
      pid_t child = fork();
      if (child == 0) {
        CheckpointFolder folder(temp.path, 2);
        FailingCalls failing(mode, k);
        State(40).save(folder, true);
        _exit(0);
      }
      int status = 0;
      waitpid(child, &status, 0);
      ASSERT_TRUE(WIFEXITED(status));
      bool pointed = contents(temp / "LATEST") == checkpoint_name(40) + "\n";
      expect_intact(temp, pointed ? 40 : 30);
      if (HasFailure() || WEXITSTATUS(status) == 0) break;
      EXPECT_EQ(WEXITSTATUS(status), FailingCalls::kDeathCode);
    }
    EXPECT_GT(k, 25);
  }
}

TEST(CheckpointFolder, TheProcessMayDieWhileSavingTheFirst) {
  for (int k = 0;; ++k) {
    SCOPED_TRACE(k);
    TempFolder temp;
    std::filesystem::path run = temp / "run";
    pid_t child = fork();
    if (child == 0) {
      FailingCalls failing(FailingCalls::kDie, k);
      CheckpointFolder folder(run);
      State(10).save(folder);
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFEXITED(status));
    CheckpointFolder folder(run);
    int64_t step = latest_step(run);
    EXPECT_TRUE(step == -1 || step == 10);
    if (WEXITSTATUS(status) == 0) {
      EXPECT_EQ(step, 10);
      break;
    }
    State(10).save(folder);
    EXPECT_EQ(latest_step(run), 10);
  }
}

// The order that the proof rests on.
TEST(CheckpointFolder, DeletesOnlyAfterLatestIsOnTheDisk) {
  TempFolder temp;
  prepare(temp.path);
  CheckpointFolder folder(temp.path, 2);
  FailingCalls calls(FailingCalls::kCount, 0);
  State(40).save(folder);
  std::string small = "open reserve write fsync close rename open fsync close";
  EXPECT_EQ(calls.trace(), "open reserve write write write write write write fsync close rename open fsync close " +
                               small + " unlink open fsync close");
}

TEST(CheckpointFolder, AnOldOneThatCannotBeDeletedIsANote) {
  TempFolder temp;
  prepare(temp.path);
  CheckpointFolder folder(temp.path, 2);
  FailingCalls calls(FailingCalls::kFail, 23, EACCES);
  std::vector<std::string> notes = State(40).save(folder);
  EXPECT_HAS(calls.trace(), "unlink");
  EXPECT_HAS(all_notes(notes), kTwenty + ": can't delete the old checkpoint: Permission denied");
  EXPECT_EQ(latest_step(temp.path), 40);
}

// What was written is read back: memory that changes between the CRC and the disk does not become LATEST.
TEST(CheckpointFolder, DoesNotPointAtWhatWasWrittenWrong) {
  TwoSteps run;
  CheckpointFolder folder(run.path);
  SystemCalls real = system_calls();
  static int writes;
  writes = 0;
  system_calls().write = [](int fd, const void* bytes, size_t size) -> ssize_t {
    std::string changed(static_cast<const char*>(bytes), size);
    if (++writes == 4) changed[5] = char(changed[5] ^ 1);
    return ::write(fd, changed.data(), size);
  };
  std::string message = message_of([&] { State(30).save(folder); });
  EXPECT_HAS(message, "checkpoint of step 30 not saved, the ones before are in place");
  EXPECT_HAS(message, "tensor \"model.weight\" is damaged");
  EXPECT_EQ(latest_step(run.path), 20);

  // The same where a good one has the name already: that one stays.
  writes = 0;
  message_of([&] { State(20).save(folder); });
  system_calls() = real;
  EXPECT_EQ(latest_step(run.path), 20);
  State(30).save(folder);
  EXPECT_EQ(latest_step(run.path), 30);
}

}  // namespace
}  // namespace rapt

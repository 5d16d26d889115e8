#include <fcntl.h>
#include <gtest/gtest.h>
#include <rapt/data/formats/atomic_file.h>
#include <rapt/data/formats/mapped_file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <csignal>

#include "failing_calls.h"
#include "files.h"

namespace rapt {
namespace {

using namespace rapt_test;

const std::string kOld = "what was there before\n", kNew(10000, 'n');

TEST(AtomicFile, WritesAndReplaces) {
  TempFolder folder;
  write_file(folder / "a.txt", kOld);
  EXPECT_EQ(contents(folder / "a.txt"), kOld);
  MappedFile before(folder / "a.txt");
  write_file(folder / "a.txt", kNew);
  EXPECT_EQ(contents(folder / "a.txt"), kNew);
  EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(before.bytes().data()), before.bytes().size()), kOld);
  write_file(folder / "empty", "");
  EXPECT_EQ(contents(folder / "empty"), "");
  EXPECT_EQ(folder.names(), (std::set<std::string>{"a.txt", "empty"}));
}

TEST(AtomicFile, GivesTheModeOfAnyNewFile) {
  TempFolder folder;
  mode_t before = umask(027);
  write_file(folder / "a", kOld);
  umask(before);
  struct stat status {};
  ASSERT_EQ(stat((folder / "a").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0640u);
}

TEST(AtomicFile, WritesInTheWorkingFolder) {
  TempFolder folder;
  auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path);
  write_file("plain", kOld);
  std::filesystem::current_path(before);
  EXPECT_EQ(contents(folder / "plain"), kOld);
}

TEST(AtomicFile, SyncsBeforeItRenamesAndTheFolderAfterwards) {
  TempFolder folder;
  FailingCalls calls(FailingCalls::kCount, 0);
  write_file(folder / "a", kNew);
  EXPECT_EQ(calls.trace(), "open reserve write fsync close rename open fsync close");
}

TEST(AtomicFile, IsGoneWithoutCommit) {
  TempFolder folder;
  put(folder / "a", kOld);
  {
    AtomicFile file(folder / "a", 3);
    file.write("new");
    file.sync();
    EXPECT_EQ(contents(file.temporary()), "new");
  }
  EXPECT_EQ(contents(folder / "a"), kOld);
  EXPECT_EQ(folder.names(), (std::set<std::string>{"a"}));
}

TEST(AtomicFile, TakesExactlyWhatWasAnnounced) {
  TempFolder folder;
  {
    AtomicFile file(folder / "a", 3);
    file.write("ne");
    EXPECT_HAS(message_of<Error>([&] { file.commit(); }), "3 bytes were announced, but 2 written");
    EXPECT_HAS(message_of<Error>([&] { file.write("ww"); }), "more than the 3 bytes");
    file.write("w");
    file.commit();
    EXPECT_HAS(message_of<Error>([&] { file.commit(); }), "committed twice");
    EXPECT_HAS(message_of<Error>([&] { file.write(""); }), "writing");
  }
  EXPECT_EQ(contents(folder / "a"), "new");
  EXPECT_HAS(message_of<Error>([&] { AtomicFile file("a/", 3); }), "expected the name of a file");
}

// Old or new, bit for bit, whichever call fails; and the next attempt works.
TEST(AtomicFile, AnyCallMayFail) {
  for (bool exists : {false, true})
    for (auto mode : {FailingCalls::kFail, FailingCalls::kFailForGood}) {
      int failures = 0;
      for (int k = 0;; ++k) {
        SCOPED_TRACE(k);
        TempFolder folder;
        if (exists) put(folder / "a", kOld);
        bool failed = false;
        std::string trace;
        {
          FailingCalls calls(mode, k);
          try {
            write_file(folder / "a", kNew);
          } catch (const DataError& e) {
            failed = true;
            EXPECT_HAS(e.what(), "Input/output error");
          }
          trace = calls.trace();
          if (calls.count() <= k) break;  // it needs no more calls than that
        }
        failures += failed;
        // Only closing the folder, as the very last thing, can't do harm.
        EXPECT_EQ(failed, k < 8) << trace;
        bool renamed = k > 5;
        if (exists || renamed) {
          EXPECT_EQ(contents(folder / "a"), renamed ? kNew : kOld) << trace;
        }
        if (mode == FailingCalls::kFail) {
          EXPECT_EQ(folder.names().size(), size_t(exists || renamed)) << trace;
          // An fsync that failed is never tried again: the second may report success for bytes that are lost.
          if (k == 3) {
            EXPECT_EQ(trace, "open reserve write fsync close unlink");
          }
        }

        write_file(folder / "a", kNew);
        EXPECT_EQ(contents(folder / "a"), kNew);
      }
      EXPECT_EQ(failures, 8);
    }
}

TEST(AtomicFile, TheProcessMayDieAtAnyCall) {
  for (auto mode : {FailingCalls::kDie, FailingCalls::kDieWithin})
    for (int k = 0;; ++k) {
      SCOPED_TRACE(k);
      TempFolder folder;
      put(folder / "a", kOld);
      pid_t child = fork();
      if (child == 0) {
        FailingCalls calls(mode, k);
        write_file(folder / "a", kNew);
        _exit(0);
      }
      int status = 0;
      waitpid(child, &status, 0);
      ASSERT_TRUE(WIFEXITED(status));
      if (WEXITSTATUS(status) == 0) {
        EXPECT_EQ(k, 9);
        break;
      }
      EXPECT_EQ(WEXITSTATUS(status), FailingCalls::kDeathCode);
      bool renamed = k > 5 || (k == 5 && mode == FailingCalls::kDieWithin);
      EXPECT_EQ(contents(folder / "a"), renamed ? kNew : kOld);
      for (const std::string& name : folder.names()) EXPECT_TRUE(name == "a" || is_temporary_name(name)) << name;
      write_file(folder / "a", kNew);
      EXPECT_EQ(contents(folder / "a"), kNew);
    }
}

TEST(AtomicFile, SaysWhatToDoWhenTheDiskIsFull) {
  TempFolder folder;
  put(folder / "a", kOld);
  for (int k : {1, 2}) {  // reserving; writing
    FailingCalls calls(FailingCalls::kFail, k, ENOSPC);
    std::string message = message_of([&] { write_file(folder / "a", kNew); });
    EXPECT_HAS(message, (folder / "a").string() + ": can't ");
    EXPECT_HAS(message, k == 1 ? "reserve 10000 bytes" : "write");
    EXPECT_HAS(message, "No space left on device; free some space");
    EXPECT_HAS(message, "What was there before is unchanged");
  }
  EXPECT_EQ(contents(folder / "a"), kOld);
  EXPECT_EQ(folder.names().size(), 1u);
}

TEST(AtomicFile, GoesOnWhereSpaceCannotBeReserved) {
  TempFolder folder;
  for (int error : {EOPNOTSUPP, EINVAL}) {
    FailingCalls calls(FailingCalls::kFail, 1, error);
    write_file(folder / "a", kNew);
  }
  EXPECT_EQ(contents(folder / "a"), kNew);
}

// No double: the kernel itself refuses, by the limit on the size of files.
TEST(AtomicFile, KeepsTheOldFileAtAFileSizeLimit) {
  TempFolder folder;
  put(folder / "a", kOld);
  pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    rlimit limit{4096, 4096};
    setrlimit(RLIMIT_FSIZE, &limit);
    try {
      write_file(folder / "a", kNew);
    } catch (const DataError& e) {
      _exit(std::string(e.what()).find("File too large; the file system or a limit") != std::string::npos ? 7 : 8);
    }
    _exit(9);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 7);
  EXPECT_EQ(contents(folder / "a"), kOld);
  EXPECT_EQ(folder.names().size(), 1u);
}

TEST(AtomicFile, ShortWritesAndInterruptsGoOn) {
  TempFolder folder;
  SystemCalls real = system_calls();
  static int calls;
  calls = 0;
  system_calls().write = [](int fd, const void* bytes, size_t size) -> ssize_t {
    if (++calls % 3 == 0) {
      errno = EINTR;
      return -1;
    }
    return ::write(fd, bytes, std::min<size_t>(size, size_t(calls % 7 + 1)));
  };
  std::string text;
  for (int i = 0; i < 1000; ++i) text += char(i * 31 + i / 7);
  write_file(folder / "a", text);
  EXPECT_GT(calls, 250);
  EXPECT_EQ(contents(folder / "a"), text);

  system_calls().write = [](int, const void*, size_t) -> ssize_t { return 0; };  // must not go round for ever
  EXPECT_HAS(message_of([&] { write_file(folder / "a", text); }), "can't write");
  system_calls() = real;
}

TEST(AtomicFile, ALeftoverWithOurOwnProcessNumberIsNoObstacle) {
  TempFolder folder;
  std::string leftover = ".a.tmp." + std::to_string(getpid());
  put(folder / leftover, "half");
  write_file(folder / "a.txt", kNew);
  EXPECT_EQ(contents(folder / "a.txt"), kNew);
  EXPECT_EQ(contents(folder / leftover), "half");  // it may be somebody else's
  EXPECT_EQ(folder.names().size(), 2u);
}

TEST(AtomicFile, RemovesOnlyWhatItMade) {
  TempFolder folder;
  FailingCalls calls(FailingCalls::kFailForGood, 0, EEXIST);
  EXPECT_HAS(message_of([&] { write_file(folder / "a", kNew); }), "File exists");
  EXPECT_EQ(calls.trace().find("unlink"), std::string::npos) << calls.trace();
}

TEST(AtomicFile, FolderMissing) {
  TempFolder folder;
  std::string message = message_of([&] { write_file(folder / "no/a", kNew); });
  EXPECT_HAS(message, "No such file or directory; check that the folder exists");
  put(folder / "file", "");
  EXPECT_HAS(message_of([&] { write_file(folder / "file/a", kNew); }), "Not a directory");
  std::filesystem::create_directory(folder / "taken");
  EXPECT_HAS(message_of([&] { write_file(folder / "taken", kNew); }), "can't give the file its name: Is a directory");
  EXPECT_EQ(folder.names().size(), 2u);
}

TEST(TemporaryNames, AreRecognised) {
  for (const char* name : {".a.tmp.1", ".ckpt-00000250.tmp.4711", ".LATEST.tmp.7.1", ".x.tmp.y.tmp.12"})
    EXPECT_TRUE(is_temporary_name(name)) << name;
  for (const char* name : {"", ".", "a", "a.tmp.1", ".a", ".a.tmp.", ".a.tmp", ".a.tmp.x", ".a.tmp.1x", ".tmp.1",
                           ".lock", "ckpt-00000250.safetensors", ".a.tmp..1"})
    EXPECT_FALSE(is_temporary_name(name)) << name;
}

TEST(CreateFolder, WithThoseAboveAndSynced) {
  TempFolder folder;
  {
    FailingCalls calls(FailingCalls::kCount, 0);
    create_folder(folder / "a/b/c/");
    EXPECT_EQ(calls.trace(), "open fsync close open fsync close open fsync close");
    create_folder(folder / "a/b/c");
    EXPECT_EQ(calls.count(), 9);
  }
  EXPECT_TRUE(std::filesystem::is_directory(folder / "a/b/c"));
  put(folder / "file", "");
  EXPECT_HAS(message_of([&] { create_folder(folder / "file"); }), "file: can't create the folder");
  EXPECT_HAS(message_of([&] { create_folder(folder / "file/b"); }), "can't create the folder");
}

TEST(FolderLock, OneAtATime) {
  TempFolder folder;
  {
    FolderLock lock(folder.path);
    std::string message = message_of([&] { FolderLock second(folder.path); });
    EXPECT_HAS(message, folder.path.string() + ": the folder is in use by another process (number " +
                            std::to_string(getpid()) + ")");
    message_of([&] { FolderLock third(folder.path); });
  }
  FolderLock again(folder.path);
  EXPECT_HAS(message_of([&] { FolderLock none(folder / "missing"); }), "check that the folder exists");
}

TEST(FolderLock, EndsWithTheProcess) {
  TempFolder folder;
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  pid_t child = fork();
  if (child == 0) {
    FolderLock lock(folder.path);
    if (::write(ready[1], "x", 1) != 1) _exit(1);
    for (;;) pause();
  }
  char x;
  ASSERT_EQ(::read(ready[0], &x, 1), 1);
  EXPECT_HAS(message_of([&] { FolderLock lock(folder.path); }), "(number " + std::to_string(child) + ")");
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  FolderLock lock(folder.path);
  close(ready[0]);
  close(ready[1]);
}

TEST(MappedFile, TakesRegularFilesOnly) {
  TempFolder folder;
  EXPECT_HAS(message_of([&] { MappedFile f(folder / "none"); }), "none: can't open the file: No such file");
  EXPECT_HAS(message_of([&] { MappedFile f(folder.path); }), "expected a file, found a folder");
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_HAS(message_of([&] { MappedFile f(folder / "pipe"); }), "expected a regular file");
  put(folder / "empty", "");
  MappedFile empty(folder / "empty");
  EXPECT_TRUE(empty.bytes().empty());
  empty.release(empty.bytes());
}

TEST(MappedFile, CanBeReadAgainAfterRelease) {
  TempFolder folder;
  std::string text(20000, 'a');
  for (size_t i = 0; i < text.size(); ++i) text[i] = char(i * 7 + i / 256);
  put(folder / "a", text);
  MappedFile file(folder / "a");
  for (int pass = 0; pass < 2; ++pass)
    for (size_t begin : {size_t{0}, size_t{1}, size_t{4096}, size_t{9999}}) {
      auto part = file.bytes().subspan(begin, 9000);
      EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(part.data()), part.size()),
                std::string_view(text).substr(begin, 9000));
      file.release(part);
    }
}

}  // namespace
}  // namespace rapt

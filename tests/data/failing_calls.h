#pragma once
#include <unistd.h>

#include <cerrno>
#include <string>

#include <rapt/data/formats/atomic_file.h>

namespace rapt_test {

/// Stands between the library and the system while it lives: counts the calls that writing makes, and lets one go
/// wrong.
class FailingCalls {
 public:
  enum Mode {
    kCount,        ///< nothing goes wrong
    kFail,         ///< the k-th call fails, the others work
    kFailForGood,  ///< the k-th call fails, and all that follow
    kDie,          ///< the process ends before the k-th call, as after SIGKILL
    kDieWithin,    ///< the process ends in the k-th call: when half is written, or directly after the others
  };
  static constexpr int kDeathCode = 99;

  FailingCalls(Mode mode, int k, int error = EIO) : real_(rapt::system_calls()) {
    now() = {mode, k, error, 0, "", &real_};
    rapt::system_calls() = {open, reserve, write, fsync, close, rename, unlink};
  }
  ~FailingCalls() { rapt::system_calls() = real_; }
  FailingCalls(const FailingCalls&) = delete;
  FailingCalls& operator=(const FailingCalls&) = delete;

  static int count() { return now().count; }                 ///< calls so far
  static const std::string& trace() { return now().trace; }  ///< their names

 private:
  struct State {
    Mode mode;
    int k, error, count;
    std::string trace;
    const rapt::SystemCalls* real;
  };
  static State& now() {
    static State state;
    return state;
  }

  // Whether this call is to fail; or doesn't return.
  static bool fails(const char* name) {
    State& s = now();
    s.trace += s.trace.empty() ? name : std::string(" ") + name;
    int i = s.count++;
    if (s.mode == kDie && i == s.k) ::_exit(kDeathCode);
    errno = s.error;
    return (s.mode == kFail && i == s.k) || (s.mode == kFailForGood && i >= s.k);
  }
  static bool dies_within() { return now().mode == kDieWithin && now().count - 1 == now().k; }
  template <class T>
  static T done(T result) {
    if (dies_within()) ::_exit(kDeathCode);
    return result;
  }

  static int open(const char* path, int flags, mode_t mode) {
    return fails("open") ? -1 : done(now().real->open(path, flags, mode));
  }
  static int reserve(int fd, off_t offset, off_t size) {
    return fails("reserve") ? now().error : done(now().real->reserve(fd, offset, size));
  }
  static ssize_t write(int fd, const void* bytes, size_t size) {
    if (fails("write")) return -1;
    return done(now().real->write(fd, bytes, dies_within() ? size / 2 : size));
  }
  static int fsync(int fd) { return fails("fsync") ? -1 : done(now().real->fsync(fd)); }
  static int close(int fd) {
    bool failing = fails("close");
    int result = now().real->close(fd);  // a close that reports an error has closed all the same
    errno = now().error;
    return failing ? -1 : done(result);
  }
  static int rename(const char* from, const char* to) {
    return fails("rename") ? -1 : done(now().real->rename(from, to));
  }
  static int unlink(const char* path) { return fails("unlink") ? -1 : done(now().real->unlink(path)); }

  rapt::SystemCalls real_;
};

}  // namespace rapt_test

#include "atomic_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>

namespace rapt::inline RAPT_ABI {

namespace {

std::string message_of(int error) { return std::generic_category().message(error); }

const char* remedy(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT: return "; free some space, or write to another folder";
    case EFBIG: return "; the file system or a limit (ulimit -f) forbids files of this size";
    case EACCES:
    case EPERM:
    case EROFS: return "; check the permissions of the folder, or write to another one";
    case ENOENT: return "; check that the folder exists";
    case EIO: return "; the disk reports an error: check it, and write to another one";
    default: return "";
  }
}

int open_folder(const std::filesystem::path& folder) {
  return system_calls().open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
}

}  // namespace

SystemCalls& system_calls() {
  static SystemCalls calls{[](const char* path, int flags, mode_t mode) { return ::open(path, flags, mode); },
                           ::posix_fallocate,
                           ::write,
                           ::fsync,
                           ::close,
                           ::rename,
                           ::unlink};
  return calls;
}

AtomicFile::AtomicFile(std::filesystem::path path, uint64_t size) : path_(std::move(path)), size_(size) {
  check(path_.has_filename(), "{}: expected the name of a file to write", path_.string());
  std::string base = fmt::format(".{}.tmp.{}", path_.stem().string(), ::getpid());
  // The name may be taken by a dead process that had our number, which is common in containers.
  for (int attempt = 0; fd_ < 0; ++attempt) {
    temporary_ = path_.parent_path() / (attempt == 0 ? base : base + "." + std::to_string(attempt));
    fd_ = system_calls().open(temporary_.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
    if (fd_ < 0 && !(errno == EEXIST && attempt < 100) && errno != EINTR) {
      int error = errno;
      temporary_.clear();  // not ours
      fail("create a file in its folder", error);
    }
  }
  if (size == 0) return;
  int error = 0;
  do error = system_calls().reserve(fd_, 0, off_t(size));
  while (error == EINTR);
  // A file system that can't reserve says so with one of these; writing will tell.
  if (error != 0 && error != EOPNOTSUPP && error != EINVAL && error != ENOSYS)
    fail(fmt::format("reserve {} bytes", size).c_str(), error);
}

AtomicFile::~AtomicFile() { discard(); }

void AtomicFile::discard() {
  if (fd_ >= 0) system_calls().close(fd_);
  fd_ = -1;
  if (!temporary_.empty()) system_calls().unlink(temporary_.c_str());
  temporary_.clear();
}

void AtomicFile::fail(const char* doing, int error) {
  discard();
  throw DataError(fmt::format("{}: can't {}: {}{}. What was there before is unchanged.", path_.string(), doing,
                              message_of(error), remedy(error)));
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  check(fd_ >= 0 && bytes.size() <= size_ - written_, "{}: writing more than the {} bytes announced", path_.string(),
        size_);
  while (!bytes.empty()) {
    ssize_t n = system_calls().write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail("write", n < 0 ? errno : EIO);
    written_ += uint64_t(n);
    bytes = bytes.subspan(size_t(n));
  }
}

void AtomicFile::write(std::string_view bytes) { write(std::as_bytes(std::span(bytes.data(), bytes.size()))); }

void AtomicFile::sync() {
  if (fd_ < 0) return;
  check(written_ == size_, "{}: {} bytes were announced, but {} written", path_.string(), size_, written_);
  // Never tried twice: the kernel may have dropped the pages it could not write, and would then report success.
  if (system_calls().fsync(fd_) != 0) fail("bring the bytes to the disk", errno);
  if (system_calls().close(std::exchange(fd_, -1)) != 0) fail("close", errno);
}

void AtomicFile::commit() {
  sync();
  check(!temporary_.empty(), "{}: committed twice", path_.string());
  if (system_calls().rename(temporary_.c_str(), path_.c_str()) != 0) fail("give the file its name", errno);
  temporary_.clear();
  sync_folder(path_.parent_path());
}

void write_file(const std::filesystem::path& path, std::string_view contents) {
  AtomicFile file(path, contents.size());
  file.write(contents);
  file.commit();
}

bool is_temporary_name(std::string_view name) {
  size_t marker = name.rfind(".tmp.");
  if (!name.starts_with('.') || marker == std::string_view::npos || marker < 2) return false;
  std::string_view number = name.substr(marker + 5);
  return !number.empty() && std::isdigit(uint8_t(number[0])) &&
         std::all_of(number.begin(), number.end(), [](char c) { return std::isdigit(uint8_t(c)) || c == '.'; });
}

void sync_folder(const std::filesystem::path& folder) {
  int fd = open_folder(folder);
  int error = fd < 0 ? errno : 0;
  if (fd >= 0) {
    if (system_calls().fsync(fd) != 0 && errno != EINVAL) error = errno;  // EINVAL: the file system has no such thing
    system_calls().close(fd);
  }
  check<DataError>(error == 0,
                   "{}: can't bring the folder to the disk: {}{}. The last change is made, but may not survive a power "
                   "cut.",
                   folder.empty() ? "." : folder.string(), message_of(error), remedy(error));
}

void create_folder(const std::filesystem::path& folder) {
  std::error_code error;
  if (folder.empty() || std::filesystem::is_directory(folder, error)) return;
  std::filesystem::path name = folder.has_filename() ? folder : folder.parent_path();  // "run/" is "run"
  create_folder(name.parent_path());
  std::filesystem::create_directory(name, error);
  check<DataError>(!error, "{}: can't create the folder: {}{}", name.string(), error.message(), remedy(error.value()));
  sync_folder(name.parent_path());
}

FolderLock::FolderLock(const std::filesystem::path& folder) {
  std::filesystem::path path = folder / ".lock";
  fd_ = system_calls().open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  check<DataError>(fd_ >= 0, "{}: can't open the lock file: {}{}", path.string(), message_of(errno), remedy(errno));
  int result;
  do result = ::flock(fd_, LOCK_EX | LOCK_NB);
  while (result != 0 && errno == EINTR);
  if (result == 0) {
    // Only for the message below. Failing to write it changes nothing.
    std::string self = std::to_string(::getpid()) + "\n";
    if (::ftruncate(fd_, 0) == 0 && ::pwrite(fd_, self.data(), self.size(), 0) < 0) errno = 0;
    return;
  }
  int error = errno;
  char holder[32] = {};
  ssize_t n = ::pread(fd_, holder, sizeof holder - 1, 0);
  ::close(fd_);
  std::string who(holder, holder + std::max<ssize_t>(n, 0));
  while (!who.empty() && !std::isdigit(uint8_t(who.back()))) who.pop_back();
  if (!std::all_of(who.begin(), who.end(), [](char c) { return std::isdigit(uint8_t(c)); })) who.clear();
  check<DataError>(error != EWOULDBLOCK,
                   "{}: the folder is in use by another process{}; wait for it to end, or use another folder",
                   folder.string(), who.empty() ? "" : fmt::format(" (number {})", who));
  throw DataError(fmt::format("{}: can't lock: {}; the file system may not support locks: use another folder",
                              path.string(), message_of(error)));
}

FolderLock::~FolderLock() {
  ::close(fd_);  // which unlocks
}

}  // namespace rapt::inline RAPT_ABI

#pragma once
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "../../core/check.h"

namespace rapt::inline RAPT_ABI {

/// A file that appears under its name complete, or not at all. The bytes go to a temporary file in the same folder,
/// which commit syncs and renames; whatever had the name before stays as it was until then. Any failure (a full disk,
/// say) removes the temporary file and throws DataError.
class AtomicFile {
 public:
  /// Creates the temporary file and reserves `size` bytes for it, so that a full disk shows before anything is written.
  AtomicFile(std::filesystem::path path, uint64_t size);
  ~AtomicFile();  ///< without commit: removes the temporary file
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view bytes);

  /// Brings the bytes to the disk and closes the temporary file, which is then complete and can be looked at.
  void sync();
  /// Syncs, unless that was done, and gives the file its name. Exactly `size` bytes must have been written.
  void commit();

  const std::filesystem::path& temporary() const { return temporary_; }

 private:
  [[noreturn]] void fail(const char* doing, int error);
  void discard();

  std::filesystem::path path_, temporary_;  // temporary_ is empty once there is none
  int fd_ = -1;
  uint64_t size_, written_ = 0;
};

/// Replaces or creates a whole file, atomically.
void write_file(const std::filesystem::path& path, std::string_view contents);

/// Whether a file name is one AtomicFile gives temporary files (".<stem>.tmp.<process id>"): after a crash, a leftover.
bool is_temporary_name(std::string_view name);

/// Makes the names in a folder (creations, renames, deletions) survive a power cut. Throws DataError.
void sync_folder(const std::filesystem::path& folder);

/// Creates a folder, and those above it, where missing, and makes that survive a power cut. Throws DataError.
void create_folder(const std::filesystem::path& folder);

/// Holds a folder for one process: an exclusive lock on its file ".lock", which ends with the process at the latest.
class FolderLock {
 public:
  /// Throws DataError when somebody else holds it.
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_ = -1;
};

/// The system calls of writing. Tests replace them to see what is left when the k-th one fails.
struct SystemCalls {
  int (*open)(const char* path, int flags, mode_t mode);
  int (*reserve)(int fd, off_t offset, off_t size);  ///< posix_fallocate: returns the error number
  ssize_t (*write)(int fd, const void* bytes, size_t size);
  int (*fsync)(int fd);
  int (*close)(int fd);
  int (*rename)(const char* from, const char* to);
  int (*unlink)(const char* path);
};
SystemCalls& system_calls();

}  // namespace rapt::inline RAPT_ABI

#pragma once
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

#include "../../core/check.h"

namespace rapt::inline RAPT_ABI {

/// A regular file mapped into memory for reading. The file must not be shortened while it is mapped; replacing it by
/// rename, as every writer here does, is fine.
class MappedFile {
 public:
  /// Throws DataError when it is missing, unreadable or not a regular file. An empty file gives no bytes.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::string& name() const { return name_; }

  /// Lets go of the memory behind a part of the file until it is read again, so that a pass over a large file does not
  /// make the process look as large as the file.
  void release(std::span<const std::byte> part) const;

 private:
  std::string name_;
  std::span<const std::byte> bytes_;
};

}  // namespace rapt::inline RAPT_ABI

#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "atomic_file.h"
#include "safetensors.h"

/// A run's folder: checkpoints that survive a crash, a kill or a full disk at any moment.
///
///   ckpt-00000250.safetensors   one per saved step: tensors, and state as text in the metadata
///   LATEST                      the name of the checkpoint to go on from, and a newline
///   BEST                        the same for the best one, when there is one
///   .lock                       held by the one process that writes
///
/// Every file is written whole under another name, synced and renamed, and LATEST is moved only when the new checkpoint
/// was read back and found right. CRCs of each tensor and of the header find what has changed since.
namespace rapt::inline RAPT_ABI {

/// A checkpoint whose every CRC was found right.
struct Checkpoint {
  int64_t step = 0;
  Safetensors file;
  Metadata metadata;               ///< as given to save
  std::vector<std::string> notes;  ///< what the user should hear: checkpoints that were skipped, and why

  /// State by its key. Throws DataError when the key is missing, or the text is no such number.
  const std::string& text(std::string_view key) const;
  int64_t integer(std::string_view key) const;
  uint64_t unsigned_integer(std::string_view key) const;
  double number(std::string_view key) const;
};

/// A double as text that Checkpoint::number gives back to the bit.
std::string exact_text(double value);

/// Reads and verifies one checkpoint: the safetensors file, its CRCs, and that the step in its name is its own. Throws
/// DataError naming the file, and the tensor if one is damaged.
Checkpoint load_checkpoint(const std::filesystem::path& path);

/// The checkpoint LATEST names, or, when that can't be read, the highest-numbered one that verifies; notes say what was
/// skipped and why. `accept` may refuse one more by throwing DataError. Nothing when there are no checkpoints. Throws
/// DataError when there are some, but none verifies; when the one LATEST names was written by a newer version; and when
/// LATEST names a path. Needs no lock.
std::optional<Checkpoint> load_latest(const std::filesystem::path& folder,
                                      const std::function<void(const Checkpoint&)>& accept = {});

/// The checkpoint BEST names; nothing when there is no BEST. Throws DataError.
std::optional<Checkpoint> load_best(const std::filesystem::path& folder);

/// "ckpt-00000250.safetensors"
std::string checkpoint_name(int64_t step);
/// The step of such a name; nothing for every other name.
std::optional<int64_t> checkpoint_step(std::string_view name);

/// The writer of a run's folder. There can be one at a time.
class CheckpointFolder {
 public:
  /// Creates the folder when it is missing, locks it, and removes temporary files that a dead process left. Keeps the
  /// `keep_last` newest checkpoints (0: all). Throws DataError, also when another process writes there.
  explicit CheckpointFolder(std::filesystem::path folder, int64_t keep_last = 3);

  /// Writes a checkpoint, verifies it on disk, points LATEST (and, if `best`, BEST) at it, and only then deletes old
  /// ones: never the one LATEST names, the one before it, or the best. Throws DataError with everything that was there
  /// still in place; then the step can be saved again. Gives notes, such as an old file that could not be deleted.
  std::vector<std::string> save(int64_t step, std::vector<TensorView> tensors, Metadata metadata, bool best = false);

  std::optional<Checkpoint> load() const { return load_latest(folder_); }

  const std::filesystem::path& path() const { return folder_; }

 private:
  void delete_old(int64_t step, const std::string& before, std::vector<std::string>& notes) const;

  std::filesystem::path folder_;
  int64_t keep_last_;
  FolderLock lock_;
};

}  // namespace rapt::inline RAPT_ABI

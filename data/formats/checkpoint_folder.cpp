#include "checkpoint_folder.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <set>
#include <system_error>
#include <utility>

#include "crc32c.h"
#include "json.h"

namespace rapt::inline RAPT_ABI {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFormatVersion = "1";
// Keys of the metadata that are ours. Each tensor has one more: kTensorCrc followed by its name.
const std::string kFormat = "rapt.format", kStep = "rapt.step", kHeaderCrc = "rapt.header_crc32c",
                  kTensorCrc = "rapt.crc32c.";
constexpr std::string_view kNoCrc = "00000000";  // stands in the header while its CRC is computed

struct NewerFormat : DataError {
  using DataError::DataError;
};

std::string hex(uint32_t crc) { return fmt::format("{:08x}", crc); }

// The CRC of a tensor, letting go of the mapped file behind it piece by piece.
uint32_t crc_of(const Safetensors& file, std::span<const std::byte> bytes) {
  uint32_t crc = 0;
  while (!bytes.empty()) {
    auto piece = bytes.first(std::min<size_t>(bytes.size(), size_t{1} << 22));
    crc = crc32c(piece, crc);
    file.release(piece);
    bytes = bytes.subspan(piece.size());
  }
  return crc;
}

// Reads a file that should be the checkpoint of this step, under whatever name.
Checkpoint verify(const fs::path& path, int64_t step) {
  Checkpoint checkpoint{step, Safetensors::open(path), {}, {}};
  const Safetensors& file = checkpoint.file;
  checkpoint.metadata = file.metadata();
  auto take = [&](const std::string& key) {
    auto entry = checkpoint.metadata.extract(key);
    check<DataError>(!entry.empty(),
                     "{}: expected {} in the metadata, found none: not a checkpoint of rapt, or damaged", file.name(),
                     quoted_name(key));
    return std::move(entry.mapped());
  };

  std::string expected = take(kHeaderCrc);
  std::string header(file.header());
  std::string key = json_string(kHeaderCrc) + ":\"";
  size_t place = header.find(key + expected + "\"");
  check<DataError>(expected.size() == kNoCrc.size() && place != std::string::npos,
                   "{}: expected eight hexadecimal digits as {}, found {}", file.name(), kHeaderCrc,
                   quoted_name(expected));
  header.replace(place + key.size(), kNoCrc.size(), kNoCrc);
  std::string found = hex(crc32c(header));
  check<DataError>(found == expected, "{}: the header is damaged: expected CRC32C {}, found {}", file.name(), expected,
                   found);

  std::string format = take(kFormat);
  check<NewerFormat>(format == kFormatVersion,
                     "{}: has format version {}, but this program reads version {}: use the version of rapt that wrote "
                     "it",
                     file.name(), quoted_name(format), kFormatVersion);
  std::string own_step = take(kStep);
  check<DataError>(own_step == std::to_string(step), "{}: expected the checkpoint of step {}, found that of step {}",
                   file.name(), step, quoted_name(own_step));
  for (const TensorView& t : file.tensors()) {
    expected = take(kTensorCrc + t.name);
    found = hex(crc_of(file, t.bytes));
    check<DataError>(found == expected, "{}: tensor {} is damaged: expected CRC32C {}, found {}", file.name(),
                     quoted_name(t.name), expected, found);
  }
  return checkpoint;
}

// What LATEST or BEST says.
struct Pointer {
  bool exists = false;
  std::string name;     // of a checkpoint; empty when there is a problem
  std::string problem;  // why there is no name
  bool is_path = false;
};

Pointer read_pointer(const fs::path& file) {
  Pointer result;
  std::error_code error;
  result.exists = fs::exists(fs::symlink_status(file, error));
  if (!result.exists) {
    result.problem = fmt::format("{}: is missing", file.string());
    return result;
  }
  try {
    MappedFile map(file);
    std::string text(reinterpret_cast<const char*>(map.bytes().data()), std::min<size_t>(map.bytes().size(), 4096));
    result.is_path = text.find('/') != std::string::npos;
    result.name = text.substr(0, text.find('\n'));
    if (text != result.name + "\n" || !checkpoint_step(result.name)) {
      result.name.clear();
      result.problem = fmt::format("{}: expected one line like {}, found {}", file.string(),
                                   quoted_name(checkpoint_name(250)), quoted_name(text));
    }
  } catch (const DataError& e) {
    result.problem = e.what();
  }
  return result;
}

// The steps of all checkpoints in a folder, ascending.
std::set<int64_t> steps_in(const fs::path& folder) {
  std::set<int64_t> steps;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (auto step = checkpoint_step(it->path().filename().string())) steps.insert(*step);
  check<DataError>(!error, "{}: can't list the folder: {}", folder.string(), error.message());
  return steps;
}

template <class T>
T parse_number(const Checkpoint& checkpoint, std::string_view key, const char* expected) {
  const std::string& text = checkpoint.text(key);
  T value{};
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  check<DataError>(error == std::errc() && end == text.data() + text.size(), "{}: expected {} as {}, found {}",
                   checkpoint.file.name(), expected, quoted_name(key), quoted_name(text));
  return value;
}

}  // namespace

const std::string& Checkpoint::text(std::string_view key) const {
  auto it = metadata.find(std::string(key));
  check<DataError>(it != metadata.end(), "{}: the state {} is missing", file.name(), quoted_name(key));
  return it->second;
}

int64_t Checkpoint::integer(std::string_view key) const {
  return parse_number<int64_t>(*this, key, "an integer of 64 bits");
}
uint64_t Checkpoint::unsigned_integer(std::string_view key) const {
  return parse_number<uint64_t>(*this, key, "an unsigned integer of 64 bits");
}
double Checkpoint::number(std::string_view key) const { return parse_number<double>(*this, key, "a number"); }

std::string exact_text(double value) { return fmt::format("{}", value); }

std::string checkpoint_name(int64_t step) { return fmt::format("ckpt-{:08}.safetensors", step); }

std::optional<int64_t> checkpoint_step(std::string_view name) {
  constexpr std::string_view before = "ckpt-", after = ".safetensors";
  if (!name.starts_with(before) || !name.ends_with(after)) return std::nullopt;
  int64_t step = -1;
  std::from_chars(name.data() + before.size(), name.data() + name.size(), step);
  if (step < 0 || checkpoint_name(step) != name) return std::nullopt;
  return step;
}

Checkpoint load_checkpoint(const fs::path& path) {
  auto step = checkpoint_step(path.filename().string());
  check<DataError>(step.has_value(), "{}: expected the file name of a checkpoint, like {}", path.string(),
                   checkpoint_name(250));
  return verify(path, *step);
}

std::optional<Checkpoint> load_latest(const fs::path& folder, const std::function<void(const Checkpoint&)>& accept) {
  Pointer latest = read_pointer(folder / "LATEST");
  check<DataError>(!latest.is_path,
                   "{}: names a path, expected the name of a file in the same folder; delete LATEST to go on from the "
                   "newest checkpoint there",
                   (folder / "LATEST").string());
  std::set<int64_t> steps = steps_in(folder);
  if (!latest.exists && steps.empty()) return std::nullopt;

  // Those to try, the best choice last.
  std::vector<int64_t> candidates(steps.begin(), steps.end());
  std::vector<std::string> notes;
  if (!latest.problem.empty()) notes.push_back(latest.problem);
  if (auto step = checkpoint_step(latest.name)) {
    candidates.erase(std::remove(candidates.begin(), candidates.end(), *step), candidates.end());
    candidates.push_back(*step);
  }
  for (; !candidates.empty(); candidates.pop_back()) {
    std::string name = checkpoint_name(candidates.back());
    try {
      Checkpoint checkpoint = verify(folder / name, candidates.back());
      if (accept) accept(checkpoint);
      if (name != latest.name) notes.push_back(fmt::format("{}: going on from {}", folder.string(), name));
      checkpoint.notes = std::move(notes);
      return checkpoint;
    } catch (const NewerFormat&) {
      throw;  // taking an older one would quietly lose what a newer version trained
    } catch (const DataError& e) {
      notes.push_back(fmt::format("skipped {}: {}", name, e.what()));
    }
  }
  std::string all;
  for (const std::string& note : notes) all += "\n  " + note;
  throw DataError(fmt::format("{}: there is no checkpoint that can be read:{}", folder.string(), all));
}

std::optional<Checkpoint> load_best(const fs::path& folder) {
  Pointer best = read_pointer(folder / "BEST");
  if (!best.exists) return std::nullopt;
  check<DataError>(best.problem.empty(), "{}", best.problem);
  return load_checkpoint(folder / best.name);
}

CheckpointFolder::CheckpointFolder(fs::path folder, int64_t keep_last)
    : folder_(std::move(folder)), keep_last_(keep_last), lock_((create_folder(folder_), folder_)) {
  check(keep_last >= 0, "checkpoints: expected to keep the last 1, 2, … or 0 for all, got {}", keep_last);
  std::error_code error;
  std::vector<fs::path> leftovers;
  for (fs::directory_iterator it(folder_, error), end; !error && it != end; it.increment(error))
    if (is_temporary_name(it->path().filename().string())) leftovers.push_back(it->path());
  for (const fs::path& file : leftovers) system_calls().unlink(file.c_str());  // if it fails: only space is lost
}

std::vector<std::string> CheckpointFolder::save(int64_t step, std::vector<TensorView> tensors, Metadata metadata,
                                                bool best) {
  check(step >= 0, "checkpoints: expected a step of at least 0, got {}", step);
  for (const auto& [key, value] : metadata)
    check(key != kFormat && key != kStep && key != kHeaderCrc && !key.starts_with(kTensorCrc),
          "checkpoints: the metadata key {} is taken", quoted_name(key));
  for (const TensorView& t : tensors) metadata[kTensorCrc + t.name] = hex(crc32c(t.bytes));
  metadata[kFormat] = kFormatVersion;
  metadata[kStep] = std::to_string(step);
  metadata[kHeaderCrc] = kNoCrc;
  SafetensorsLayout layout(std::move(tensors), metadata);
  metadata[kHeaderCrc] = hex(crc32c(layout.header));
  layout = SafetensorsLayout(std::move(layout.tensors), metadata);

  // The order of what follows is what makes it safe: whatever step is the last one, LATEST names a checkpoint that is
  // on the disk, complete.
  std::string name = checkpoint_name(step);
  fs::path path = folder_ / name;
  try {
    AtomicFile file(path, layout.size);
    layout.write(file);
    file.sync();
    std::error_code error;
    if (fs::exists(path, error)) verify(file.temporary(), step);  // only something better may take its place
    file.commit();
    verify(path, step);
  } catch (const DataError& e) {
    throw DataError(fmt::format("checkpoint of step {} not saved, the ones before are in place: {}", step, e.what()));
  }
  std::string before = read_pointer(folder_ / "LATEST").name;
  write_file(folder_ / "LATEST", name + "\n");
  if (best) write_file(folder_ / "BEST", name + "\n");
  std::vector<std::string> notes;
  try {
    delete_old(step, before, notes);
  } catch (const DataError& e) {
    notes.emplace_back(e.what());  // the checkpoint is saved all the same
  }
  return notes;
}

void CheckpointFolder::delete_old(int64_t step, const std::string& before, std::vector<std::string>& notes) const {
  if (keep_last_ == 0) return;
  Pointer best = read_pointer(folder_ / "BEST");
  if (best.exists && best.name.empty()) {
    notes.push_back(best.problem +
                    "; no checkpoint is deleted, as one of them may be the best: delete BEST or repair it");
    return;
  }
  // Of those up to this one; later ones are from a run that was taken back, and not ours to judge.
  std::set<int64_t> steps = steps_in(folder_);
  std::vector<int64_t> old(steps.begin(), steps.upper_bound(step));
  int64_t keep = std::max<int64_t>(keep_last_, 2);  // always the one before LATEST's too
  old.resize(size_t(std::max<int64_t>(int64_t(old.size()) - keep, 0)));
  bool deleted = false;
  for (int64_t s : old) {
    std::string name = checkpoint_name(s);
    if (name == before || name == best.name) continue;
    fs::path path = folder_ / name;
    int error = system_calls().unlink(path.c_str()) == 0 ? 0 : errno;
    deleted |= error == 0;
    if (error != 0)
      notes.push_back(fmt::format("{}: can't delete the old checkpoint: {}", path.string(),
                                  std::generic_category().message(error)));
  }
  if (deleted) sync_folder(folder_);
}

}  // namespace rapt::inline RAPT_ABI

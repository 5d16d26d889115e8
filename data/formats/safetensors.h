#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "../../core/tensor.h"
#include "atomic_file.h"
#include "mapped_file.h"

namespace rapt::inline RAPT_ABI {

/// The element types of safetensors files.
enum class Dtype : uint8_t {
  kF4,
  kF6_E2M3,
  kF6_E3M2,
  kBool,
  kU8,
  kI8,
  kF8_E4M3,
  kF8_E5M2,
  kF8_E8M0,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kI64,
  kU64,
  kF64,
  kC64,
};
inline constexpr Dtype kRealDtype = sizeof(Real) == 4 ? Dtype::kF32 : Dtype::kF64;

std::string_view name_of(Dtype dtype);  ///< "F32"
int bits_of(Dtype dtype);               ///< bits of one element

/// "[2,3]", with at most `most` of the sizes.
std::string shape_text(const std::vector<int64_t>& shape, size_t most = 16);

/// A named array of bytes that somebody else owns: a part of a mapped file, or what is to be written.
struct TensorView {
  std::string name;
  Dtype dtype = kRealDtype;
  std::vector<int64_t> shape;        ///< slowest dimension first; any rank
  std::span<const std::byte> bytes;  ///< row-major, little endian, at any address
};

using Metadata = std::map<std::string, std::string>;

/// A safetensors file: 8 bytes with the length N of the header, the header (a JSON object), the data. Reading checks
/// everything that can be checked without looking at the numbers; a file that passes has every tensor inside it, none
/// overlapping, and no byte unaccounted for. Copies share the mapped file, as do the views.
class Safetensors {
 public:
  /// Maps and checks a file. Throws DataError saying what is wrong with it.
  static Safetensors open(const std::filesystem::path& path);
  /// The same for bytes in memory, which must outlive the result; `name` stands for the path in messages.
  static Safetensors parse(std::span<const std::byte> bytes, std::string name);

  const std::string& name() const { return name_; }
  const Metadata& metadata() const { return metadata_; }
  const std::vector<TensorView>& tensors() const { return tensors_; }  ///< in the order of the data
  std::string_view header() const { return header_; }                  ///< the N bytes as they stand in the file

  const TensorView* find(std::string_view name) const;         ///< null when there is none
  const TensorView& at(std::string_view name) const;           ///< throws DataError when there is none
  Tensor tensor(std::string_view name) const;                  ///< to_tensor of it, without the file staying in memory
  std::vector<int64_t> integers(std::string_view name) const;  ///< to_integers of it

  /// Lets go of the memory behind a part of the mapped file until it is read again.
  void release(std::span<const std::byte> part) const;

 private:
  std::string name_;
  std::shared_ptr<const MappedFile> file_;  // null after parse
  std::string_view header_;
  Metadata metadata_;
  std::vector<TensorView> tensors_;
  std::map<std::string, size_t, std::less<>> index_;
};

/// The numbers of an F32, F64, F16 or BF16 tensor of at most Shape::kMaxRank dimensions, as Real.
Tensor to_tensor(const TensorView& view);
/// The numbers of an I64, I32, U8 or BOOL tensor; BOOL gives 0 and 1.
std::vector<int64_t> to_integers(const TensorView& view);

/// Views of what is to be written; the numbers must outlive the view, and a tensor must be contiguous.
TensorView tensor_view(std::string name, const Tensor& tensor);
TensorView tensor_view(std::string name, std::span<const int64_t> values);
TensorView tensor_view(std::string name, std::string_view bytes);  ///< as U8
/// The numbers as F32, F64, F16 or BF16 (rounded to nearest even), for a file in another precision.
std::vector<std::byte> encode(const Tensor& tensor, Dtype dtype);

/// A file that is to be written, down to the byte: tensors by descending size of their elements, then by name; no gaps;
/// `__metadata__` first, with sorted keys; the header padded with spaces to a multiple of 8 bytes. The same tensors and
/// metadata give the same bytes, whatever the order they come in.
struct SafetensorsLayout {
  std::vector<TensorView> tensors;
  std::string header;  ///< with padding, without the 8 bytes of its length
  uint64_t size = 0;   ///< of the file

  /// Throws Error for names that come twice and bytes that don't fit their shape.
  SafetensorsLayout(std::vector<TensorView> tensors, const Metadata& metadata);
  void write(AtomicFile& file) const;
};

/// Writes a file atomically.
void write_safetensors(const std::filesystem::path& path, std::vector<TensorView> tensors,
                       const Metadata& metadata = {});

}  // namespace rapt::inline RAPT_ABI

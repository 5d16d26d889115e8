#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "safetensors.h"

namespace rapt::inline RAPT_ABI {

/// The weights of a model folder as Hugging Face lays it out: model.safetensors, or else the files among which
/// model.safetensors.index.json divides the tensors.
class WeightsFolder {
 public:
  /// Throws DataError when a file is missing or malformed, when the index names a file outside the folder, or when a
  /// tensor is not in the file it is mapped to.
  static WeightsFolder open(const std::filesystem::path& folder);

  const std::string& name() const { return name_; }     ///< the path of model.safetensors, or of the index
  std::vector<std::string> names() const;               ///< of all tensors, sorted
  const TensorView* find(std::string_view name) const;  ///< null when there is none
  Tensor tensor(std::string_view name) const;           ///< as Safetensors::tensor

  /// The shape that each tensor of a model should have.
  using Shapes = std::map<std::string, Shape>;
  /// Checks that every expected tensor is there with exactly its shape, and that nothing else is but what `is_extra`
  /// knows. Throws one DataError with all differences, missing tensors first.
  void expect(const Shapes& shapes, const std::function<bool(std::string_view)>& is_extra = nullptr) const;

 private:
  std::string name_;
  std::vector<Safetensors> files_;
  std::map<std::string, size_t, std::less<>> file_of_;  // each tensor's place in files_
};

}  // namespace rapt::inline RAPT_ABI

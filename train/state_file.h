#pragma once
#include <filesystem>

#include "../data/formats/safetensors.h"
#include "../nn/state.h"

namespace rapt::inline RAPT_ABI {

/// Writes tensors under their names into a safetensors file, atomically: the state of a model is its parameters().
void save_state(const std::filesystem::path& path, std::span<const NamedTensor> state, const Metadata& metadata = {});

/// Fills the parameters from a safetensors file (F32, F64, F16 or BF16), as load_parameters does. Throws DataError for
/// a file that is damaged or, unless loading partly, does not fit.
LoadReport load_state(const std::filesystem::path& path, std::span<const NamedTensor> parameters,
                      LoadOptions options = {});

}  // namespace rapt::inline RAPT_ABI

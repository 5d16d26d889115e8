#include "state_file.h"

#include <set>

namespace rapt::inline RAPT_ABI {

void save_state(const std::filesystem::path& path, std::span<const NamedTensor> state, const Metadata& metadata) {
  std::vector<Tensor> dense;  // lives until the file is written
  std::vector<TensorView> views;
  for (const NamedTensor& s : state) dense.push_back(contiguous(s.tensor));
  for (size_t i = 0; i < dense.size(); ++i) views.push_back(tensor_view(state[i].name, dense[i]));
  write_safetensors(path, std::move(views), metadata);
}

LoadReport load_state(const std::filesystem::path& path, std::span<const NamedTensor> parameters, LoadOptions options) {
  const Safetensors file = Safetensors::open(path);
  std::set<std::string> wanted;
  for (const NamedTensor& p : parameters) wanted.insert(p.name);
  std::vector<NamedTensor> values;
  for (const TensorView& view : file.tensors()) {
    if (wanted.contains(view.name)) {
      values.push_back({view.name, file.tensor(view.name)});
    } else {  // for the report, which tells names and shapes; it may be of any type
      Tensor unread;
      for (size_t d = 0; d < view.shape.size() && d < size_t(Shape::kMaxRank); ++d)
        unread.shape.push_back(view.shape[d]);
      values.push_back({view.name, unread});
    }
  }
  try {
    return load_parameters(parameters, values, options);
  } catch (const Error& error) {
    throw DataError(fmt::format("{}: {}", path.string(), error.what()));
  }
}

}  // namespace rapt::inline RAPT_ABI

#include "weights_folder.h"

#include <system_error>

#include "json.h"

namespace rapt::inline RAPT_ABI {

WeightsFolder WeightsFolder::open(const std::filesystem::path& folder) {
  WeightsFolder result;
  std::filesystem::path whole = folder / "model.safetensors", index = folder / "model.safetensors.index.json";
  std::error_code error;
  if (std::filesystem::exists(whole, error) || !std::filesystem::exists(index, error)) {
    result.name_ = whole.string();
    result.files_.push_back(Safetensors::open(whole));
    for (const TensorView& t : result.files_[0].tensors()) result.file_of_[t.name] = 0;
    return result;
  }

  result.name_ = index.string();
  JsonValue map = read_json(result.name_)["weight_map"];
  std::map<std::string, size_t> opened;
  for (const std::string& tensor : map.keys()) {
    const std::string& file = map[tensor].string();
    bool plain =
        !file.empty() && file.find_first_of("/\\") == std::string::npos && file.find("..") == std::string::npos;
    if (!plain) map[tensor].fail("the name of a file in the same folder");
    auto [entry, is_new] = opened.try_emplace(file, result.files_.size());
    if (is_new) result.files_.push_back(Safetensors::open(folder / file));
    check<DataError>(result.files_[entry->second].find(tensor) != nullptr,
                     "{}: expected the tensor in {}, which has none of this name", map[tensor].where(),
                     quoted_name(file));
    result.file_of_[tensor] = entry->second;
  }
  return result;
}

std::vector<std::string> WeightsFolder::names() const {
  std::vector<std::string> result;
  for (const auto& [name, file] : file_of_) result.push_back(name);
  return result;
}

const TensorView* WeightsFolder::find(std::string_view name) const {
  auto it = file_of_.find(name);
  return it == file_of_.end() ? nullptr : files_[it->second].find(name);
}

Tensor WeightsFolder::tensor(std::string_view name) const {
  auto it = file_of_.find(name);
  check<DataError>(it != file_of_.end(), "{}: there is no tensor {}", name_, quoted_name(name));
  return files_[it->second].tensor(name);
}

void WeightsFolder::expect(const Shapes& shapes, const std::function<bool(std::string_view)>& is_extra) const {
  std::string missing, different, unexpected;
  for (const auto& [name, shape] : shapes) {
    const TensorView* view = find(name);
    std::vector<int64_t> expected(shape.begin(), shape.end());
    if (view == nullptr) {
      missing += fmt::format("\n  missing: {} {}", quoted_name(name), shape_text(expected));
    } else if (view->shape != expected) {
      different += fmt::format("\n  shape of {}: expected {}, found {}", quoted_name(name), shape_text(expected),
                               shape_text(view->shape));
    }
  }
  for (const auto& [name, file] : file_of_)
    if (!shapes.contains(name) && !(is_extra && is_extra(name)))
      unexpected += fmt::format("\n  unexpected: {}", quoted_name(name));
  std::string all = missing + different + unexpected;
  check<DataError>(all.empty(), "{}: the tensors are not those of the model:{}", name_, all);
}

}  // namespace rapt::inline RAPT_ABI

#include "state.h"

#include <set>
#include <unordered_map>

namespace rapt::inline RAPT_ABI {

bool LoadReport::Misshapen::transposed() const {
  return given.rank == 2 && expected.rank == 2 && given[0] == expected[1] && given[1] == expected[0];
}

bool LoadReport::complete() const {
  return missing.empty() && unexpected.empty() && misshapen.empty() && given_twice.empty();
}

std::string to_string(const LoadReport& report) {
  std::string text;
  auto line = [&](const std::string& one) { text += (text.empty() ? "" : "\n") + one; };
  for (const std::string& name : report.given_twice) line("given twice: " + name);
  for (const LoadReport::Misshapen& m : report.misshapen) {
    line(fmt::format("misshapen: {} is {} instead of {}{}", m.name, m.given, m.expected,
                     m.transposed() ? "; transposed?" : ""));
  }
  for (const NamedTensor& p : report.missing) line(fmt::format("missing: {} {}", p.name, p.tensor.shape));
  for (const NamedTensor& v : report.unexpected) line(fmt::format("unexpected: {} {}", v.name, v.tensor.shape));
  return text;
}

LoadReport load_parameters(std::span<const NamedTensor> parameters, std::span<const NamedTensor> values,
                           LoadOptions options) {
  LoadReport report;
  std::unordered_map<std::string, const Tensor*> given;
  for (const NamedTensor& v : values) {
    if (!given.emplace(v.name, &v.tensor).second) report.given_twice.push_back(v.name);
  }
  std::set<std::string> known;
  std::vector<std::pair<Tensor, const Tensor*>> copies;
  for (const NamedTensor& p : parameters) {
    known.insert(p.name);
    auto found = given.find(p.name);
    if (found == given.end()) {
      report.missing.push_back(p);
    } else if (found->second->shape != p.tensor.shape) {
      report.misshapen.push_back({p.name, found->second->shape, p.tensor.shape});
    } else {
      report.loaded.push_back(p.name);
      copies.emplace_back(p.tensor, found->second);
    }
  }
  for (const NamedTensor& v : values) {
    if (!known.contains(v.name)) report.unexpected.push_back(v);
  }
  if (!report.given_twice.empty() || (!options.partly && !report.complete())) {
    std::string problems = to_string(report);
    for (size_t at = 0; (at = problems.find('\n', at)) != problems.npos; at += 3) problems.insert(at + 1, 2, ' ');
    throw Error("load_parameters: the values do not fit the model:\n  " + problems);
  }
  for (auto& [target, value] : copies) copy_into(target, *value);
  return report;
}

std::vector<NamedTensor> trainable(std::span<const NamedTensor> parameters) {
  std::vector<NamedTensor> free;
  for (const NamedTensor& p : parameters) {
    if (!is_frozen(p.tensor)) free.push_back(p);
  }
  return free;
}

}  // namespace rapt::inline RAPT_ABI

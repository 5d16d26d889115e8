#include "module.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

namespace rapt::inline RAPT_ABI {

namespace {

thread_local bool is_training = true;

std::mutex parameters_mutex;
std::vector<std::string> unclaimed;

struct ParameterNode;
// All there are, for debuggers; never destroyed, because parameters may live in static variables.
[[gnu::used]] std::vector<ParameterNode*>& live_parameters = *new std::vector<ParameterNode*>;

/// The leaf behind a parameter.
struct ParameterNode final : Node {
  const std::string parameter_name;
  const Tensor value;
  bool claimed = false;
  bool reported = false;
  ParameterNode(std::string name, Tensor x) : parameter_name(std::move(name)), value(std::move(x)) {
    name_ = parameter_name.c_str();
    shape = value.shape;
    std::lock_guard lock(parameters_mutex);
    live_parameters.push_back(this);
  }
  ~ParameterNode() override {
    std::lock_guard lock(parameters_mutex);
    std::erase(live_parameters, this);
  }
  void received() override {
    if (claimed || std::exchange(reported, true)) return;
    std::lock_guard lock(parameters_mutex);
    unclaimed.push_back(module->empty() ? parameter_name : fmt::format("{}.{}", *module, parameter_name));
  }
};

}  // namespace

Module::Module() : paths_{std::make_shared<std::string>()} {}

int64_t Module::parameter_count() const {
  int64_t n = 0;
  for (const NamedTensor& p : parameters_) n += p.tensor.numel();
  return n;
}

void Module::zero_gradients() const {
  for (const NamedTensor& p : parameters_) set_gradient(p.tensor, {});
}

Tensor Module::param(const std::string& name, const Tensor& value) {
  check(bool(value), "module: the parameter {} holds nothing", name);
  Tensor tensor = value.detach();
  auto node = std::make_shared<ParameterNode>(name, tensor);
  node->module = path();
  tensor.node = std::move(node);
  add(name, tensor);
  return tensor;
}

void Module::add(const std::string& name, const Tensor& tensor) {
  check(!name.empty(), "module: a parameter needs a name");
  for (const NamedTensor& p : parameters_) check(p.name != name, "module: there is a parameter {} already", name);
  parameters_.push_back({name, tensor});
}

void Module::adopt(const std::string& name, const Module& part) {
  check(!name.empty(), "module: a child needs a name");
  for (const auto& path : part.paths_) {
    *path = path->empty() ? name : name + "." + *path;
    paths_.push_back(path);
  }
  for (const NamedTensor& p : part.parameters_) add(name + "." + p.name, p.tensor);
}

void load_parameters(std::span<const NamedTensor> parameters, std::span<const NamedTensor> values) {
  std::map<std::string, const Tensor*> given;
  std::string problems;
  for (const NamedTensor& v : values) {
    if (!given.emplace(v.name, &v.tensor).second) problems += fmt::format("\n  given twice: {}", v.name);
  }
  for (const NamedTensor& p : parameters) {
    auto found = given.find(p.name);
    if (found == given.end()) {
      problems += fmt::format("\n  missing: {} {}", p.name, p.tensor.shape);
    } else if (found->second->shape != p.tensor.shape) {
      problems += fmt::format("\n  misshapen: {} is {} instead of {}", p.name, found->second->shape, p.tensor.shape);
    }
  }
  for (const NamedTensor& v : values) {
    bool known = std::ranges::any_of(parameters, [&](const NamedTensor& p) { return p.name == v.name; });
    if (!known) problems += fmt::format("\n  unexpected: {} {}", v.name, v.tensor.shape);
  }
  check(problems.empty(), "load_parameters: the values do not fit the model:{}", problems);
  for (const NamedTensor& p : parameters) {
    Tensor target = p.tensor;
    copy_into(target, *given[p.name]);
  }
}

EvalMode::EvalMode() : outer_(std::exchange(is_training, false)) {}
EvalMode::~EvalMode() { is_training = outer_; }
bool training() { return is_training; }

void claim_parameter(const Tensor& parameter) {
  if (auto* node = dynamic_cast<ParameterNode*>(parameter.node.get())) node->claimed = true;
}

std::vector<std::string> unclaimed_parameters() {
  std::lock_guard lock(parameters_mutex);
  return std::exchange(unclaimed, {});
}

}  // namespace rapt::inline RAPT_ABI

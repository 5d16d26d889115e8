#include "module.h"

#include <cxxabi.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <set>
#include <utility>

#include "../autograd/leaf.h"
#include "../core/nearest.h"

namespace rapt::inline RAPT_ABI {

namespace {

thread_local bool is_training = true;
std::atomic<uint64_t> next_module_hook = 1;

std::mutex live_mutex;
struct ParameterNode;
// All there are, for debuggers; never destroyed, because parameters may live in static variables.
[[gnu::used]] std::vector<ParameterNode*>& live_parameters = *new std::vector<ParameterNode*>;

/// The leaf behind a parameter.
struct ParameterNode final : Leaf {
  const Tensor value;
  ParameterNode(std::string name, Tensor x, Where w) : Leaf(std::move(name), x.shape, w), value(std::move(x)) {
    std::lock_guard lock(live_mutex);
    live_parameters.push_back(this);
  }
  ~ParameterNode() override {
    std::lock_guard lock(live_mutex);
    std::erase(live_parameters, this);
  }
};

std::string joined(const std::string& path, const std::string& name) { return path.empty() ? name : path + "." + name; }

template <class F>
void run_hook(const detail::ModulePart& part, const char* when, F call) {
  try {
    call();
  } catch (const std::exception& error) {
    std::throw_with_nested(
        Error(fmt::format("a hook {} {} threw: {}", when, part.path.empty() ? "the model" : part.path, error.what())));
  }
}

}  // namespace

// Copies of the lists: a hook may remove itself.
void detail::ModulePart::run_before(std::span<Tensor> inputs) const {
  for (const auto& [id, hook] : std::vector(before)) {
    run_hook(*this, "before", [&, &call = hook] { call(path, inputs); });
    for (size_t i = 0; i < inputs.size(); ++i)
      check(bool(inputs[i]), "a hook before {} left input {} empty", path.empty() ? "the model" : path, i);
  }
}

void detail::ModulePart::run_after(Tensor& output) const {
  for (const auto& [id, hook] : std::vector(after)) {
    run_hook(*this, "after", [&, &call = hook] { call(path, output); });
    check(bool(output), "a hook after {} left an empty tensor", path.empty() ? "the model" : path);
  }
}

std::string detail::kind_of(const std::type_info& type) {
  int status = 0;
  char* readable = abi::__cxa_demangle(type.name(), nullptr, nullptr, &status);
  std::string kind = readable ? readable : type.name();
  std::free(readable);  // NOLINT: __cxa_demangle gives memory of malloc
  // without namespaces and enclosing functions
  const std::string plain = kind.substr(0, kind.find('<'));
  const size_t colons = plain.rfind("::");
  return colons == plain.npos ? kind : kind.substr(colons + 2);
}

void ModuleHookHandle::remove() {
  auto p = part.lock();
  if (!p) return;
  std::erase_if(p->before, [&](const auto& hook) { return hook.first == id; });
  std::erase_if(p->after, [&](const auto& hook) { return hook.first == id; });
}

Module::Module() : parts_{std::make_shared<detail::ModulePart>()} {}

int64_t Module::parameter_count() const {
  int64_t n = 0;
  for (const NamedTensor& p : parameters_) n += p.tensor.numel();
  return n;
}

void Module::zero_gradients() const {
  for (const NamedTensor& p : parameters_) set_gradient(p.tensor, {});
}

void Module::freeze(bool frozen) const {
  for (const NamedTensor& p : parameters_) rapt::freeze(p.tensor, frozen);
}

std::shared_ptr<detail::ModulePart> Module::part_to_hook(const std::string& name) const {
  const std::string wanted = name.empty() ? *path() : joined(*path(), name);
  std::vector<std::string> known;
  for (const auto& part : parts_) {
    if (part->called) known.push_back(part->path);
    if (part->path != wanted) continue;
    check(part->called,
          "module: {} ({}) is never called with a tensor, so a hook on it would not run; hook one of its "
          "parts or the layer it belongs to",
          part->path, part->kind);
    return part;
  }
  const std::string near = nearest(wanted, known);
  throw Error(fmt::format("module: there is no part {}{}", wanted,
                          near.empty() ? "" : fmt::format("; did you mean {}?", near)));
}

ModuleHookHandle Module::add_hook_before(BeforeHook hook, const std::string& part) const {
  auto at = part_to_hook(part);
  const uint64_t id = next_module_hook.fetch_add(1, std::memory_order_relaxed);
  at->before.emplace_back(id, std::move(hook));
  return {at, id};
}

ModuleHookHandle Module::add_hook_after(AfterHook hook, const std::string& part) const {
  auto at = part_to_hook(part);
  const uint64_t id = next_module_hook.fetch_add(1, std::memory_order_relaxed);
  at->after.emplace_back(id, std::move(hook));
  return {at, id};
}

Tensor Module::param(const std::string& name, const Tensor& value, Where where) {
  check(bool(value), "module: the parameter {} holds nothing", name);
  Tensor tensor = value.detach();
  auto node = std::make_shared<ParameterNode>(name, tensor, where);
  node->module = path();
  tensor.node = std::move(node);
  add(name, tensor);
  return tensor;
}

void Module::check_new(const std::string& name, const char* what) const {
  check(!name.empty(), "module: a {} needs a name", what);
  const detail::ModulePart& own = *parts_.front();
  check(!own.is_child, "module: {} ({}) is part of another module already, which would not know of {}; add it before",
        own.path, own.kind, name);
  for (const NamedTensor& p : parameters_) {
    check(p.name != name, "module: there is a parameter {} {} already; each needs a name of its own", name,
          p.tensor.shape);
  }
  for (const auto& part : parts_) {
    check(part->path != name, "module: there is a part {} ({}) already; each needs a name of its own", name,
          part->kind);
  }
}

void Module::add(const std::string& name, const Tensor& tensor) {
  check_new(name, "parameter");
  parameters_.push_back({name, tensor});
}

void Module::adopt(const std::string& name, Module& part, const std::type_info& type) {
  check_new(name, "child");
  part.parts_.front()->kind = detail::kind_of(type);
  for (const NamedTensor& p : part.parameters_) add(joined(name, p.name), p.tensor);
  for (const auto& one : part.parts_) {
    one->path = one->path.empty() ? name : joined(name, one->path);
    parts_.push_back(one);
  }
  part.parts_.front()->is_child = true;
}

std::string module_tree(const Module& module, const std::type_info& type) {
  // parts_ lists each part before its own parts, so the last open one whose path is a prefix is the parent
  auto holds = [](const std::string& path, const std::string& name) {
    return path.empty() || (name.size() > path.size() && name.starts_with(path) && name[path.size()] == '.');
  };
  const std::string root = *module.path();
  std::vector<std::string> names;  // of the parameters, from the model's root
  std::vector<std::string> owners;
  for (const NamedTensor& p : module.parameters_) {
    names.push_back(joined(root, p.name));
    std::string owner = root;
    for (const auto& part : module.parts_) {
      if (part->path.size() > owner.size() && holds(part->path, names.back())) owner = part->path;
    }
    owners.push_back(owner);
  }
  std::string text;
  std::vector<std::string> open;
  for (const auto& part : module.parts_) {
    while (!open.empty() && !holds(open.back(), part->path)) open.pop_back();
    const std::string indent(2 * open.size(), ' ');
    const bool is_root = open.empty();
    const size_t prefix = is_root || open.back().empty() ? 0 : open.back().size() + 1;
    int64_t count = 0;
    for (size_t i = 0; i < names.size(); ++i) {
      if (owners[i] == part->path || holds(part->path, owners[i])) count += module.parameters_[i].tensor.numel();
    }
    const std::string kind = is_root ? detail::kind_of(type) : part->kind;
    text += is_root ? fmt::format("{}: {} parameters\n", kind, count)
                    : fmt::format("{}{}: {}, {}\n", indent, part->path.substr(prefix), kind, count);
    for (size_t i = 0; i < names.size(); ++i) {
      if (owners[i] != part->path) continue;
      const NamedTensor& p = module.parameters_[i];
      text += fmt::format("{}  {} {}{}\n", indent, names[i].substr(part->path.empty() ? 0 : part->path.size() + 1),
                          p.tensor.shape, is_frozen(p.tensor) ? " frozen" : "");
    }
    open.push_back(part->path);
  }
  text.pop_back();
  return text;
}

EvalMode::EvalMode() : outer_(std::exchange(is_training, false)) {}
EvalMode::~EvalMode() { is_training = outer_; }
bool training() { return is_training; }

void claim_parameter(const Tensor& parameter) {
  auto* leaf = dynamic_cast<Leaf*>(parameter.node.get());
  if (!leaf) return;
  leaf->claimed = true;
  std::lock_guard lock(detail::unclaimed_leaves().mutex);
  detail::unclaimed_leaves().leaves.erase(leaf);
}

std::vector<std::string> unclaimed_parameters(std::span<const NamedTensor> of) {
  std::lock_guard lock(detail::unclaimed_leaves().mutex);
  if (detail::unclaimed_leaves().leaves.empty()) return {};
  std::set<uint64_t> passes;
  for (const NamedTensor& p : of) {
    if (auto* leaf = dynamic_cast<Leaf*>(p.tensor.node.get())) passes.insert(leaf->received_in);
  }
  std::vector<std::pair<uint64_t, std::string>> found;  // by age, so that the order does not depend on addresses
  for (Leaf* leaf : detail::unclaimed_leaves().leaves) {
    if (!leaf->gradient || !passes.contains(leaf->received_in)) continue;
    const bool is_parameter = !leaf->label.empty();
    const uint64_t left_in = std::exchange(leaf->left_in, leaf->received_in);
    if (!is_parameter && (left_in == 0 || left_in == leaf->received_in)) continue;
    std::string name = is_parameter ? joined(*leaf->module, leaf->label) : "a leaf of requires_grad,";
    found.emplace_back(
        leaf->sequence,
        fmt::format(
            "{} {} (made in {} at {}:{}), used by {}{}", name, leaf->shape, leaf->where.function, leaf->where.file,
            leaf->where.line, leaf->user,
            is_parameter ? "" : "; the gradient of an earlier step is still in it: set_gradient(x, {}) drops it"));
  }
  std::sort(found.begin(), found.end());
  std::vector<std::string> names;
  names.reserve(found.size());
  for (auto& [sequence, name] : found) names.push_back(std::move(name));
  return names;
}

}  // namespace rapt::inline RAPT_ABI

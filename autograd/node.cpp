#include "node.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "leaf.h"

namespace rapt::inline RAPT_ABI {

namespace {

std::atomic<uint64_t> next_sequence = 1;
std::atomic<uint64_t> next_hook = 1;
thread_local bool is_recording = true;
thread_local ModulePath scope_path;

Node& node_of(const Tensor& x, const char* what) {
  check(bool(x.node), "{}: this tensor takes no part in a graph (no input requires gradients)", what);
  return *x.node;
}

}  // namespace

Scope::Scope(ModulePath path) : outer_(scope_path) {
  if (!path || !path->empty() || !outer_) scope_path = std::move(path);
}
Scope::~Scope() { scope_path = std::move(outer_); }
const ModulePath& current_module() { return scope_path; }

Node::Node() : sequence(next_sequence.fetch_add(1, std::memory_order_relaxed)) {}
Node::~Node() { unlink(); }
std::vector<Tensor> Node::backward(const Tensor&) { return {}; }
std::shared_ptr<Node> Node::repeat(std::span<const Tensor>, Tensor&) const { return nullptr; }
bool Node::backward_add(const Tensor&, Tensor&) { return false; }

std::vector<Tensor> Node::backward_recorded(const Tensor&, const std::shared_ptr<Node>&) {
  throw Error(
      fmt::format("second-order gradients of {} are not available; twice_differentiable() lists the operations that "
                  "have them",
                  name()));
}

void Node::release() {
  released = true;
  kept.clear();
  unlink();
}

// A long graph that is dropped must not recurse down its chain of destructors.
void Node::unlink() {
  std::vector<std::shared_ptr<Node>> todo = std::exchange(inputs, {});
  while (!todo.empty()) {
    std::shared_ptr<Node> node = std::move(todo.back());
    todo.pop_back();
    if (!node || node.use_count() > 1) continue;
    for (auto& input : node->inputs) todo.push_back(std::move(input));
    node->inputs.clear();
  }
}

std::string Node::describe() const {
  std::string out = fmt::format("{} ({}:{}", name(), where.file, where.line);
  if (module && !module->empty()) out += fmt::format(", in {}", *module);
  return out + ")";
}

Tensor requires_grad(Tensor x, Where where) {
  check(bool(x), "requires_grad: the tensor holds nothing");
  check(!x.node || x.node->is_leaf(), "requires_grad: the tensor is the result of {}; detach it first",
        x.node ? x.node->name() : "");
  if (!x.node) x.node = std::make_shared<Leaf>("", x.shape, where);
  return x;
}

void freeze(const Tensor& leaf, bool frozen) {
  Node& node = node_of(leaf, "freeze");
  check(node.is_leaf(), "freeze: the tensor is the result of {}; only leaves can be frozen", node.describe());
  node.frozen = frozen;
  if (frozen) set_gradient(leaf, {});
}

bool is_frozen(const Tensor& x) { return x.node && x.node->frozen; }

const Tensor& gradient(const Tensor& x) { return node_of(x, "gradient").gradient; }

void set_gradient(const Tensor& x, Tensor gradient) {
  Node& node = node_of(x, "set_gradient");
  check(!gradient || gradient.shape == node.shape, "set_gradient: {} for a tensor of shape {}", gradient.shape,
        node.shape);
  node.gradient = std::move(gradient);
  node.dropped();
}

void retain_gradient(const Tensor& x) { node_of(x, "retain_gradient").retain = true; }

HookHandle add_hook(const Tensor& x, GradientHook hook) {
  Node& node = node_of(x, "add_hook");
  uint64_t id = next_hook.fetch_add(1, std::memory_order_relaxed);
  node.hooks.emplace_back(id, std::move(hook));
  return {x.node, id};
}

void HookHandle::remove() {
  if (auto n = node.lock()) std::erase_if(n->hooks, [&](const auto& hook) { return hook.first == id; });
}

NoGrad::NoGrad() : outer_(std::exchange(is_recording, false)) {}
NoGrad::~NoGrad() { is_recording = outer_; }
bool recording() { return is_recording; }

}  // namespace rapt::inline RAPT_ABI

#include <queue>

#include "../core/kernels/elementwise.h"
#include "../core/kernels/reduce.h"
#include "record.h"

namespace rapt::inline RAPT_ABI {

namespace {

using NodePtr = std::shared_ptr<Node>;

// Adds g to sum. The first gradient is taken as it is, without a copy; `sum` is only written to when nobody else holds
// it.
void accumulate(Tensor& sum, const Tensor& g) {
  if (!sum) {
    sum = g.detach();
  } else if (sum.storage.use_count() == 1 && sum.contiguous()) {
    kernels::add_into(sum, g);
  } else {
    sum = kernels::map([](Real a, Real b) { return a + b; }, sum, g);
  }
}

// The gradient of a leaf belongs to it alone: clipping changes it in place.
void keep(Node& node, const Tensor& g) {
  if (node.gradient) {
    accumulate(node.gradient, g);
  } else {
    node.gradient = g.storage.use_count() == 1 && g.contiguous() ? g : clone(g);
  }
}

/// Runs one node: its hooks, then its backward. A place for a breakpoint; never inlined, so that it has a frame.
[[gnu::noinline]] std::vector<Tensor> run_node(Node& node, Tensor dy) {
  asm volatile("nop");  // so that a breakpoint stops on this line, and not in a header
  ObservedOperation observed(node, dy);
  for (auto& [id, hook] : std::vector(node.hooks)) {
    Tensor changed = hook(dy);
    if (!changed) continue;
    check(changed.shape == node.shape, "backward: a hook on {} returned the shape {} instead of {}", node.describe(),
          changed.shape, node.shape);
    dy = changed.detach();
  }
  if (node.is_leaf() || node.retain) keep(node, dy);
  if (node.is_leaf()) {
    node.received();
    observed.end({&node.gradient, 1}, &node);
    return {};
  }
  std::vector<Tensor> dx;
  try {
    dx = node.backward(dy);
  } catch (const Error& error) {
    throw Error(fmt::format("backward of {}: {}", node.describe(), error.what()));
  }
  observed.end(dx, &node);
  return dx;
}

// Whatever happens, no node keeps half a sum or a place in the queue.
struct Pass {
  struct Older {
    bool operator()(const NodePtr& a, const NodePtr& b) const { return a->sequence < b->sequence; }
  };
  std::priority_queue<NodePtr, std::vector<NodePtr>, Older> ready;

  void push(const NodePtr& node) {
    if (std::exchange(node->queued, true)) return;
    ready.push(node);
  }
  NodePtr pop() {
    NodePtr node = ready.top();
    ready.pop();
    node->queued = false;
    return node;
  }
  ~Pass() {
    while (!ready.empty()) pop()->incoming = {};
  }
};

void run(const NodePtr& root, const Tensor& seed) {
  NoGrad no_grad;
  Pass pass;
  root->incoming = seed;
  pass.push(root);
  while (!pass.ready.empty()) {
    NodePtr node = pass.pop();  // newest first: all its consumers have run
    Tensor dy = std::exchange(node->incoming, {});
    check(!node->released,
          "backward: {} was already differentiated and has let go of what it saved; run the forward again",
          node->describe());
    std::vector<Tensor> dx = run_node(*node, std::move(dy));
    detail::node_has_run(*node, dx);
    if (node->is_leaf()) continue;
    check(dx.size() == node->inputs.size(), "backward of {}: {} gradients for {} inputs", node->describe(), dx.size(),
          node->inputs.size());
    for (size_t i = 0; i < dx.size(); ++i) {
      const NodePtr& input = node->inputs[i];
      if (!input || !dx[i]) continue;
      if (dx[i].shape != input->shape) {
        check(kernels::sums_to(dx[i].shape, input->shape), "backward of {}: gradient {} has the shape {}, its input {}",
              node->describe(), i, dx[i].shape, input->shape);
        dx[i] = kernels::sum_to(dx[i], input->shape);  // broadcasting, undone here once for all operations
      }
      accumulate(input->incoming, std::exchange(dx[i], {}));
      pass.push(input);
    }
    node->release();  // memory falls as the pass walks
  }
}

}  // namespace

Needs detail::detach_inputs(std::span<const Tensor> inputs, std::vector<Tensor>& detached) {
  Needs needs;
  detached.reserve(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    detached.push_back(inputs[i].detach());
    if (!inputs[i].node || !recording()) continue;
    check(inputs.size() <= 32, "record: an operation has at most 32 inputs, got {}", inputs.size());
    needs.bits |= 1u << i;
  }
  return needs;
}

void detail::link(Node& node, std::span<const Tensor> inputs, const Shape& shape, Where where) {
  node.shape = shape;
  node.where = where;
  node.module = current_module();
  node.inputs.reserve(inputs.size());
  for (const Tensor& input : inputs) node.inputs.push_back(input.node);
}

void detail::rethrow_from_module(const Error& error) {
  const ModulePath& module = current_module();
  if (!module || module->empty()) throw;
  throw Error(fmt::format("{} (in {})", error.what(), *module));
}

void backward(const Tensor& y, const Tensor& dy, BackwardOptions options) {
  check(bool(y.node), "backward: nothing on the way to this tensor requires gradients");
  check(!options.create_graph, "backward: second-order gradients of {} are not available", y.node->describe());
  check(dy.shape == y.shape, "backward: the gradient of {} has the shape {} instead of {}", y.node->describe(),
        dy.shape, y.shape);
  run(y.node, dy.detach());
}

void backward(const Tensor& loss, BackwardOptions options) {
  check(bool(loss.node), "backward: nothing on the way to this loss requires gradients");
  check(loss.numel() == 1, "backward: the loss must be a scalar, but {} gave the shape {}", loss.node->describe(),
        loss.shape);
  backward(loss, ones(loss.shape), options);
}

}  // namespace rapt::inline RAPT_ABI

#include <algorithm>
#include <atomic>
#include <exception>
#include <limits>
#include <optional>
#include <queue>

#include "../core/kernels/elementwise.h"
#include "../core/kernels/reduce.h"
#include "ops.h"

namespace rapt::inline RAPT_ABI {

namespace {

using NodePtr = std::shared_ptr<Node>;

bool can_add_to(const Tensor& sum) { return sum && sum.storage.use_count() == 1 && sum.contiguous(); }

// Adds g to sum. The first gradient is taken as it is, without a copy; `sum` is only written to when nobody else holds
// it.
void accumulate(Tensor& sum, const Tensor& g) {
  if (!sum) {
    sum = g.detach();
  } else if (can_add_to(sum)) {
    kernels::add_into(sum, g);
  } else {
    sum = kernels::map([](Real a, Real b) { return a + b; }, sum, g);
  }
}

// What a pass is asked for besides the gradients of leaves.
struct Request {
  bool create_graph = false;
  const std::vector<Tensor>* wanted = nullptr;  // these gradients instead
  uint64_t oldest = 0;                          // of those: what is older leads to nothing that is wanted
  std::vector<Tensor> found{};
  NodePtr running{};
};

// The gradient of a leaf belongs to it alone: clipping changes it in place.
void keep(Node& node, const Tensor& g, bool create_graph) {
  if (create_graph) {
    node.gradient = node.gradient ? node.gradient + g : g;
  } else if (node.gradient) {
    accumulate(node.gradient, g);
  } else {
    node.gradient = g.storage.use_count() == 1 && g.contiguous() ? g : clone(g);
  }
}

Tensor run_hook(const Node& node, const GradientHook& hook, const Tensor& dy) {
  try {
    return hook(dy);
  } catch (const std::exception& error) {
    std::throw_with_nested(Error(fmt::format("backward: a hook on {} threw: {}", node.describe(), error.what())));
  }
}

// One gradient for each input; an empty one for an input that wants one would be lost silently.
void check_count(const Node& node, const std::vector<Tensor>& dx) {
  check(dx.size() == node.inputs.size(), "backward of {}: {} gradients for {} inputs", node.describe(), dx.size(),
        node.inputs.size());
  for (size_t i = 0; i < dx.size(); ++i) {
    check(dx[i] || !node.inputs[i],
          "backward of {}: gradient {} is empty, but its input {} {} wants one; return zeros if there is none",
          node.describe(), i, node.inputs[i] ? node.inputs[i]->describe() : "",
          node.inputs[i] ? node.inputs[i]->shape : Shape{});
  }
}

/// Runs one node: its hooks, then its backward. A place for a breakpoint; never inlined, so that it has a frame.
[[gnu::noinline]] std::vector<Tensor> run_node(Node& node, Tensor dy, Request& request) {
  asm volatile("nop");  // so that a breakpoint stops on this line, and not in a header
  ObservedOperation observed(node, dy);
  for (auto& [id, hook] : std::vector(node.hooks)) {
    Tensor changed = run_hook(node, hook, dy);
    if (!changed) continue;
    check(changed.shape == node.shape, "backward: a hook on {} returned the shape {} instead of {}", node.describe(),
          changed.shape, node.shape);
    dy = request.create_graph ? changed : changed.detach();
  }
  if (request.wanted) {
    for (size_t i = 0; i < request.wanted->size(); ++i) {
      if ((*request.wanted)[i].node == request.running) request.found[i] = dy;
    }
  } else if (node.is_leaf() || node.retain) {
    keep(node, dy, request.create_graph);
  }
  if (node.is_leaf() && !request.wanted) node.received();
  if (node.is_leaf() || node.sequence <= request.oldest) {
    observed.end({node.gradient ? &node.gradient : &dy, 1}, &node);
    return {};
  }
  std::vector<Tensor> dx;
  try {
    if (request.create_graph) {
      Scope scope(node.module);
      dx = node.backward_recorded(dy, request.running);
    } else if (node.inputs.size() == 1 && node.inputs[0] && can_add_to(node.inputs[0]->incoming) &&
               node.backward_add(dy, node.inputs[0]->incoming)) {
      observed.end({&node.inputs[0]->incoming, 1}, &node);
      return {Tensor()};
    } else {
      dx = node.backward(dy);
    }
  } catch (const Error& error) {
    throw Error(fmt::format("backward of {}: {}", node.describe(), error.what()));
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    std::throw_with_nested(Error(fmt::format("backward of {} threw: {}", node.describe(), error.what())));
  }
  check_count(node, dx);
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

// Undoes broadcasting, as recorded operations.
Tensor sum_to_recorded(Tensor x, const Shape& to) {
  for (int d = 0; d < x.rank(); ++d) {
    const int own = d - (x.rank() - to.rank);
    if (own < 0 || to[own] != x.shape[d]) x = sum(x, {d}, true);
  }
  return reshape(x, to);
}

std::atomic<uint64_t> passes = 0;

void run(const NodePtr& root, const Tensor& seed, Request& request) {
  std::optional<NoGrad> no_grad;
  if (!request.create_graph) no_grad.emplace();
  ++passes;
  Pass pass;
  root->incoming = seed;
  pass.push(root);
  while (!pass.ready.empty()) {
    NodePtr node = pass.pop();  // newest first: all its consumers have run
    Tensor dy = std::exchange(node->incoming, {});
    check(!node->released,
          "backward: {} was already differentiated and has let go of what it saved; run the forward again",
          node->describe());
    request.running = node;
    std::vector<Tensor> dx = run_node(*node, std::move(dy), request);
    detail::node_has_run(*node, dx);
    if (node->is_leaf() || node->sequence <= request.oldest) continue;
    for (size_t i = 0; i < dx.size(); ++i) {
      const NodePtr& input = node->inputs[i];
      if (!input || !dx[i] || input->sequence < request.oldest) continue;
      if (dx[i].shape != input->shape) {
        check(kernels::sums_to(dx[i].shape, input->shape), "backward of {}: gradient {} has the shape {}, its input {}",
              node->describe(), i, dx[i].shape, input->shape);
        // broadcasting, undone here once for all operations
        dx[i] = request.create_graph ? sum_to_recorded(dx[i], input->shape) : kernels::sum_to(dx[i], input->shape);
      }
      if (request.create_graph) {
        input->incoming = input->incoming ? input->incoming + dx[i] : dx[i];
      } else {
        accumulate(input->incoming, std::exchange(dx[i], {}));
      }
      if (input->is_leaf()) input->used_by(*node);
      pass.push(input);
    }
    if (!request.create_graph) node->release();  // memory falls as the pass walks
  }
}

}  // namespace

Needs detail::detach_inputs(const char* name, std::span<const Tensor> inputs, size_t required,
                            std::vector<Tensor>& detached) {
  Needs needs;
  detached.reserve(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    check(i >= required || inputs[i], "{}: input {} is an empty tensor", name, i);
    detached.push_back(inputs[i].detach());
    if (!inputs[i].node || inputs[i].node->frozen || !recording()) continue;
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
  for (const Tensor& input : inputs) node.inputs.push_back(is_frozen(input) ? nullptr : input.node);
}

void detail::rethrow_from_module(const Error& error) {
  const ModulePath& module = current_module();
  if (!module || module->empty()) throw;
  throw Error(fmt::format("{} (in {})", error.what(), *module));
}

namespace {

void start(const char* what, const Tensor& y, const Tensor& dy, Request& request) {
  check(bool(y.node), "{}: nothing on the way to this tensor requires gradients", what);
  check(dy.shape == y.shape, "{}: the gradient of {} has the shape {} instead of {}", what, y.node->describe(),
        dy.shape, y.shape);
  run(y.node, request.create_graph ? dy : dy.detach(), request);
}

Tensor one_for(const char* what, const Tensor& loss) {
  check(bool(loss.node), "{}: nothing on the way to this loss requires gradients", what);
  check(loss.numel() == 1, "{}: the loss must be a scalar, but {} gave the shape {}", what, loss.node->describe(),
        loss.shape);
  return ones(loss.shape);
}

}  // namespace

uint64_t backward_pass() { return passes; }

void backward(const Tensor& y, const Tensor& dy, BackwardOptions options) {
  Request request{options.create_graph};
  start("backward", y, dy, request);
}

void backward(const Tensor& loss, BackwardOptions options) { backward(loss, one_for("backward", loss), options); }

std::vector<Tensor> gradients(const Tensor& y, const std::vector<Tensor>& x, const Tensor& dy,
                              BackwardOptions options) {
  Request request{options.create_graph, &x, std::numeric_limits<uint64_t>::max(), std::vector<Tensor>(x.size())};
  for (const Tensor& wanted : x) {
    check(bool(wanted.node),
          "gradients: a tensor of shape {} takes no part in a graph; make it a leaf with "
          "requires_grad",
          wanted.shape);
    request.oldest = std::min(request.oldest, wanted.node->sequence);
  }
  start("gradients", y, dy, request);
  for (size_t i = 0; i < x.size(); ++i) {
    if (!request.found[i]) request.found[i] = zeros(x[i].shape);
  }
  return request.found;
}

std::vector<Tensor> gradients(const Tensor& loss, const std::vector<Tensor>& x, BackwardOptions options) {
  return gradients(loss, x, one_for("gradients", loss), options);
}

}  // namespace rapt::inline RAPT_ABI

#pragma once
#include <exception>
#include <functional>
#include <initializer_list>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

#include "debugger.h"
#include "observer.h"

namespace rapt::inline RAPT_ABI {

/// Which inputs want a gradient; backward need not compute the others.
struct Needs {
  uint32_t bits = 0;
  bool operator[](int i) const { return bits >> i & 1; }
  bool any() const { return bits != 0; }
};

/// A tensor kept for backward. Reading it checks that nobody has written to it since.
class Saved {
 public:
  Saved() = default;
  Saved(const Tensor& x) : tensor_(x), version_(x ? x.storage->version : 0) {}
  operator const Tensor&() const { return get(); }
  const Tensor& get() const {
    check(!tensor_ || tensor_.storage->version == version_,
          "a tensor of shape {} that was saved for backward has been changed in place since", tensor_.shape);
    return tensor_;
  }
  explicit operator bool() const { return bool(tensor_); }

 private:
  Tensor tensor_;
  uint32_t version_ = 0;
};

/// Puts what an operation saved back into its place in the graph, for backward_recorded.
struct Attach {
  const std::shared_ptr<Node>& self;
  /// What was saved of input `i`, in the input's shape.
  Tensor input(size_t i, const Tensor& saved) const {
    Tensor x = saved.detach();
    x.node = self->inputs[i];
    return x;
  }
  /// What was saved of the output, in its shape.
  Tensor output(const Tensor& saved) const {
    Tensor y = saved.detach();
    y.node = self;
    return y;
  }
};

/// The node of an operation: a plain struct with
///
///   static constexpr auto name = "…";
///   Tensor forward(std::span<const Tensor> x);         // or forward(x, Needs): to save only what backward will read
///   std::vector<Tensor> backward(const Tensor& dy, Needs) const;
///
/// `forward` sees detached tensors, so what it saves (as Saved) never holds the graph. `backward` gives one gradient
/// for each input, in the input's shape or a shape that it broadcasts to; the engine sums it back. It may be empty for
/// an input that wants none. An operation that is to be differentiated twice has its backward a second time, made of
/// recorded operations on attached tensors, which is only called under BackwardOptions::create_graph; one with a single
/// input whose gradient is mostly zeros may add it to what is there, where there is something; one that profiles are to
/// know has its cost, asked after forward:
///
///   std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const;
///   void backward_add(const Tensor& dy, Tensor& sum) const;
///   Cost cost(std::span<const Tensor> x, Needs) const;
///
/// `name` and what release() keeps may be members like any other. An operation whose results come from elsewhere than
/// its inputs says `static constexpr bool repeatable = false;`; one whose inputs after the first n may be empty
/// tensors, `static constexpr size_t required_inputs = n;`.
template <class Op>
struct OpNode final : Node {
  Op op;
  Needs needs;
  OpNode(Op o, Needs n) : op(std::move(o)), needs(n) {
    leaf_ = false;
    name_ = op.name;
  }
  std::vector<Tensor> backward(const Tensor& dy) override { return std::as_const(op).backward(dy, needs); }
  bool backward_add(const Tensor& dy, Tensor& sum) override {
    if constexpr (requires { std::as_const(op).backward_add(dy, sum); }) {
      std::as_const(op).backward_add(dy, sum);
      return true;
    } else {
      return Node::backward_add(dy, sum);
    }
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, const std::shared_ptr<Node>& self) override {
    if constexpr (requires { std::as_const(op).backward_recorded(dy, needs, Attach{self}); }) {
      return std::as_const(op).backward_recorded(dy, needs, Attach{self});
    } else {
      return Node::backward_recorded(dy, self);
    }
  }
  void release() override {
    if constexpr (requires { op.release(); }) {
      op.release();
    } else {
      op = Op{};
    }
    Node::release();
  }
  std::shared_ptr<Node> repeat(std::span<const Tensor> x, Tensor& y) const override {
    if constexpr (!std::is_copy_constructible_v<Op> || requires { requires !Op::repeatable; }) {
      return nullptr;
    } else {
      auto node = std::make_shared<OpNode>(op, needs);
      if constexpr (requires { node->op.forward(x, needs); }) {
        y = node->op.forward(x, needs);
      } else {
        y = node->op.forward(x);
      }
      return node;
    }
  }
};

namespace detail {
/// The inputs of an operation without their nodes, and which of them want a gradient (none while NoGrad lives).
/// Throws for an empty one among the first `required`.
Needs detach_inputs(const char* name, std::span<const Tensor> inputs, size_t required, std::vector<Tensor>& detached);
void link(Node& node, std::span<const Tensor> inputs, const Shape& shape, Where where);
[[noreturn]] void rethrow_from_module(const Error& error);
}  // namespace detail

/// Runs the operation on `inputs` and, if any of them wants a gradient, records it. The only door into the graph.
template <class Op>
Tensor record(Op op, std::span<const Tensor> inputs, Where where = Where::here()) {
  std::vector<Tensor> detached;
  size_t required = inputs.size();
  if constexpr (requires { Op::required_inputs; }) required = Op::required_inputs;
  Needs needs = detail::detach_inputs(op.name, inputs, required, detached);
  ObservedOperation observed(op.name, where, detached);
  Tensor y;
  try {
    if constexpr (requires { op.forward(std::span<const Tensor>(detached), needs); }) {
      y = op.forward(std::span<const Tensor>(detached), needs);
    } else {
      y = op.forward(std::span<const Tensor>(detached));
    }
  } catch (const Error& error) {
    detail::rethrow_from_module(error);
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    std::throw_with_nested(Error(fmt::format("{} ({}:{}) threw: {}", op.name, where.file, where.line, error.what())));
  }
  check(bool(y), "{}: forward returned an empty tensor", op.name);
  if constexpr (requires { op.cost(std::span<const Tensor>(detached), needs); }) {
    if (observed) observed.cost(op.cost(std::span<const Tensor>(detached), needs));
  }
  if (!needs.any()) {
    observed.end({&y, 1}, nullptr);
    return y;
  }
  auto node = std::make_shared<OpNode<Op>>(std::move(op), needs);
  detail::link(*node, inputs, y.shape, where);
  if (detail::keep_values) [[unlikely]]
    detail::keep(*node, detached, y);
  y.node = std::move(node);
  observed.end({&y, 1}, y.node.get());
  return y;
}

template <class Op>
Tensor record(Op op, std::initializer_list<Tensor> inputs, Where where = Where::here()) {
  return record(std::move(op), std::span<const Tensor>(inputs.begin(), inputs.size()), where);
}

/// An operation from two functions, for a quick one. `forward` gives y for detached x; `backward` gives one gradient
/// for each x, as above (or an empty tensor, where x wants none). All x and y are kept for it. If `backward` is made of
/// recorded operations, it has gradients itself. `name` must outlive the graph: give a literal.
///
///     Tensor y = record("cube", {x}, [](auto x) { return x[0] * x[0] * x[0]; },
///                       [](const Tensor& dy, auto x, const Tensor&) { return std::vector{3 * dy * x[0] * x[0]}; });
using ForwardFunction = std::function<Tensor(std::span<const Tensor> x)>;
using BackwardFunction =
    std::function<std::vector<Tensor>(const Tensor& dy, std::span<const Tensor> x, const Tensor& y)>;
Tensor record(const char* name, std::initializer_list<Tensor> inputs, ForwardFunction forward,
              BackwardFunction backward, Where where = Where::here());

}  // namespace rapt::inline RAPT_ABI

#pragma once
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "../core/tensor.h"
#include "where.h"

namespace rapt::inline RAPT_ABI {

/// Changes a gradient as it passes (return it, or another tensor of its shape) or only looks at it.
using GradientHook = std::function<Tensor(const Tensor& gradient)>;

/// One recorded operation, or a leaf. Every node has one output.
struct Node {
  const uint64_t sequence;                    ///< creation order, which is a topological order
  std::vector<std::shared_ptr<Node>> inputs;  ///< null where no gradient is wanted
  Tensor gradient;                            ///< of leaves, and where retain_gradient asked for it
  Tensor incoming;                            ///< the sum that consumers add to while a backward pass runs
  Shape shape;                                ///< of the output
  Where where;                                ///< the line that made it
  ModulePath module;                          ///< and the module it was made in
  std::vector<std::pair<uint64_t, GradientHook>> hooks;
  std::vector<Tensor> kept;  ///< the inputs and then the result; only where a debugger asked for it (debugger.h)
  bool frozen = false;       ///< of a leaf: operations don't record it, see freeze
  bool retain = false;       ///< keep the gradient though it is no leaf
  bool released = false;     ///< backward has passed and what was saved is gone
  bool queued = false;       ///< waits in the running backward pass

  Node();
  virtual ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  bool is_leaf() const { return leaf_; }
  /// Of the operation, or of the parameter. A plain field, for debuggers.
  const char* name() const { return name_; }
  /// The gradients of the inputs; one may be empty where its input wants none.
  virtual std::vector<Tensor> backward(const Tensor& dy);
  /// The same added to `sum`, which the other consumers of the only input have begun. False where the operation has no
  /// way of its own to do that, and has done nothing.
  virtual bool backward_add(const Tensor& dy, Tensor& sum);
  /// The same as recorded operations, so that the gradients have gradients; `self` is this node. Throws where the
  /// operation has none.
  virtual std::vector<Tensor> backward_recorded(const Tensor& dy, const std::shared_ptr<Node>& self);
  /// Lets go of saved tensors and of the inputs.
  virtual void release();
  // What a leaf is told: of the operation that a part of its gradient comes from, of the whole added to what it holds,
  // and that what it held was replaced or dropped.
  virtual void used_by(const Node& /*operation*/) {}
  virtual void received() {}
  virtual void dropped() {}
  /// A node of the same operation for other inputs, which y becomes the result of; the operation itself is left alone.
  /// Null where it can't be run a second time.
  virtual std::shared_ptr<Node> repeat(std::span<const Tensor> inputs, Tensor& y) const;
  /// "softmax (model.cpp:12, in blocks.3.attention)"
  std::string describe() const;

 protected:
  bool leaf_ = true;
  const char* name_ = "leaf";
  void unlink();
};

/// Makes `x` a leaf: backward leaves d loss / d x in it. Returns x.
Tensor requires_grad(Tensor x, Where where = Where::here());
/// A leaf that is frozen wants no gradient until it is thawed: operations treat it as a constant.
/// Drops the gradient it holds.
void freeze(const Tensor& leaf, bool frozen = true);
bool is_frozen(const Tensor& x);

/// The gradient that backward left in a leaf or a retained tensor; empty when there is none.
/// Throws when the tensor takes no part in any graph.
const Tensor& gradient(const Tensor& x);
void set_gradient(const Tensor& x, Tensor gradient);
/// Keeps the gradient of an intermediate result.
void retain_gradient(const Tensor& x);

/// A registered hook; remove() takes it off. Copies are handles on the same hook.
struct HookHandle {
  std::weak_ptr<Node> node;
  uint64_t id = 0;
  void remove();
};
/// Calls `hook` with the gradient of x in every backward pass, once it is complete, before it goes on.
HookHandle add_hook(const Tensor& x, GradientHook hook);

/// While it lives, this thread records nothing.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool outer_;
};
bool recording();

struct BackwardOptions {
  /// The gradients are recorded, so that they can be differentiated again, and the graph is not consumed. Throws for an
  /// operation without a recorded backward, by its name: see twice_differentiable() in ops.h. With backward(), leaves
  /// then hold gradients that hold the graph, which lives until they are dropped; gradients() leaves nothing behind.
  bool create_graph = false;
};

/// d loss / d leaf for every leaf under `loss` (one element), added to what the leaves hold. Consumes the graph.
/// Throws for a loss of more than one element, a graph that was used already, a saved tensor that was changed.
void backward(const Tensor& loss, BackwardOptions options = {});
/// The same from a tensor of any shape with d loss / d y given.
void backward(const Tensor& y, const Tensor& dy, BackwardOptions options = {});

/// d loss / d x for each of `x`, leaves or results on the way to `loss`, returned and not added to any leaf. Zeros
/// where the loss does not depend on x. With create_graph the results are part of the graph: a gradient penalty is
///
///     Tensor g = gradients(sum(model(x)), {x}, {.create_graph = true}).front();
///     backward(loss + mean(g * g));
std::vector<Tensor> gradients(const Tensor& loss, const std::vector<Tensor>& x, BackwardOptions options = {});
/// The same from a tensor of any shape with d loss / d y given.
std::vector<Tensor> gradients(const Tensor& y, const std::vector<Tensor>& x, const Tensor& dy,
                              BackwardOptions options = {});
/// Counts backward passes: the number of the running one, or of the last.
uint64_t backward_pass();

}  // namespace rapt::inline RAPT_ABI

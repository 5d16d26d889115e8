#pragma once
#include <span>

#include "node.h"

namespace rapt::inline RAPT_ABI {

/// Floating-point operations of one run of an operation, forward and backward; 0 where nobody has counted them.
struct Cost {
  double forward = 0, backward = 0;
};

/// An operation while it runs, forward or backward.
struct Operation {
  const char* name = "";
  Where where = {};                     ///< the line that called it
  const std::string* module = nullptr;  ///< path of the module it runs in; null outside of modules
  bool backward = false;
  std::span<const Tensor> inputs = {};   ///< without graph; backward: only the gradient of the node's result
  std::span<const Tensor> results = {};  ///< at the end: the result; backward: the inputs' gradients, of a leaf its own
  const Node* node = nullptr;            ///< backward; and forward at the end, where a node was made
  Cost cost = {};                        ///< at the end of forward
  const Operation* outer = nullptr;      ///< the operation that this one is a part of

  /// "backward of softmax (model.cpp:12, in blocks.3.attention)"
  std::string describe() const;
};

/// Is told when an operation of this thread begins and ends, from its construction to its destruction. Everything that
/// watches a computation is one of these; without any, an operation pays one comparison. What `end` throws leaves
/// through the operation, after all observers have been told.
class Observer {
 public:
  Observer();
  virtual ~Observer();
  Observer(const Observer&) = delete;
  Observer& operator=(const Observer&) = delete;

  virtual void begin(const Operation&) {}
  virtual void end(const Operation&) {}
  /// Instead of `end`, when the operation has thrown.
  virtual void failed(const Operation&) {}

 private:
  friend class ObservedOperation;
  Observer* next_;
};

namespace detail {
extern constinit thread_local Observer* observers;
}

/// For `record` and the engine: brackets one run of an operation.
class ObservedOperation {
 public:
  ObservedOperation(const char* name, Where where, std::span<const Tensor> inputs) {
    if (detail::observers) [[unlikely]]
      begin({.name = name, .where = where, .module = current_module().get(), .inputs = inputs});
  }
  ObservedOperation(const Node& node, const Tensor& dy) {
    if (detail::observers) [[unlikely]]
      begin({.name = node.name(),
             .where = node.where,
             .module = node.module.get(),
             .backward = true,
             .inputs = {&dy, 1},
             .node = &node});
  }
  ~ObservedOperation() {
    if (active_) [[unlikely]]
      fail();
  }
  ObservedOperation(const ObservedOperation&) = delete;
  ObservedOperation& operator=(const ObservedOperation&) = delete;

  explicit operator bool() const { return active_; }
  void cost(Cost cost) { operation_.cost = cost; }
  void end(std::span<const Tensor> results, const Node* node) {
    if (active_) [[unlikely]]
      tell_end(results, node);
  }

 private:
  void begin(const Operation& operation);
  void tell_end(std::span<const Tensor> results, const Node* node);
  void fail();

  bool active_ = false;
  Operation operation_;
};

}  // namespace rapt::inline RAPT_ABI

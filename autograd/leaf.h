#pragma once
#include <mutex>
#include <set>
#include <string>

#include "node.h"

namespace rapt::inline RAPT_ABI {

/// A node that no operation made: a parameter, or what requires_grad made. It notes what becomes of its gradients, so
/// that an optimizer can name what was forgotten (unclaimed_parameters in nn/module.h).
struct Leaf : Node {
  const std::string label;   ///< the name of a parameter; empty for others
  bool claimed = false;      ///< an optimizer updates it
  uint64_t received_in = 0;  ///< the last backward pass that gave it a gradient
  uint64_t left_in = 0;      ///< the pass whose gradient an optimizer's step has left in it; 0 once that was dropped
  std::string user;          ///< where its first gradient came from: "matmul (model.cpp:12, in blocks.3)"

  Leaf(std::string label, const Shape& shape, Where where);
  ~Leaf() override;
  void used_by(const Node& operation) override;
  void received() override;
  void dropped() override { left_in = 0; }
};

namespace detail {

/// Leaves that received a gradient and belong to no optimizer.
struct UnclaimedLeaves {
  std::mutex mutex;
  std::set<Leaf*> leaves;
};
UnclaimedLeaves& unclaimed_leaves();

}  // namespace detail

}  // namespace rapt::inline RAPT_ABI

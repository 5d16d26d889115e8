#pragma once
#include <string>
#include <vector>

#include "../autograd/observer.h"

namespace rapt::inline RAPT_ABI {

struct GraphDrawing {
  int64_t depth = 2;                     ///< components of a module's path that are kept: deeper modules are one box
  std::vector<std::string> expand = {};  ///< modules that are shown one level deeper, or as operations
};

/// While it lives, notes the nodes that a backward pass of this thread goes through: how they are connected, and the
/// norm of the gradient that reaches each.
class GraphLog final : public Observer {
 public:
  void begin(const Operation& operation) override;

  /// The graph in Graphviz' language, from the inputs at the top to the loss. Modules are boxes that say how many
  /// operations and parameters they hold, operations outside of them ellipses; colours go from blue for the smallest
  /// gradient norm to red for the largest, by orders of magnitude. Throws UsageError for a module to expand that isn't
  /// there.
  std::string dot(const GraphDrawing& drawing) const;
  size_t size() const { return nodes_.size(); }

 private:
  struct Item {
    uint64_t sequence;
    std::string name, module, where;
    Shape shape;
    bool leaf;
    double norm;  // of the gradient of its result
    std::vector<uint64_t> inputs;
  };
  std::vector<Item> nodes_;
};

}  // namespace rapt::inline RAPT_ABI

#include "leaf.h"

#include <utility>

namespace rapt::inline RAPT_ABI {

// Never destroyed: leaves may be static too.
detail::UnclaimedLeaves& detail::unclaimed_leaves() {
  static auto* const all = new UnclaimedLeaves;
  return *all;
}

Leaf::Leaf(std::string name, const Shape& s, Where w) : label(std::move(name)) {
  if (!label.empty()) name_ = label.c_str();
  shape = s;
  where = w;
}

Leaf::~Leaf() {
  std::lock_guard lock(detail::unclaimed_leaves().mutex);
  detail::unclaimed_leaves().leaves.erase(this);
}

void Leaf::used_by(const Node& operation) {
  if (!claimed && user.empty()) user = operation.describe();
}

void Leaf::received() {
  received_in = backward_pass();
  if (claimed) return;
  std::lock_guard lock(detail::unclaimed_leaves().mutex);
  detail::unclaimed_leaves().leaves.insert(this);
}

}  // namespace rapt::inline RAPT_ABI

#pragma once
#include <functional>

#include "problem.h"

namespace rapt::inline RAPT_ABI {

/// The tasks of a backward: (b, kv head, chunk).
struct TaskGrid {
  int64_t batch, kv_heads, chunks;
  int64_t count() const { return batch * kv_heads * chunks; }
};

/// Runs the tasks of a backward so that every captured tensor's gradient is summed in an order fixed by the shapes.
/// Tasks form groups; those of a group run one after the other and add to one private copy, and the copies are summed
/// in order. There are fewer groups where copies are large, so that memory stays linear; a single one needs no copy.
/// Nor does a gradient with an entry for each (row, key), read at its own place alone: its tasks are grouped so that
/// each entry belongs to one group. Of a lambda's that is believed, where it leaves as many groups, until it reads
/// another place; then all tasks run again.
class TableGradients {
 public:
  TableGradients(const AttentionProblem& p, const BoundTables& bound, TaskGrid grid, std::span<const Tensor> gradients);
  /// task(b, kv head, chunk, tables with gradients): what it writes besides is overwritten if it comes again.
  using Task = std::function<void(int64_t, int64_t, int64_t, const Table*)>;
  void run(const Task& task);
  void finish();
  int64_t groups() const { return groups_; }
  int64_t copies_size() const { return groups_ > 1 ? groups_ * copy_size_ : 0; }  ///< elements

 private:
  int64_t make_groups(bool believe);  // gives their number
  void run_groups(const Task& task);
  bool wanted(size_t t) const { return gradients_[t] && t != bound_.sink; }
  // has no copy
  bool owned(size_t t) const;
  Real* gradient(size_t t) const { return gradients_[t].storage->data + gradients_[t].offset; }

  const AttentionProblem& problem_;
  const BoundTables& bound_;
  TaskGrid grid_;
  std::span<const Tensor> gradients_;                     // empty ones aren't wanted
  bool believed_ = false;                                 // lambdas read tables of that shape at their own place
  std::atomic<bool> elsewhere_ = false;                   // one has read another
  bool batch_together_ = false, heads_together_ = false;  // all b, or all heads, of a chunk in the same group
  int64_t sets_ = 0, groups_ = 0, copy_size_ = 0;         // a set of tasks stays together; a group is one or more sets
  std::unique_ptr<Storage> copies_;
};

}  // namespace rapt::inline RAPT_ABI

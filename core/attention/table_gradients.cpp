#include "table_gradients.h"

#include "../parallel.h"

namespace rapt::inline RAPT_ABI {

namespace {
constexpr int64_t kCopies = int64_t{1} << 22;  // elements that all copies together may have, if that leaves kFewest
constexpr int64_t kFewest = 8;
}  // namespace

TableGradients::TableGradients(const AttentionProblem& p, const BoundTables& bound, TaskGrid grid,
                               std::span<const Tensor> gradients)
    : bound_(bound), grid_(grid), gradients_(gradients) {
  for (size_t t = 0; t < gradients.size(); ++t) {
    if (!gradients[t] || t == bound.sink) continue;
    const Table& table = bound.tables[t];
    if (owned(table)) {
      batch_together_ |= table.strides[0] == 0 && p.batch > 1;
      heads_together_ |= table.strides[1] == 0 && p.heads > 1;
    } else {
      copy_size_ += (table.size + 15) / 16 * 16;
    }
  }
  sets_ = (batch_together_ ? 1 : grid.batch) * (heads_together_ ? 1 : grid.kv_heads) * grid.chunks;
  groups_ = sets_;
  if (copy_size_ > 0) groups_ = std::min(sets_, std::max(kFewest, kCopies / copy_size_));
}

void TableGradients::run(const std::function<void(int64_t, int64_t, int64_t, const Table*)>& task) {
  if (copy_size_ > 0) copies_ = std::make_unique<Storage>(groups_ * copy_size_);
  const int64_t batches = batch_together_ ? 1 : grid_.batch, heads = heads_together_ ? 1 : grid_.kv_heads;
  parallel_tasks_dynamic(groups_, [&](int64_t group) {
    std::vector<Table> tables = bound_.tables;
    Real* copy = copies_ ? copies_->data + group * copy_size_ : nullptr;
    if (copy) std::fill_n(copy, copy_size_, Real(0));
    for (size_t t = 0; t < gradients_.size(); ++t) {
      if (!gradients_[t] || t == bound_.sink) continue;
      if (owned(tables[t])) {
        tables[t].gradient = gradients_[t].storage->data + gradients_[t].offset;
      } else {
        tables[t].gradient = copy;
        copy += (tables[t].size + 15) / 16 * 16;
      }
    }
    for (int64_t set = group; set < sets_; set += groups_) {
      int64_t chunk = set / (batches * heads), b = set / heads % batches, head = set % heads;
      int64_t b_end = batch_together_ ? grid_.batch : b + 1, head_end = heads_together_ ? grid_.kv_heads : head + 1;
      for (int64_t bb = b; bb < b_end; ++bb) {
        for (int64_t hh = head; hh < head_end; ++hh) task(bb, hh, chunk, tables.data());
      }
    }
  });
}

void TableGradients::finish() {
  if (!copies_) return;
  int64_t first = 0;
  for (size_t t = 0; t < gradients_.size(); ++t) {
    if (!gradients_[t] || t == bound_.sink || owned(bound_.tables[t])) continue;
    Real* to = gradients_[t].storage->data + gradients_[t].offset;
    const Real* from = copies_->data + first;
    parallel_for(bound_.tables[t].size, 4096, [&](int64_t begin, int64_t end) {
      for (int64_t group = 0; group < groups_; ++group) {
        const Real* add = from + group * copy_size_;
        for (int64_t e = begin; e < end; ++e) to[e] += add[e];
      }
    });
    first += (bound_.tables[t].size + 15) / 16 * 16;
  }
}

}  // namespace rapt::inline RAPT_ABI

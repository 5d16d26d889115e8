#include "table_gradients.h"

#include "../parallel.h"

namespace rapt::inline RAPT_ABI {

namespace {
constexpr int64_t kCopies = int64_t{1} << 22;  // elements that all copies together may have, if that leaves kFewest
constexpr int64_t kFewest = 8;                 // groups, if they are not larger than so many times the inputs
int64_t padded(int64_t size) { return (size + 15) / 16 * 16; }
}  // namespace

TableGradients::TableGradients(const AttentionProblem& p, const BoundTables& bound, TaskGrid grid,
                               std::span<const Tensor> gradients)
    : problem_(p), bound_(bound), grid_(grid), gradients_(gradients) {
  const int64_t with_copies = make_groups(false);
  if (make_groups(true) < with_copies) make_groups(false);
}

bool TableGradients::owned(size_t t) const {
  const Table& table = bound_.tables[t];
  return (table.in_place || (table.told && believed_)) && table.like_scores();
}

int64_t TableGradients::make_groups(bool believe) {
  const AttentionProblem& p = problem_;
  believed_ = believe;
  batch_together_ = heads_together_ = false;
  copy_size_ = 0;
  bool quadratic = false;
  for (size_t t = 0; t < gradients_.size(); ++t) {
    if (!wanted(t)) continue;
    const Table& table = bound_.tables[t];
    if (owned(t)) {
      batch_together_ |= table.strides[0] == 0 && p.batch > 1;
      heads_together_ |= table.strides[1] == 0 && p.heads > 1;
    } else {
      copy_size_ += padded(table.size);
      quadratic |= table.like_scores();
    }
  }
  sets_ = (batch_together_ ? 1 : grid_.batch) * (heads_together_ ? 1 : grid_.kv_heads) * grid_.chunks;
  groups_ = sets_;
  if (copy_size_ == 0) return groups_;
  const int64_t inputs = p.batch * (p.heads * p.queries * (p.dim + 2 * p.value_dim) +  // q, out and dout; k and v
                                    p.kv_heads * p.keys * (p.dim + p.value_dim));
  const int64_t all = std::max(kCopies, std::min(kFewest * copy_size_, quadratic ? inputs : kFewest * inputs));
  return groups_ = std::min(sets_, std::max<int64_t>(1, all / copy_size_));
}

void TableGradients::run(const Task& task) {
  run_groups(task);
  if (!elsewhere_) return;
  for (size_t t = 0; t < gradients_.size(); ++t) {
    if (wanted(t)) std::fill_n(gradient(t), bound_.tables[t].size, Real(0));
  }
  make_groups(false);
  run_groups(task);
}

void TableGradients::run_groups(const Task& task) {
  copies_ = copies_size() > 0 ? std::make_unique<Storage>(copies_size()) : nullptr;
  const int64_t batches = batch_together_ ? 1 : grid_.batch, heads = heads_together_ ? 1 : grid_.kv_heads;
  parallel_tasks_dynamic(groups_, [&](int64_t group) {
    std::vector<Table> tables = bound_.tables;
    Real* copy = copies_ ? copies_->data + group * copy_size_ : nullptr;
    if (copy) std::fill_n(copy, copy_size_, Real(0));
    for (size_t t = 0; t < gradients_.size(); ++t) {
      if (!wanted(t)) continue;
      tables[t].gradient = gradient(t);
      if (owned(t)) {
        if (tables[t].told) tables[t].elsewhere = &elsewhere_;
      } else if (copy) {
        tables[t].gradient = copy;
        copy += padded(tables[t].size);
      }
    }
    for (int64_t set = group; set < sets_; set += groups_) {
      if (believed_ && elsewhere_) return;
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
    if (!wanted(t) || owned(t)) continue;
    Real* to = gradient(t);
    const Real* from = copies_->data + first;
    parallel_for(bound_.tables[t].size, 4096, [&](int64_t begin, int64_t end) {
      for (int64_t group = 0; group < groups_; ++group) {
        const Real* add = from + group * copy_size_;
        for (int64_t e = begin; e < end; ++e) to[e] += add[e];
      }
    });
    first += padded(bound_.tables[t].size);
  }
}

}  // namespace rapt::inline RAPT_ABI

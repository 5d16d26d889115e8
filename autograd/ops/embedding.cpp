#include "../../core/kernels/embedding.h"

#include "../ops.h"
#include "adjoints.h"
#include "ids.h"

namespace rapt::inline RAPT_ABI {

namespace {

struct Embedding {
  static constexpr auto name = "embedding";
  Tokens ids;
  Shape table{};  // (V, C)

  Tensor forward(std::span<const Tensor> in) {
    check(in[0].rank() == 2, "embedding: the weight must be (V, C), got {}", in[0].shape);
    check_ids(name, "id", ids, in[0].shape[0]);
    Tensor weight = contiguous(in[0]);
    table = weight.shape;
    Shape out = ids.shape;
    out.push_back(table[1]);
    Tensor y = empty(out);
    kernels::embedding_forward(weight.data(), ids.ids.data(), ids.numel(), table[1], y.mutable_data());
    return y;
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    Tensor dweight = zeros(table);
    backward_add(dy, dweight);
    return {dweight};
  }
  // A table that is tied to the head of a model has a gradient already, as large as itself.
  void backward_add(const Tensor& dy, Tensor& sum) const {
    kernels::embedding_backward(contiguous(dy).data(), ids.ids.data(), ids.numel(), table[1], sum.mutable_data());
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const {
    const int64_t rows = ids.numel(), C = table[1];
    return {index_add(reshape(dy, {rows, C}), 0, Tokens({rows}, ids.ids), table[0])};
  }
};

struct Dropout {
  static constexpr auto name = "dropout";
  double p = 0;
  Random random{};

  // The mask is made again in backward: that costs about what reading it would.
  Tensor apply(const Tensor& x) const {
    if (p == 1) return zeros(x.shape);
    Tensor y = empty(x.shape);
    kernels::dropout(contiguous(x).data(), x.numel(), p, Real(1 / (1 - p)), random, y.mutable_data());
    return y;
  }
  Tensor forward(std::span<const Tensor> in) { return apply(in[0]); }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const { return {apply(dy)}; }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const { return {record(*this, {dy})}; }
};

}  // namespace

Tensor embedding(const Tensor& weight, const Tokens& ids, Where where) {
  return record(Embedding{ids}, {weight}, where);
}

Tensor dropout(const Tensor& x, double p, Where where) {
  check(p >= 0 && p <= 1, "dropout: the probability must be in [0, 1], got {}", p);
  if (p == 0) return x;
  return record(Dropout{p, next_random()}, {x}, where);
}

}  // namespace rapt::inline RAPT_ABI

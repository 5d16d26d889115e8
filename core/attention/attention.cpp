#include "attention.h"

#include "problem.h"

namespace rapt::inline RAPT_ABI {

void attention_forward(const AttentionCall& call, Tensor& out, Tensor& lse) {
  constexpr const char* op = "attention";
  AttentionProblem p = attention_problem(op, call);
  check_tiles_carry(op, call.options);
  check_shape(op, "out", out, {p.batch, p.heads, p.queries, p.value_dim});
  check_shape(op, "lse", lse, {p.batch, p.heads, p.queries});
  check(lse.contiguous(), "{}: lse must be dense", op);
  if (call.options.normalizer.rows) return row_forward(p, out, lse);
  tiled_forward(p, out, lse);
}

void attention_backward(const AttentionCall& call, const Tensor& out, const Tensor& lse, const Tensor& dout,
                        const Tensor* dlse, Tensor& dq, Tensor& dk, Tensor& dv, std::span<Tensor> dtables) {
  constexpr const char* op = "attention backward";
  AttentionProblem p = attention_problem(op, call);
  check_tiles_carry(op, call.options);
  check_shape(op, "out", out, {p.batch, p.heads, p.queries, p.value_dim});
  check_shape(op, "dout", dout, out.shape);
  check_shape(op, "lse", lse, {p.batch, p.heads, p.queries});
  if (dlse) check_shape(op, "dlse", *dlse, lse.shape);
  check(dtables.size() == call.tables.size(), "{}: {} gradients for {} tables", op, dtables.size(), call.tables.size());
  for (size_t t = 0; t < dtables.size(); ++t) {
    if (!dtables[t]) continue;
    check_shape(op, "a table's gradient", dtables[t], call.tables[t].shape);
    check(dtables[t].contiguous(), "{}: a table's gradient must be dense", op);
    fill(dtables[t], 0);
  }
  if (call.options.normalizer.rows) return row_backward(p, dout, dlse, dq, dk, dv, dtables);
  tiled_backward(p, out, lse, dout, dlse, dq, dk, dv, dtables);
}

}  // namespace rapt::inline RAPT_ABI

#include "../../core/view.h"
#include "../ops.h"

namespace rapt::inline RAPT_ABI {

namespace {

// Memory in the order (B, N, H, D), seen as (B, H, N, D): merging the heads afterwards copies nothing.
Tensor empty_heads(int64_t batch, int64_t heads, int64_t length, int64_t dim) {
  return view::transpose(empty({batch, length, heads, dim}), 1, 2);
}

struct Attention {
  static constexpr auto name = "attention";
  AttentionOptions options;
  Saved q, k, v, out, lse;

  Tensor forward(std::span<const Tensor> x, Needs needs) {
    for (const Tensor& t : x) check(t.rank() == 4, "{}: q, k and v must be (B, H, N, D), but one is {}", name, t.shape);
    Tensor y = empty_heads(x[0].shape[0], x[0].shape[1], x[0].shape[2], x[2].shape[3]);
    Tensor l = empty({x[0].shape[0], x[0].shape[1], x[0].shape[2]});
    attention_forward(x[0], x[1], x[2], options, y, l);
    if (needs.any()) {
      q = x[0];
      k = x[1];
      v = x[2];
      out = y;
      lse = l;
    }
    return y;
  }

  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    auto like = [](const Tensor& x) { return empty_heads(x.shape[0], x.shape[1], x.shape[2], x.shape[3]); };
    Tensor dq = like(q), dk = like(k), dv = like(v);
    attention_backward(q, k, v, out, lse, dy, nullptr, options, dq, dk, dv);
    return {dq, dk, dv};
  }
};

struct PackedAttention {
  static constexpr auto name = "packed_attention";
  int64_t heads = 1;
  AttentionOptions options;
  Saved qkv, out, lse;

  // part 0, 1, 2 of (B, N, 3·H·D) as (B, H, N, D)
  Tensor part(const Tensor& packed, int64_t i) const {
    int64_t dim = packed.shape[2] / (3 * heads);
    Tensor five = view::reshape(packed, {packed.shape[0], packed.shape[1], 3, heads, dim});
    return view::transpose(view::select(five, 2, i), 1, 2);
  }
  Tensor split_heads(const Tensor& merged) const {
    return view::transpose(view::reshape(merged, {merged.shape[0], merged.shape[1], heads, merged.shape[2] / heads}), 1,
                           2);
  }

  Tensor forward(std::span<const Tensor> x, Needs needs) {
    const Shape& s = x[0].shape;
    check(s.rank == 3 && heads > 0 && s[2] % (3 * heads) == 0,
          "{}: the projection must be (B, N, 3·H·D) with H = {}, but is {}", name, heads, s);
    Tensor dense = contiguous(x[0]);
    Tensor y = empty({s[0], s[1], s[2] / 3}), l = empty({s[0], heads, s[1]});
    Tensor y_heads = split_heads(y);
    attention_forward(part(dense, 0), part(dense, 1), part(dense, 2), options, y_heads, l);
    if (needs.any()) {
      qkv = dense;
      out = y;
      lse = l;
    }
    return y;
  }

  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    const Tensor& packed = qkv;
    Tensor dpacked = empty(packed.shape);
    Tensor dq = part(dpacked, 0), dk = part(dpacked, 1), dv = part(dpacked, 2);
    attention_backward(part(packed, 0), part(packed, 1), part(packed, 2), split_heads(out), lse,
                       split_heads(contiguous(dy)), nullptr, options, dq, dk, dv);
    return {dpacked};
  }
};

}  // namespace

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options, Where where) {
  Attention op;
  op.options = options;
  return record(std::move(op), {q, k, v}, where);
}

Tensor packed_attention(const Tensor& qkv, int64_t heads, const AttentionOptions& options, Where where) {
  PackedAttention op;
  op.heads = heads;
  op.options = options;
  return record(std::move(op), {qkv}, where);
}

}  // namespace rapt::inline RAPT_ABI

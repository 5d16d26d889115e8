#include "recurrence.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "../../core/attention/tiles.h"
#include "../ops.h"

namespace rapt::inline RAPT_ABI {

namespace {

constexpr const char *kLinear = "linear_attention", *kDecay = "decay_attention", *kDelta = "delta_rule";

Tensor times(const Tensor& a, const Tensor& b, Where where) { return Operand(a, where) * Operand(b, where); }
Tensor plus(const Tensor& a, const Tensor& b, Where where) { return Operand(a, where) + Operand(b, where); }
Tensor minus(const Tensor& a, const Tensor& b, Where where) { return Operand(a, where) - Operand(b, where); }
Tensor transposed(const Tensor& x, Where where) { return transpose(x, -1, -2, where); }

// 1 for column ≤ row + shift, else 0: (n, n)
Tensor lower_ones(int64_t n, int64_t shift) {
  Tensor y = zeros({n, n});
  Real* to = y.mutable_data();
  for (int64_t i = 0; i < n; ++i) std::fill(to + i * n, to + i * n + std::clamp<int64_t>(i + shift + 1, 0, n), Real(1));
  return y;
}

// How N positions are cut: n chunks of C, the last one filled up with zeros, which change no state and are cut off.
struct Chunks {
  const char* name;
  int64_t B, H, N, n, C;
  Where where;

  Chunks(const char* what, const Shape& q, const Shape& k, const Shape& v, int64_t chunk, Where at)
      : name(what), where(at) {
    check(q.rank == 4 && k.rank == 4 && v.rank == 4, "{}: q, k and v must be (B, H, N, D), but are {}, {} and {}", name,
          q, k, v);
    B = q[0], H = q[1], N = q[2];
    const int64_t shared = k[1];
    check(k == Shape({B, shared, N, q[3]}) && v == Shape({B, shared, N, v[3]}),
          "{}: q, k and v don't fit: expected q (B, H, N, D), k (B, Hkv, N, D) and v (B, Hkv, N, Dv), as many keys as "
          "queries, got {}, {} and {}",
          name, q, k, v);
    check(shared > 0 && H % shared == 0, "{}: {} heads of k and v don't divide {} heads of q", name, shared, H);
    check(chunk >= 1, "{}: the chunk must be at least 1, got {}", name, chunk);
    n = (N + chunk - 1) / chunk;
    C = n ? (N + n - 1) / n : 1;  // even chunks, so that little is filled up
  }

  Tensor all_heads(const Tensor& x) const { return repeat_heads(x, H, where); }
  // (B, H, N, W) → (B, H, n, C, W)
  Tensor cut(const Tensor& x) const {
    Tensor filled = n * C == N ? x : pad(x, 2, 0, n * C - N, 0, where);
    return reshape(filled, {B, H, n, C, x.shape[3]}, where);
  }
  // A number for each position, what broadcasts to (B, H, N) → (B or 1, H or 1, n or 1, C)
  Tensor cut_numbers(const char* what, Tensor x) const {
    check(x.rank() <= 3, "{}: {} must broadcast to ({}, {}, {}), but is {}", name, what, B, H, N, x.shape);
    while (x.rank() < 3) x = unsqueeze(x, 0, where);
    const Shape full{B, H, N};
    for (int d = 0; d < 3; ++d) {
      check(x.shape[d] == 1 || x.shape[d] == full[d], "{}: {} must broadcast to {}, but is {}", name, what, full,
            x.shape);
    }
    if (x.shape[2] == 1) return expand(unsqueeze(x, -1, where), {x.shape[0], x.shape[1], 1, C}, where);
    Tensor filled = n * C == N ? x : pad(x, 2, 0, n * C - N, 0, where);
    return reshape(filled, {x.shape[0], x.shape[1], n, C}, where);
  }
  // (B, H, n, C, W) → (B, H, N, W)
  Tensor joined(const Tensor& x) const {
    Tensor y = reshape(x, {B, H, n * C, x.shape[4]}, where);
    return n * C == N ? y : slice(y, 2, 0, N, 1, where);
  }
};

// What is left of the state between two places of a chunk. Every exponent is a sum of log decays, never a difference of
// sums, so a decay of 0 (log decay −∞) gives 0 and not NaN.
struct Decay {
  Tensor within;      // (…, C, C), 0 above the diagonal: of k_j v_j at position i
  Tensor from_start;  // (…, C, 1): of the state before the chunk at position i
  Tensor to_end;      // (…, C, 1): of k_j v_j after the chunk
  Tensor whole;       // (…, 1, 1): of the state before the chunk after it

  Decay(const Tensor& log_decay, Where where) {  // (…, n, C)
    const int64_t C = log_decay.shape[-1];
    Tensor column = unsqueeze(log_decay, -1, where);
    Tensor below = rapt::where(lower_ones(C, -1), Operand(column, where), Operand(0.0, where), where);
    within = times(exp(cumsum(below, -2, where), where), lower_ones(C, 0), where);
    from_start = exp(cumsum(column, -2, where), where);
    whole = slice(from_start, -2, C - 1, C, 1, where);
    std::vector<int32_t> ids;
    for (int64_t i = C - 1; i >= 0; --i) ids.push_back(int32_t(i));
    const Tokens backwards({C}, ids);
    Tensor later = index_select(pad(slice(column, -2, 1, C, 1, where), -2, 0, 1, 0, where), -2, backwards, where);
    to_end = exp(index_select(cumsum(later, -2, where), -2, backwards, where), where);
  }
};

using Marks = std::shared_ptr<std::vector<uint8_t>>;  // one for each row of (B, H, N)

bool is_number(Real x, bool minus_infinity) { return std::isfinite(x) || (minus_infinity && x == -kInf); }

// NaN and infinities become 0; on the way back, the marked rows get NaN.
struct OnlyNumbers {
  static constexpr auto name = "only_numbers";
  Marks marks;
  bool minus_infinity;  // is a number
  Tensor forward(std::span<const Tensor> in) {
    Tensor y = clone(in[0]);
    Real* to = y.mutable_data();
    for (int64_t e = 0; e < y.numel(); ++e) to[e] = is_number(to[e], minus_infinity) ? to[e] : 0;
    return y;
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    return {with_marked(dy, *marks, std::numeric_limits<Real>::quiet_NaN())};
  }
  static Tensor with_marked(const Tensor& x, const std::vector<uint8_t>& marks, Real value) {
    Tensor y = clone(x.detach());
    const int64_t width = marks.empty() ? 0 : y.numel() / int64_t(marks.size());
    for (size_t r = 0; r < marks.size(); ++r) {
      if (marks[r]) std::fill_n(y.mutable_data() + int64_t(r) * width, width, value);
    }
    return y;
  }
};

// The marked rows become NaN; what comes back to them goes no further.
struct SpoilRows {
  static constexpr auto name = "spoil_rows";
  Marks marks;
  Tensor forward(std::span<const Tensor> in) {
    return OnlyNumbers::with_marked(in[0], *marks, std::numeric_limits<Real>::quiet_NaN());
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const { return {OnlyNumbers::with_marked(dy, *marks, 0)}; }
};

struct RecurrenceInputs {
  Tensor q, k, v, beta, log_decay;  // the last two may be empty
};

// A chunk multiplies later positions by 0, and 0 · NaN is NaN. So where the result has some, the inputs are computed
// with as if they had none, and what reads NaN or an infinity is made NaN: row t for one in q_t, and every row from t
// on for one in k, v or the numbers at t. Gradients likewise: q at those rows, the others up to the last of them.
template <class F>
Tensor by_chunks(const RecurrenceInputs& x, Where where, F compute) {
  Tensor out = compute(x);
  const int64_t width = out.shape[3];
  if (out.numel() == 0 || all_finite(out.numel() / width, width, contiguous(out.detach()).data(), width)) return out;
  const Shape rows{x.q.shape[0], x.q.shape[1], x.q.shape[2]};
  RecurrenceInputs y{x.q, repeat_heads(x.k, rows[1], where), repeat_heads(x.v, rows[1], where),
                     x.beta ? expand(x.beta, rows, where) : Tensor(),
                     x.log_decay ? expand(x.log_decay, rows, where) : Tensor()};
  Marks read = std::make_shared<std::vector<uint8_t>>(size_t(rows.numel())),
        spoilt = std::make_shared<std::vector<uint8_t>>(*read), reach = std::make_shared<std::vector<uint8_t>>(*read);
  auto mark = [&](const Tensor& t, std::vector<uint8_t>& marks, bool minus_infinity) {
    if (!t) return;
    const Tensor dense = contiguous(t.detach());
    const int64_t count = dense.numel() / rows.numel();
    for (int64_t e = 0; e < dense.numel(); ++e) marks[size_t(e / count)] |= !is_number(dense.data()[e], minus_infinity);
  };
  mark(y.q, *spoilt, false);
  mark(y.k, *read, false);
  mark(y.v, *read, false);
  mark(y.beta, *read, false);
  mark(y.log_decay, *read, true);
  bool any = false;
  for (size_t first = 0, N = size_t(rows[2]); first < spoilt->size(); first += N) {
    for (size_t t = first, seen = 0; t < first + N; ++t) (*spoilt)[t] |= seen |= (*read)[t];
    for (size_t t = first + N, seen = 0; t-- > first;) (*reach)[t] = uint8_t(seen |= (*spoilt)[t]);
    any |= (*reach)[first] != 0;
  }
  if (!any) return out;
  auto clean = [&](const Tensor& t, const Marks& marks, bool minus_infinity) {
    return t ? record(OnlyNumbers{marks, minus_infinity}, {t}, where) : t;
  };
  Tensor cleaned = compute({clean(y.q, spoilt, false), clean(y.k, reach, false), clean(y.v, reach, false),
                            clean(y.beta, reach, false), clean(y.log_decay, reach, true)});
  return record(SpoilRows{spoilt}, {cleaned}, where);
}

Tensor linear_by_chunks(const Tensor& q, const Tensor& k, const Tensor& v, LinearAttentionOptions options,
                        Where where) {
  const Chunks c(kLinear, q.shape, k.shape, v.shape, options.chunk, where);
  const Tensor keys = c.all_heads(k);
  const Tensor Q = c.cut(q), K = c.cut(keys), V = c.cut(c.all_heads(v)), KT = transposed(K, where);
  Tensor scores = times(matmul(Q, KT, where), lower_ones(c.C, 0), where);
  Tensor out = matmul(scores, V, where);
  if (c.n > 1) {
    Tensor added = slice(matmul(KT, V, where), 2, 0, c.n - 1, 1, where);
    Tensor states = pad(cumsum(added, 2, where), 2, 1, 0, 0, where);
    out = plus(out, matmul(Q, states, where), where);
  }
  out = c.joined(out);
  if (!options.normalize) return out;
  Tensor weight = sum(times(q, cumsum(keys, 2, where), where), {-1}, true, where);
  return Operand(out, where) / Operand(weight, where);
}

Tensor decay_by_chunks(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& log_decay, int64_t chunk,
                       Where where) {
  const Chunks c(kDecay, q.shape, k.shape, v.shape, chunk, where);
  const Tensor Q = c.cut(q), K = c.cut(c.all_heads(k)), V = c.cut(c.all_heads(v));
  const Decay decay(c.cut_numbers("log_decay", log_decay), where);
  Tensor scores = times(matmul(Q, transposed(K, where), where), decay.within, where);
  Tensor out = matmul(scores, V, where);
  if (c.n > 1) {
    Tensor added = matmul(transposed(times(K, decay.to_end, where), where), V, where);
    Tensor states = affine_scan(expand(decay.whole, {c.B, c.H, c.n, 1, 1}, where), added, where);
    out = plus(out, matmul(times(Q, decay.from_start, where), states, where), where);
  }
  return c.joined(out);
}

// One chunk (Yang 2024, 2025): with A below the diagonal of (diag(β) K Kᵀ) ∘ E and T = (I + A)⁻¹ diag(β), what is
// written is U − W S₀, U = T V, W = T (e^g ∘ K). So the state after the chunk is affine in S₀.
Tensor delta_by_chunks(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& beta, const Tensor& log_decay,
                       int64_t chunk, Where where) {
  const Chunks c(kDelta, q.shape, k.shape, v.shape, chunk, where);
  const Tensor V = c.cut(c.all_heads(v)), b = unsqueeze(c.cut_numbers("beta", beta), -1, where);
  Tensor Q = c.cut(q), K = c.cut(c.all_heads(k)), KT = transposed(K, where);
  Tensor Kb = times(K, b, where);
  Tensor scores = matmul(Q, KT, where), A = matmul(Kb, KT, where), whole;
  if (log_decay) {
    const Decay decay(c.cut_numbers("log_decay", log_decay), where);
    scores = times(scores, decay.within, where);
    A = times(A, decay.within, where);
    Q = times(Q, decay.from_start, where);
    Kb = times(Kb, decay.from_start, where);
    KT = transposed(times(K, decay.to_end, where), where);
    whole = times(decay.whole, eye(K.shape[-1]), where);
  } else {
    scores = times(scores, lower_ones(c.C, 0), where);
    whole = eye(K.shape[-1]);
  }
  const Tensor inverse = inverse_unit_lower(A, where);
  Tensor written = matmul(inverse, times(V, b, where), where);
  if (c.n == 1) return c.joined(matmul(scores, written, where));

  const Tensor W = matmul(inverse, Kb, where);
  Tensor states = affine_scan(minus(whole, matmul(KT, W, where), where), matmul(KT, written, where), where);
  written = minus(written, matmul(W, states, where), where);
  return c.joined(plus(matmul(scores, written, where), matmul(Q, states, where), where));
}

}  // namespace

Tensor linear_attention(const Tensor& q, const Tensor& k, const Tensor& v, LinearAttentionOptions options,
                        Where where) {
  return by_chunks({q, k, v, {}, {}}, where,
                   [&](const RecurrenceInputs& x) { return linear_by_chunks(x.q, x.k, x.v, options, where); });
}

Tensor decay_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& log_decay, int64_t chunk,
                       Where where) {
  return by_chunks({q, k, v, {}, log_decay}, where, [&](const RecurrenceInputs& x) {
    return decay_by_chunks(x.q, x.k, x.v, x.log_decay, chunk, where);
  });
}

Tensor delta_rule(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& beta, const Tensor& log_decay,
                  int64_t chunk, Where where) {
  return by_chunks({q, k, v, beta, log_decay}, where, [&](const RecurrenceInputs& x) {
    return delta_by_chunks(x.q, x.k, x.v, x.beta, x.log_decay, chunk, where);
  });
}

// What the functions above do, product by product, when all inputs want gradients.
RecurrencePlan explain(Recurrence kind, const Shape& q, const Shape& k, const Shape& v, const Shape& log_decay,
                       int64_t chunk) {
  const bool delta = kind == Recurrence::delta || kind == Recurrence::gated_delta,
             decay = kind == Recurrence::decay || kind == Recurrence::gated_delta;
  const Chunks c(delta ? kDelta : decay ? kDecay : kLinear, q, k, v, chunk, Where::here());
  const int64_t C = c.C, D = q[3], Dv = v[3], all = c.B * c.H * c.n, steps = c.B * c.H * std::max<int64_t>(0, c.n - 1);
  // of one chunk: multiplications, and numbers kept
  int64_t products = C * C * (D + Dv), kept = C * C;
  if (delta) {  // keys with keys; the inverse with values
    products += C * C * (D + Dv);
    kept += C * C + C * D + 2 * C * Dv;
  }
  if (decay) kept += (delta ? 2 : 1) * C * C;  // products before they are multiplied with what is left
  if (kind == Recurrence::linear_normalized) kept += C * D + C;
  if (steps > 0) {  // what it adds to the state, and reads from the states before
    products += 2 * C * D * Dv;
    kept += D * Dv;
    if (delta) {  // W, Kᵀ W, W S
      products += C * C * D + C * D * D + C * D * Dv;
      kept += C * D + C * Dv + D * D;
    }
    if (decay) kept += (delta ? 3 : 2) * C * D;
  }
  int64_t saved = all * kept;
  if (decay && log_decay.numel() > 0) {  // what is left between the places of a chunk, before and after its zeros
    const int64_t last = log_decay.rank > 0 ? log_decay[-1] : 1;
    saved += log_decay.numel() / last * (last > 1 ? c.n : 1) * 2 * C * C;
  }
  const bool filled = c.n * C != c.N;
  if (filled) saved += all * C * D;
  if (filled || (k[1] != c.H && k[1] > 1)) saved += all * C * (D + Dv);
  const double forward = double(all) * double(products + (delta ? (C * C * C - C) / 6 : 0)),
               backward = double(all) * double(products + (delta ? C * C * C : 0)),
               scan = delta || decay ? double(steps * D * Dv) * (delta ? double(D) : 1) : 0;
  return {c.name, c.B * c.H, c.n, C, 2 * (forward + scan), 4 * (backward + scan), saved * int64_t(sizeof(Real))};
}

std::string to_string(const RecurrencePlan& plan) {
  return fmt::format(
      "{}, by chunks\n"
      "{} chunks of {} positions in each of {} heads: {} tasks, and {} from chunk to chunk\n"
      "forward: {:.3g} GFLOP, {:.3g} MB kept for the backward\n"
      "backward: {:.3g} GFLOP",
      plan.name, plan.chunks, plan.chunk, plan.heads, plan.chunks * plan.heads, plan.heads,
      plan.forward_operations * 1e-9, double(plan.saved_bytes) / (1 << 20), plan.backward_operations * 1e-9);
}

}  // namespace rapt::inline RAPT_ABI

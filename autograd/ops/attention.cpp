#include <algorithm>
#include <memory>

#include "../../core/view.h"
#include "../ops.h"

namespace rapt::inline RAPT_ABI {

namespace {

// Memory in the order (B, N, H, D), seen as (B, H, N, D): merging the heads afterwards copies nothing.
Tensor empty_heads(int64_t batch, int64_t heads, int64_t length, int64_t dim) {
  return view::transpose(empty({batch, length, heads, dim}), 1, 2);
}

// The log-sum-exp, and its gradient on the way back: its node runs before attention's and leaves the gradient here.
struct ReturnedLse {
  Tensor value, gradient;
};

WeightDropout dropout_of(const AttentionOptions& o) {
  if (o.dropout_state) return *o.dropout_state;
  if (o.dropout == 0) return {};
  Random random = next_random();
  return {o.dropout, random.seed, uint32_t(random.stream)};
}

// What one call keeps for its backward. q, k and v are three inputs, or parts of one projection (B, N, 3·H·D).
struct Attention {
  static constexpr auto name = "attention";
  int64_t packed_heads = 0;  // > 0: packed
  AttentionOptions options;
  WeightDropout dropout;
  std::shared_ptr<ReturnedLse> lse;
  std::vector<Saved> inputs;
  Saved out;

  size_t first_table() const { return packed_heads > 0 ? 1 : 3; }

  // part 0, 1, 2 of (B, N, 3·H·D) as (B, H, N, D)
  Tensor part(const Tensor& packed, int64_t i) const {
    int64_t dim = packed.shape[2] / (3 * packed_heads);
    Tensor five = view::reshape(packed, {packed.shape[0], packed.shape[1], 3, packed_heads, dim});
    return view::transpose(view::select(five, 2, i), 1, 2);
  }
  Tensor split_heads(const Tensor& merged) const {
    if (packed_heads == 0) return merged;
    return view::transpose(
        view::reshape(merged, {merged.shape[0], merged.shape[1], packed_heads, merged.shape[2] / packed_heads}), 1, 2);
  }

  template <class Inputs>
  AttentionCall call(const Inputs& x) const {
    std::vector<Tensor> tables;
    for (size_t t = first_table(); t < x.size(); ++t) tables.push_back(x[t]);
    const Tensor& first = x[0];
    if (packed_heads > 0) return {part(first, 0), part(first, 1), part(first, 2), options, tables, dropout};
    return {first, x[1], x[2], options, tables, dropout};
  }

  Tensor forward(std::span<const Tensor> given, Needs needs) {
    std::vector<Tensor> x(given.begin(), given.end());
    Tensor y;
    if (packed_heads > 0) {
      const Shape& s = x[0].shape;
      check(s.rank == 3 && s[2] % (3 * packed_heads) == 0,
            "attention: the projection must be (B, N, 3·H·D) with H = {}, but is {}", packed_heads, s);
      x[0] = contiguous(x[0]);
      y = empty({s[0], s[1], s[2] / 3});
    } else {
      const char* wanted[] = {"q must be (B, H, N, D)", "k must be (B, Hkv, M, D)", "v must be (B, Hkv, M, Dv)"};
      for (size_t i = 0; i < 3; ++i) check(x[i].rank() == 4, "{}: {}, but is {}", name, wanted[i], x[i].shape);
      y = empty_heads(x[0].shape[0], x[0].shape[1], x[0].shape[2], x[2].shape[3]);
    }
    Tensor heads = split_heads(y), l = empty({heads.shape[0], heads.shape[1], heads.shape[2]});
    attention_forward(call(x), heads, l);
    if (lse->value) lse = std::make_shared<ReturnedLse>();  // a copy of an operation that has run: not that one's
    lse->value = l;
    if (needs.any()) {
      inputs.assign(x.begin(), x.end());
      out = y;
    }
    return y;
  }

  std::vector<Tensor> backward(const Tensor& dy, Needs needs) const {
    // In the order of the input's memory: a leaf keeps a dense gradient without a copy.
    auto like = [](const Tensor& x) {
      return x.contiguous() ? empty(x.shape) : empty_heads(x.shape[0], x.shape[1], x.shape[2], x.shape[3]);
    };
    AttentionCall c = call(inputs);
    std::vector<Tensor> gradients, dtables;
    for (size_t t = 0; t < c.tables.size(); ++t)
      dtables.push_back(needs[int(first_table() + t)] ? empty(c.tables[t].shape) : Tensor());
    Tensor dq, dk, dv;
    if (packed_heads > 0) {
      gradients = {empty(inputs[0].get().shape)};
      dq = part(gradients[0], 0), dk = part(gradients[0], 1), dv = part(gradients[0], 2);
    } else {
      dq = like(c.q), dk = like(c.k), dv = like(c.v);
      gradients = {dq, dk, dv};
    }
    Tensor dlse = std::exchange(lse->gradient, Tensor());
    attention_backward(c, split_heads(out), lse->value, split_heads(packed_heads > 0 ? contiguous(dy) : dy),
                       dlse ? &dlse : nullptr, dq, dk, dv, dtables);
    gradients.insert(gradients.end(), dtables.begin(), dtables.end());
    return gradients;
  }

  Cost cost(std::span<const Tensor> given, Needs needs) const {
    std::vector<Tensor> x(given.begin(), given.end());
    if (packed_heads > 0) x[0] = contiguous(x[0]);
    AttentionPlan plan = plan_attention(call(x));
    return {plan.forward_operations, needs.any() ? plan.backward_operations : 0};
  }
};

struct LseOf {
  static constexpr auto name = "attention_lse";
  static constexpr bool repeatable = false;  // its value is attention's
  std::shared_ptr<ReturnedLse> lse;
  Tensor forward(std::span<const Tensor>) { return lse->value; }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    lse->gradient = dy;
    return {view::expand(scalar(0), out_shape)};
  }
  Shape out_shape;
};

AttentionResult run(Attention op, std::vector<Tensor> inputs, bool want_lse, Where where) {
  for (const Tensor& t : op.options.tables()) inputs.push_back(t);
  check(inputs.size() <= 32, "attention: {} captured tensors are too many", inputs.size());
  op.dropout = dropout_of(op.options);
  auto lse = std::make_shared<ReturnedLse>();
  op.lse = lse;
  AttentionResult result;
  result.out = record(std::move(op), std::span<const Tensor>(inputs), where);
  if (want_lse) result.lse = record(LseOf{lse, result.out.shape}, {result.out}, where);
  return result;
}

void check_inverted(const AttentionOptions& options) {
  check(!options.relative_keys && !options.relative_values,
        "attention: the inverted softmax has no relative terms; use attention_dense");
}

// The options of the inverted softmax's first call, in which queries and keys are exchanged.
AttentionOptions exchanged(const AttentionOptions& options) {
  AttentionOptions over_queries;
  over_queries.mask = transposed(options.mask);
  over_queries.score = transposed(options.score);
  over_queries.scale = options.scale;
  return over_queries;
}

// Softmax over the queries first: its logarithm C (B, H, M) is the log-sum-exp of attention with queries and keys
// exchanged; then −C is a bias on each key, and the second softmax divides by the row's sum.
AttentionResult inverted(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options,
                         Where where) {
  check_inverted(options);
  const AttentionOptions over_queries = exchanged(options);
  Tensor nothing = zeros({q.shape[0], q.shape[1], q.shape[2], 1});
  Tensor c = attention_with_lse(repeat_heads(k, q.shape[1], where), q, nothing, over_queries, where).lse;
  AttentionOptions over_keys = options;
  over_keys.normalizer = {};
  over_keys.score = options.score | bias(unsqueeze(-c, 2, where));
  return attention_with_lse(q, k, v, over_keys, where);
}

}  // namespace

Tensor repeat_heads(const Tensor& x, int64_t heads, Where where) {
  check(x.rank() == 4 && x.shape[1] > 0 && heads % x.shape[1] == 0,
        "repeat_heads: expected (B, Hkv, N, D) with Hkv dividing {}, got {}", heads, x.shape);
  if (x.shape[1] == heads) return x;
  const Shape& s = x.shape;
  Tensor repeated = expand(unsqueeze(x, 2, where), {s[0], s[1], heads / s[1], s[2], s[3]}, where);
  return reshape(repeated, {s[0], heads, s[2], s[3]}, where);
}

AttentionResult attention_with_lse(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options,
                                   Where where) {
  if (options.normalizer.kind == Normalizer::Kind::inverted) return inverted(q, k, v, options, where);
  Attention op;
  op.options = options;
  return run(std::move(op), {q, k, v}, true, where);
}

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options, Where where) {
  if (options.normalizer.kind == Normalizer::Kind::inverted) return inverted(q, k, v, options, where).out;
  Attention op;
  op.options = options;
  return run(std::move(op), {q, k, v}, false, where).out;
}

Tensor packed_attention(const Tensor& qkv, int64_t heads, const AttentionOptions& options, Where where) {
  check(heads > 0, "packed_attention: the number of heads must be at least 1, got {}", heads);
  check(options.normalizer.kind != Normalizer::Kind::inverted,
        "packed_attention: not for the inverted softmax; use attention");
  Attention op;
  op.packed_heads = heads;
  op.options = options;
  return run(std::move(op), {qkv}, false, where).out;
}

Tensor attention_weights(const Tensor& q, const Tensor& k, const AttentionOptions& options, bool mean_over_heads) {
  check(options.normalizer.kind != Normalizer::Kind::inverted,
        "attention_weights: not for the inverted softmax; use attention_dense");
  NoGrad no_grad;
  std::vector<Tensor> tables;
  for (const Tensor& t : options.tables()) tables.push_back(t.detach());
  Tensor v = zeros({k.shape[0], k.shape[1], k.shape[2], 1});
  AttentionOptions plain = options;
  plain.dropout = 0;
  plain.dropout_state = {};
  plain.relative_values = {};
  if (options.relative_values) tables.pop_back();
  AttentionCall call{q.detach(), k.detach(), v, plain, tables, {}};
  Tensor out = empty({q.shape[0], q.shape[1], q.shape[2], 1}), lse = empty({q.shape[0], q.shape[1], q.shape[2]});
  attention_forward(call, out, lse);
  return attention_weights(call, lse, mean_over_heads);
}

AttentionPlan explain(const Shape& q, const Shape& k, const Shape& v, const AttentionOptions& options) {
  // numbers are never looked at, so one is enough
  auto of = [](const Shape& s) { return view::expand(scalar(0), s); };
  auto plan_of = [&](const Shape& queries, const Shape& keys, const Shape& values, const AttentionOptions& o) {
    std::vector<Tensor> tables;
    for (const Tensor& t : o.tables()) tables.push_back(t.detach());
    return plan_attention(
        {of(queries), of(keys), of(values), o, tables, o.dropout_state.value_or(WeightDropout{o.dropout})});
  };
  if (options.normalizer.kind != Normalizer::Kind::inverted) return plan_of(q, k, v, options);
  check_inverted(options);
  check(q.rank == 4 && k.rank == 4, "attention: q, k and v must be (B, H, N, D), but are {}, {} and {}", q, k, v);
  AttentionOptions second = options;
  second.normalizer = {};
  second.score = options.score | bias(of({k[0], q[1], 1, k[2]}));
  AttentionPlan plan = plan_of(q, k, v, second);
  const AttentionPlan first = plan_of({k[0], q[1], k[2], k[3]}, q, {q[0], q[1], q[2], 1}, exchanged(options));
  plan.variant += "; after one such call with queries and keys exchanged, for the softmax over the queries";
  plan.tiles += first.tiles;
  plan.skipped += first.skipped;
  plan.full += first.full;
  plan.partial += first.partial;
  plan.forward_tasks += first.forward_tasks;
  plan.backward_tasks += first.backward_tasks;
  plan.forward_operations += first.forward_operations;
  plan.backward_operations += first.backward_operations;
  plan.saved_bytes += first.saved_bytes;
  plan.backward_bytes = std::max(plan.backward_bytes, first.backward_bytes);  // one after the other
  return plan;
}

Score forget_gates(const Tensor& log_gates, Where where) {
  check(log_gates.rank() == 3, "forget_gates: expected log gates (B, H, M), got {}", log_gates.shape);
  const Tensor sums = cumsum(log_gates, -1, where), gates = contiguous(log_gates.detach()),
               rounded = contiguous(sums.detach());
  Tensor rest = empty(sums.shape);
  const int64_t keys = sums.shape[2];
  for (int64_t row = 0; keys > 0 && row < sums.numel() / keys; ++row) {
    double sum = 0;
    for (int64_t j = row * keys; j < (row + 1) * keys; ++j) {
      sum += double(gates.data()[j]);
      rest.mutable_data()[j] = Real(sum - double(rounded.data()[j]));
    }
  }
  return forget_gate(sums, rest);
}

}  // namespace rapt::inline RAPT_ABI

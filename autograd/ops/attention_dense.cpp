#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "../../core/attention/problem.h"
#include "../../core/view.h"
#include "../ops.h"

/// Attention with whole matrices. Scores and weights are (B, H, N, M) tensors, and the gradient is that of the recorded
/// operations: nothing is shared with the tiles but the modifiers, the masks and the dropout's numbers.
namespace rapt::inline RAPT_ABI {

namespace {

// f(strip, first element) for all strips of a (B, H, N, M) matrix, along the queries; element i of a strip is i · M on.
void for_strips(const Shape& s, const std::function<void(const Strip&, int64_t)>& f) {
  for (int64_t b = 0; b < s[0]; ++b) {
    for (int64_t h = 0; h < s[1]; ++h) {
      for (int64_t row = 0; row < s[2]; row += kTile) {
        for (int64_t key = 0; key < s[3]; ++key)
          f({b, h, key, row, std::min(kTile, s[2] - row), s[2], s[3]}, ((b * s[1] + h) * s[2] + row) * s[3] + key);
      }
    }
  }
}

void load(const Strip& s, const Real* from, Real* strip) {
  for (int64_t i = 0; i < s.count; ++i) strip[i] = from[i * s.keys];
}
void store(const Strip& s, const Real* strip, Real* to) {
  for (int64_t i = 0; i < s.count; ++i) to[i * s.keys] = strip[i];
}

// One score modifier on a whole matrix; its captured tensors are the other inputs.
struct ModifyScores {
  static constexpr auto name = "modify_scores";
  std::shared_ptr<const ScoreRule> rule;
  Saved keep;  // 1 where read: masked entries get no gradient
  std::vector<Saved> inputs;

  std::vector<Table> bind(const std::vector<Tensor>& x) const {
    std::vector<Table> tables;
    const Shape& s = x[0].shape;
    for (size_t t = 1; t < x.size(); ++t)
      tables.push_back(bind_table(x[t].data(), x[t].shape, {s[0], s[1], s[2], s[3]}));
    return tables;
  }
  Tensor forward(std::span<const Tensor> given) {
    std::vector<Tensor> x;
    for (const Tensor& t : given) x.push_back(contiguous(t));
    inputs.assign(x.begin(), x.end());
    Tensor y = clone(x[0]);
    Real* to = y.mutable_data();
    std::vector<Table> tables = bind(x);
    for_strips(y.shape, [&](const Strip& s, int64_t at) {
      Real strip[kTile];
      load(s, to + at, strip);
      rule->apply(s, tables.data(), strip);
      store(s, strip, to + at);
    });
    return y;
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs needs) const {
    std::vector<Tensor> x, gradients{clone(dy)};
    for (const Saved& saved : inputs) x.push_back(saved);
    std::vector<Table> tables = bind(x);
    for (size_t t = 1; t < x.size(); ++t) {
      gradients.push_back(needs[int(t)] ? zeros(x[t].shape) : Tensor());
      if (gradients[t]) tables[t - 1].gradient = gradients[t].mutable_data();
    }
    Real* g = gradients[0].mutable_data();
    const Real *scores = x[0].data(), *read = keep.get().data();
    for_strips(x[0].shape, [&](const Strip& s, int64_t at) {
      Real strip[kTile], gradient[kTile], kept[kTile];
      load(s, scores + at, strip);
      load(s, g + at, gradient);
      load(s, read + at, kept);
      for (int64_t i = 0; i < s.count; ++i) gradient[i] = kept[i] == 0 ? 0 : gradient[i];
      rule->pull_back(s, tables.data(), strip, gradient);
      for (int64_t i = 0; i < s.count; ++i) gradient[i] = kept[i] == 0 ? 0 : gradient[i];
      store(s, gradient, g + at);
    });
    return gradients;
  }
};

// f(s) of a WeightRule.
struct MapWeights {
  static constexpr auto name = "map_weights";
  std::shared_ptr<const WeightRule> rule;
  Saved slopes;

  Tensor forward(std::span<const Tensor> given) {
    Tensor x = contiguous(given[0]), y = empty(x.shape), slope = empty(x.shape);
    rule->slopes(x.numel(), x.data(), y.mutable_data(), slope.mutable_data());
    slopes = slope;
    return y;
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const { return {dy.detach() * slopes.get()}; }
};

// A constant (N, M) or (B, H, N, M) matrix of f(strip, kTile numbers).
Tensor matrix_of(const Shape& shape, const std::function<void(const Strip&, Real*)>& f) {
  Tensor y = empty(shape);
  Real* to = y.mutable_data();
  for_strips(shape, [&](const Strip& s, int64_t at) {
    Real strip[kTile];
    f(s, strip);
    store(s, strip, to + at);
  });
  return y;
}

Tensor keep_matrix(const Mask& mask, const Shape& shape) {
  return matrix_of(shape, [&](const Strip& s, Real* strip) {
    uint8_t keep[kTile];
    std::fill_n(keep, s.count, uint8_t{1});
    if (!mask.everything()) mask.rule().keep(s, keep);
    for (int64_t i = 0; i < s.count; ++i) strip[i] = keep[i];
  });
}

// (B, Hkv, M, 1): 1 for keys that some query of some head of the group reads.
Tensor read_keys(const Tensor& keep, int64_t kv_heads) {
  const Shape& s = keep.shape;
  Tensor some = zeros({s[0], kv_heads, s[3], 1});
  const Real* from = keep.data();
  Real* to = some.mutable_data();
  for (int64_t row = 0; row < s[0] * s[1] * s[2]; ++row) {
    const int64_t head = row / s[2], kv = head / s[1] * kv_heads + head % s[1] / (s[1] / kv_heads);
    for (int64_t j = 0; j < s[3]; ++j) to[kv * s[3] + j] = std::max(to[kv * s[3] + j], from[row * s[3] + j]);
  }
  return some;
}

Tensor dropout_matrix(const WeightDropout& dropout, const Shape& shape) {
  return matrix_of(shape, [&](Strip s, Real* strip) {
    Real factors[4 * kTile];
    int64_t in_block = s.key % 4;
    s.key -= in_block;
    dropout.factors(s, shape[1], in_block + 1, factors);
    std::copy_n(factors + in_block * kTile, s.count, strip);
  });
}

// Index of entry (i, j) in rows of `width` numbers, flattened: i · width + column(i, j).
Tokens entry_index(int64_t queries, int64_t keys, int64_t width,
                   const std::function<int64_t(int64_t, int64_t)>& column) {
  Tokens index;
  index.shape = {queries * keys};
  for (int64_t i = 0; i < queries; ++i) {
    for (int64_t j = 0; j < keys; ++j) index.ids.push_back(int32_t(i * width + column(i, j)));
  }
  return index;
}

// x (B, H, N, W) → (B, H, N, M): entry (i, j) is x[i][column(i, j)].
Tensor gather_columns(const Tensor& x, int64_t keys, const std::function<int64_t(int64_t, int64_t)>& column) {
  const Shape& s = x.shape;
  Tokens index = entry_index(s[2], keys, s[3], column);
  return reshape(index_select(reshape(x, {s[0], s[1], s[2] * s[3]}), 2, index), {s[0], s[1], s[2], keys});
}

Tensor reversed_cumsum(const Tensor& x) { return sum(x, {-1}, true) - cumsum(x, -1) + x; }

struct Weights {
  Tensor weights, lse;
};

// Softmax of the rows, with one more column for the sink.
Weights softmax_rows(const Tensor& scores, const Tensor& sink) {
  if (!sink) return {softmax(scores), logsumexp(scores, -1)};
  const Shape& s = scores.shape;
  Tensor column = expand(reshape(sink, {1, s[1], 1, 1}), {s[0], s[1], s[2], 1});
  Tensor with_sink = cat(std::vector<Tensor>{scores, column}, -1);
  return {slice(softmax(with_sink), -1, 0, s[3]), logsumexp(with_sink, -1)};
}

// A constant of the same shape, element by element.
Tensor constant(const Tensor& x, const std::function<Real(Real)>& f) {
  Tensor y = clone(x.detach());
  Real* to = y.mutable_data();
  for (int64_t e = 0; e < y.numel(); ++e) to[e] = f(to[e]);
  return y;
}

// For each row of M numbers: f(row, result), both M long.
Tensor by_rows(const Tensor& x, const std::function<void(const Real*, Real*)>& f) {
  Tensor dense = contiguous(x.detach()), y = zeros(x.shape);
  int64_t width = x.shape[-1];
  for (int64_t r = 0; width > 0 && r < x.numel() / width; ++r)
    f(dense.data() + r * width, y.mutable_data() + r * width);
  return y;
}

Weights top_k_weights(const Tensor& scores, int64_t k) {
  const int64_t width = scores.shape[-1];
  Tensor kept = by_rows(scores, [&](const Real* row, Real* keep) {
    std::vector<Real> sorted(row, row + width);
    std::erase_if(sorted, [](Real s) { return std::isnan(s); });  // kept, so that its row becomes NaN
    std::ranges::sort(sorted, std::greater<>());
    Real threshold = sorted.empty() ? -kInf : sorted[size_t(std::min(k, int64_t(sorted.size())) - 1)];
    for (int64_t j = 0; j < width; ++j) keep[j] = Real(!(row[j] < threshold));
  });
  return softmax_rows(where(kept, scores, -kInf), {});
}

// One-hot weights with the softmax's gradient.
Weights hard_weights(const Tensor& scores) {
  const int64_t width = scores.shape[-1];
  Tensor one_hot = by_rows(scores, [&](const Real* row, Real* hot) {
    int64_t at = std::max_element(row, row + width) - row;
    hot[at] = Real(row[at] > -kInf);
  });
  auto [soft, lse] = softmax_rows(scores, {});
  return {soft + (one_hot - soft.detach()), lse};
}

// [x − t]₊^p, x = (α − 1) s. The threshold is found by bisection; one Newton step from there, recorded, has its
// gradient.
Tensor entmax_weights(const Tensor& scores, const Tensor& keep, double alpha) {
  const double power = 1 / (alpha - 1);
  Tensor x = where(keep, scores, 0) * (alpha - 1);
  const int64_t width = scores.shape[-1];
  Tensor threshold = by_rows(where(keep, scores.detach() * (alpha - 1), -kInf), [&](const Real* row, Real* t) {
    double high = double(*std::max_element(row, row + width)), low = high - 1;
    for (int step = 0; step < 200; ++step) {
      double middle = (low + high) / 2, total = 0;
      for (int64_t j = 0; j < width; ++j) total += std::pow(std::max(0.0, double(row[j]) - middle), power);
      (total > 1 ? low : high) = middle;
    }
    std::fill_n(t, width, std::isfinite(low) ? Real(low) : Real(0));
    if (std::any_of(row, row + width, [](Real s) { return std::isnan(s); }))
      std::fill_n(t, width, std::numeric_limits<Real>::quiet_NaN());
  });
  Tensor inside = keep * where(constant(x - threshold, [](Real over) { return Real(!(over <= 0)); }), 1, 0);
  Tensor over = where(inside, x - threshold, 1);  // 1: any number above 0, left out below
  Tensor slope = sum(pow(over.detach(), power - 1) * inside * power, {-1}, true);
  Tensor excess = sum(pow(over, power) * inside, {-1}, true) - (sum(pow(over.detach(), power) * inside, {-1}, true));
  Tensor moved = where(
      inside, over - excess / where(constant(slope, [](Real v) { return v > 0 ? Real(1) : Real(0); }), slope, 1), 1);
  return pow(moved, power) * inside;
}

Tensor stick_breaking_weights(const Tensor& scores, const Tensor& keep) {
  Tensor s = where(keep, scores, 0), spent = softplus(s) * keep;
  return exp(-softplus(-s) - (reversed_cumsum(spent) - spent)) * keep;
}

// Adds z at the position that the gates count up to, interpolated between its neighbours.
Tensor with_positions(const Tensor& scores, const Tensor& keep, const Tensor& z) {
  Tensor gates = sigmoid(where(keep, scores, 0)) * keep;
  int64_t last = z.shape[-1] - 1, queries = scores.shape[2], keys = scores.shape[3];
  Tensor p = clamp(reversed_cumsum(gates), 0, double(last));
  Tensor low = constant(p, [](Real v) { return std::floor(v); });
  Tensor part = p - low;
  auto pick = [&](const Tensor& place) {
    // one batch entry and head after the other: columns differ
    const Shape& s = scores.shape;
    Tokens index;
    index.shape = {s.numel()};
    const Tensor dense = contiguous(place);
    for (int64_t e = 0; e < s.numel(); ++e)
      index.ids.push_back(int32_t(e / keys * (last + 1) + int64_t(dense.data()[e])));
    return reshape(index_select(reshape(z, {s[0] * s[1] * queries * (last + 1)}), 0, index), s);
  };
  Tensor high = constant(low, [last](Real v) { return std::min(v + 1, Real(last)); });
  return scores + where(keep, pick(low) * (1 - part) + pick(high) * part, 0);
}

// (H, H) matrix over the heads of (B, H, N, M).
Tensor mix_heads(const Tensor& matrix, const Tensor& x) {
  const Shape& s = x.shape;
  return reshape(matmul(matrix, reshape(x, {s[0], s[1], s[2] * s[3]})), s);
}

Weights weights_of(const Tensor& scores, const Tensor& keep, const Normalizer& n, const Tensor& dropped) {
  Tensor zero_lse = zeros({scores.shape[0], scores.shape[1], scores.shape[2]});
  switch (n.kind) {
    case Normalizer::Kind::softmax: return softmax_rows(scores, n.sink);
    case Normalizer::Kind::signed_softmax: {
      Tensor sign = constant(scores, [](Real s) { return Real(s > 0) - Real(s < 0); });
      auto [weights, lse] = softmax_rows(where(keep, abs(scores), -kInf), n.sink);
      return {weights * sign, lse};
    }
    case Normalizer::Kind::elementwise:
    case Normalizer::Kind::ratio: {
      Tensor w = where(keep, record(MapWeights{n.weight, {}}, {where(keep, scores, 0)}), 0);
      if (n.kind == Normalizer::Kind::elementwise) return {w, zero_lse};
      Tensor total = sum(w, {-1}, true);
      Tensor some = constant(total, [](Real t) { return Real(t != 0); });
      return {w / where(some, total, 1), squeeze(where(some, log(where(some, total, 1)), -kInf), -1)};
    }
    case Normalizer::Kind::inverted: {
      const Tensor over_queries = softmax_rows(transpose(scores, 2, 3), {}).lse;  // (B, H, M)
      return softmax_rows(where(keep, scores - unsqueeze(over_queries, 2), -kInf), {});
    }
    case Normalizer::Kind::rows: break;
  }
  const std::string name = n.rows->name();
  const std::vector<Tensor>& tables = n.rows->tables;
  if (name == "top-k") return top_k_weights(scores, int64_t(n.rows->parameter()));
  if (name == "hard") return hard_weights(scores);
  if (name == "entmax") return {entmax_weights(scores, keep, n.rows->parameter()), zero_lse};
  if (name == "stick-breaking") return {stick_breaking_weights(scores, keep), zero_lse};
  if (name == "contextual positions") return softmax_rows(with_positions(scores, keep, tables[0]), {});
  if (name == "talking heads") {
    auto [weights, lse] = softmax_rows(where(keep, mix_heads(tables[0], where(keep, scores, 0)), -kInf), {});
    return {mix_heads(tables[1], dropped ? weights * dropped : weights), lse};
  }
  throw Error(fmt::format("attention_dense: there is no dense form of the normaliser {}", name));
}

}  // namespace

AttentionResult attention_dense_with_lse(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& o,
                                         Where where_called) {
  std::vector<Tensor> detached;
  for (const Tensor& t : o.tables()) detached.push_back(t.detach());
  WeightDropout dropout = o.dropout_state.value_or(WeightDropout{});
  if (!o.dropout_state && o.dropout > 0) {
    Random random = next_random();
    dropout = {o.dropout, random.seed, uint32_t(random.stream)};
  }
  AttentionProblem p = attention_problem("attention_dense", {q.detach(), k.detach(), v.detach(), o, detached, dropout});
  const Shape shape{p.batch, p.heads, p.queries, p.keys};

  Tensor keep = keep_matrix(o.mask, shape);
  // Keys and values that no query reads may be anything; in a product, 0 · NaN would be NaN.
  const Tensor some = read_keys(keep, p.kv_heads);
  const Tensor keys = where(expand(some, k.shape), k, 0), read_values = where(expand(some, v.shape), v, 0);
  Tensor scores = matmul(q * double(p.scale), transpose(repeat_heads(keys, p.heads), -1, -2), where_called);
  if (o.relative_keys) {  // every distance for every query, then the N · M that are met
    Tensor all = matmul(o.relative_queries * double(p.scale), transpose(o.relative_keys, -1, -2));
    scores = scores + gather_columns(all, p.keys, [&](int64_t i, int64_t j) { return j - i + p.queries - 1; });
  }
  for (const auto& rule : o.score.rules()) {
    std::vector<Tensor> inputs{scores};
    inputs.insert(inputs.end(), rule->tables.begin(), rule->tables.end());
    scores = record(ModifyScores{rule, keep, {}}, std::span<const Tensor>(inputs), where_called);
  }
  scores = where(keep, scores, -kInf);
  Tensor dropped = dropout ? dropout_matrix(dropout, shape) : Tensor();
  auto [weights, lse] = weights_of(scores, keep, o.normalizer, dropped);
  bool by_itself = o.normalizer.rows && o.normalizer.rows->drops_by_itself();
  if (dropped && !by_itself) weights = weights * dropped;
  Tensor out = matmul(weights, repeat_heads(read_values, p.heads), where_called);
  if (o.relative_values) {
    int64_t reach = o.relative_values.shape[0] / 2;
    Tokens distance = entry_index(p.queries, p.keys, 0, [&](int64_t i, int64_t j) {
      return std::clamp<int64_t>(j - i - p.offset(), -reach, reach) + reach;
    });
    Tensor values = reshape(index_select(o.relative_values, 0, distance), {p.queries, p.keys, p.value_dim});
    out = out + squeeze(matmul(unsqueeze(weights, 3), values), 3);
  }
  return {out, lse};
}

Tensor attention_dense(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options,
                       Where where_called) {
  return attention_dense_with_lse(q, k, v, options, where_called).out;
}

}  // namespace rapt::inline RAPT_ABI

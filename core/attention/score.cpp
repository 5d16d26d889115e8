#include "score.h"

#include <fmt/format.h>

#include "../lanes.h"

namespace rapt::inline RAPT_ABI {

std::string Score::name() const {
  std::string all;
  for (const auto& rule : rules_) all += (all.empty() ? "" : " | ") + rule->name();
  return all.empty() ? "plain" : all;
}

Table bind_table(const Real* data, const Shape& shape, const ScoreShape& s) {
  Table t;
  t.data = data;
  t.shape = shape;
  t.size = shape.numel();
  const int64_t sizes[] = {s.batch, s.heads, s.queries, s.keys};
  Shape strides = row_major(shape);
  t.broadcasts = shape.rank <= 4;
  for (int d = 0; t.broadcasts && d < shape.rank; ++d) {
    int from = shape.rank - 1 - d;
    t.broadcasts = shape[from] == 1 || shape[from] == sizes[3 - d];
    t.strides[3 - d] = shape[from] == 1 ? 0 : strides[from];
  }
  return t;
}

void scatter_add(int64_t count, const int64_t* index, const Real* value, Real* gradient) {
  if (count == 0) return;
  int64_t first = index[0], equal = 0, rising = 0, falling = 0;
  for (int64_t i = 0; i < count; ++i) {
    equal += index[i] == first;
    rising += index[i] == first + i;
    falling += index[i] == first - i;
  }
  if (first >= 0 && equal == count) {
    gradient[first] += lane_sum(count, [=](int64_t i) { return value[i]; });
  } else if (first >= 0 && rising == count) {
    for (int64_t i = 0; i < count; ++i) gradient[first + i] += value[i];
  } else if (first >= 0 && falling == count) {
    for (int64_t i = 0; i < count; ++i) gradient[first - i] += value[i];
  } else {
    for (int64_t i = 0; i < count; ++i) {
      if (index[i] >= 0) gradient[index[i]] += value[i];  // −1: a branch left the read out
    }
  }
}

void bad_table_read(const std::string& name, const Strip& strip, std::span<const Tensor> tables) {
  std::string shapes;
  for (const Tensor& t : tables) shapes += fmt::format("{}{}", shapes.empty() ? "" : ", ", t.shape);
  throw Error(fmt::format(
      "score modifier \"{}\": a captured tensor was read outside of its shape, with the wrong number of indices, or "
      "twice in one call (batch {}, head {}, key {}, queries {} to {}; captured: {}); capture a tensor twice to read "
      "it "
      "twice",
      name, strip.batch, strip.head, strip.key, strip.row, strip.row + strip.count - 1, shapes));
}

namespace {

bool broadcasts(const Shape& shape, const ScoreShape& s) { return bind_table(nullptr, shape, s).broadcasts; }

// A modifier whose captured tensors are read at the score's own place.
struct BroadcastChecked : ScoreRule {
  void check_shape(const ScoreShape& s) const override {
    for (const Tensor& t : tables) {
      check(broadcasts(t.shape, s),
            "attention: {} has a tensor of shape {}, which does not broadcast to (B, H, N, M) = ({}, {}, {}, {})",
            name(), t.shape, s.batch, s.heads, s.queries, s.keys);
    }
  }
};

// Wraps a modifier with a check of its tables' shapes.
struct Checked final : ScoreRule {
  std::shared_ptr<const ScoreRule> rule;
  std::vector<std::vector<int64_t>> (*shapes)(const ScoreShape&);  // expected, −1 for any
  Checked(const Score& score, std::vector<std::vector<int64_t>> (*expected)(const ScoreShape&))
      : rule(score.rules().front()), shapes(expected) {
    tables = rule->tables;
  }
  std::string name() const override { return rule->name(); }
  void apply(const Strip& s, const Table* t, Real* scores) const override { rule->apply(s, t, scores); }
  void pull_back(const Strip& s, const Table* t, const Real* scores, Real* gradient) const override {
    rule->pull_back(s, t, scores, gradient);
  }
  void check_shape(const ScoreShape& s) const override {
    auto expected = shapes(s);
    for (size_t t = 0; t < tables.size(); ++t) {
      const Shape& is = tables[t].shape;
      bool fits = is.rank == int(expected[t].size());
      for (int d = 0; fits && d < is.rank; ++d) fits = expected[t][size_t(d)] < 0 || is[d] == expected[t][size_t(d)];
      check(fits, "attention: {} expected a tensor ({}), got {}", name(), fmt::join(expected[t], ", "), is);
    }
  }
};

Score checked(std::vector<std::vector<int64_t>> (*shapes)(const ScoreShape&), const Score& score) {
  return Score(std::make_shared<Checked>(score, shapes));
}

using Shapes = std::vector<std::vector<int64_t>>;

// A lambda that reads its tables at (at).
struct AtRule final : BroadcastChecked {
  std::shared_ptr<const ScoreRule> rule;
  explicit AtRule(const Score& score) : rule(score.rules().front()) { tables = rule->tables; }
  std::string name() const override { return rule->name(); }
  void apply(const Strip& s, const Table* t, Real* scores) const override { rule->apply(s, t, scores); }
  void pull_back(const Strip& s, const Table* t, const Real* scores, Real* gradient) const override {
    rule->pull_back(s, t, scores, gradient);
  }
};

struct Bias final : BroadcastChecked {
  explicit Bias(const Tensor& b) { tables = {b}; }
  std::string name() const override { return "bias"; }
  void apply(const Strip& s, const Table* t, Real* scores) const override {
    const int64_t* st = t->strides;
    const Real* b = t->data + s.batch * st[0] + s.head * st[1] + s.row * st[2] + s.key * st[3];
    for (int64_t i = 0; i < s.count; ++i) scores[i] += b[i * st[2]];
  }
  void pull_back(const Strip& s, const Table* t, const Real*, Real* gradient) const override {
    if (!t->gradient) return;
    const int64_t* st = t->strides;
    Real* to = t->gradient + s.batch * st[0] + s.head * st[1] + s.row * st[2] + s.key * st[3];
    if (st[2] == 0) {
      *to += lane_sum(s.count, [=](int64_t i) { return gradient[i]; });
    } else {
      for (int64_t i = 0; i < s.count; ++i) to[i * st[2]] += gradient[i];
    }
  }
};

struct Softcap final : ScoreRule {
  Real c;
  explicit Softcap(double cap) : c(Real(cap)) {}
  std::string name() const override { return fmt::format("softcap {}", c); }
  void apply(const Strip& s, const Table*, Real* scores) const override {
    for (int64_t i = 0; i < s.count; ++i) scores[i] = c * math::tanh(scores[i] / c);
  }
  void pull_back(const Strip& s, const Table*, const Real* scores, Real* gradient) const override {
    for (int64_t i = 0; i < s.count; ++i) {
      Real t = math::tanh(scores[i] / c);
      gradient[i] *= 1 - t * t;
    }
  }
};

// Entry (i, j) is entry (j, i) of the modifier within, one by one.
struct TransposedRule final : ScoreRule {
  std::shared_ptr<const ScoreRule> rule;
  explicit TransposedRule(std::shared_ptr<const ScoreRule> r) : rule(std::move(r)) { tables = rule->tables; }
  std::string name() const override { return "transposed " + rule->name(); }
  static Strip turned(const Strip& s, int64_t i) { return {s.batch, s.head, s.row + i, s.key, 1, s.keys, s.queries}; }
  static ScoreShape turned(const ScoreShape& s) { return {s.batch, s.heads, s.keys, s.queries}; }
  // The tables were bound to the turned problem.
  std::vector<Table> bound(const Strip& s, const Table* t) const {
    std::vector<Table> all;
    for (size_t n = 0; n < tables.size(); ++n) {
      const Shape& shape = t[n].shape;
      auto size = [&](int d) { return shape.rank >= d ? shape[-d] : 1; };
      all.push_back(bind_table(t[n].data, shape, {size(4), size(3), s.keys, s.queries}));
      all.back().gradient = t[n].gradient;
    }
    return all;
  }
  void apply(const Strip& s, const Table* t, Real* scores) const override {
    std::vector<Table> own = bound(s, t);
    for (int64_t i = 0; i < s.count; ++i) rule->apply(turned(s, i), own.data(), scores + i);
  }
  void pull_back(const Strip& s, const Table* t, const Real* scores, Real* gradient) const override {
    std::vector<Table> own = bound(s, t);
    for (int64_t i = 0; i < s.count; ++i) rule->pull_back(turned(s, i), own.data(), scores + i, gradient + i);
  }
  void check_shape(const ScoreShape& s) const override { rule->check_shape(turned(s)); }
};

// ρ² = |q|² + |k|² − 2 q·k, which rounding may take below 0.
template <class S, class A, class B>
auto squared_distance(const S& product, const A& q_squared, const B& k_squared) {
  return max(q_squared + k_squared - 2 * product, 0);
}

Shapes kernel_shapes(const ScoreShape& s) { return {{s.batch, s.heads, s.queries}, {s.batch, -1, s.keys}, {s.heads}}; }

// The kv head that the query head reads, from the number of heads that the table of keys has.
template <class Function>
Score kernel(const char* name, const Tensor& q_squared, const Tensor& k_squared, const Tensor& bandwidth, Function f) {
  check(q_squared.rank() == 3 && k_squared.rank() == 3 && k_squared.shape[1] > 0 &&
            q_squared.shape[1] % k_squared.shape[1] == 0,
        "{}: expected the squared norms of q (B, H, N) and k (B, Hkv, M), got {} and {}", name, q_squared.shape,
        k_squared.shape);
  int64_t group = q_squared.shape[1] / k_squared.shape[1];
  return checked(kernel_shapes, score_modifier(
                                    name,
                                    [f, group](auto s, At at, auto q2, auto k2, auto h) {
                                      return f(squared_distance(s, q2(at.batch, at.head, at.row),
                                                                k2(at.batch, at.head / group, at.key)),
                                               h[at.head]);
                                    },
                                    q_squared, k_squared, bandwidth));
}

}  // namespace

Score transposed(const Score& score) {
  Score all;
  for (const auto& rule : score.rules()) all = all | Score(std::make_shared<TransposedRule>(rule));
  return all;
}

Score softcap(double c) {
  check(c > 0 && std::isfinite(c), "softcap: the cap must be above 0, got {}", c);
  return Score(std::make_shared<Softcap>(c));
}

Score softcap(const Tensor& c) {
  return Score(std::make_shared<AtRule>(score_modifier(
      "softcap",
      [](auto s, At at, auto cap) {
        auto value = cap(at);
        return value * tanh(s / value);
      },
      c)));
}

Score temperature(const Tensor& t) {
  return Score(std::make_shared<AtRule>(score_modifier(
      "temperature", [](auto s, At at, auto factor) { return s * factor(at); }, t)));
}

Score bias(const Tensor& b) {
  check(bool(b), "bias: expected a tensor that broadcasts to (B, H, N, M), got none");
  return Score(std::make_shared<Bias>(b));
}

Score alibi(const Tensor& slopes) {
  return checked(
      [](const ScoreShape& s) { return Shapes{{s.heads}}; },
      score_modifier(
          "alibi", [](auto s, At at, auto slope) { return s - slope[at.head] * Real(std::abs(at.query - at.key)); },
          slopes));
}

Tensor alibi_slopes(int64_t heads) {
  check(heads > 0, "alibi_slopes: the number of heads must be at least 1, got {}", heads);
  int64_t power = 1;
  while (2 * power <= heads) power *= 2;
  Tensor slopes = empty({heads});
  for (int64_t h = 0; h < heads; ++h) {
    // beyond the power of two: every other slope of twice as many heads
    double exponent =
        h < power ? -8.0 * double(h + 1) / double(power) : -4.0 * double(2 * (h - power) + 1) / double(power);
    slopes.set({h}, Real(std::exp2(exponent)));
  }
  return slopes;
}

int64_t t5_bucket(int64_t distance, int64_t buckets, int64_t reach, bool bidirectional) {
  int64_t first = 0, far = std::max<int64_t>(0, -distance);
  if (bidirectional) {
    buckets /= 2;
    if (distance > 0) first = buckets;
    far = std::abs(distance);
  }
  int64_t exact = buckets / 2;
  if (far < exact) return first + far;
  double part = std::log(double(far) / double(exact)) / std::log(double(reach) / double(exact));
  return first + std::min(buckets - 1, exact + int64_t(double(buckets - exact) * part));
}

Score t5_bias(const Tensor& table, int64_t reach, bool bidirectional) {
  check(table.rank() == 2, "t5_bias: expected a table (H, buckets), got {}", table.shape);
  int64_t buckets = table.shape[1];
  check(buckets >= (bidirectional ? 4 : 2) && buckets % (bidirectional ? 2 : 1) == 0,
        "t5_bias: {} buckets are too few or odd", buckets);
  check(reach > buckets / (bidirectional ? 4 : 2), "t5_bias: the reach {} must be above the {} exact buckets", reach,
        buckets / (bidirectional ? 4 : 2));
  // all distances from the reach on share a bucket
  std::vector<int32_t> of(size_t(2 * reach + 1));
  for (int64_t d = -reach; d <= reach; ++d)
    of[size_t(d + reach)] = int32_t(t5_bucket(d, buckets, reach, bidirectional));
  auto lookup = std::make_shared<const std::vector<int32_t>>(std::move(of));
  return checked(
      [](const ScoreShape& s) {
        return Shapes{{s.heads, -1}};
      },
      score_modifier(
          "t5",
          [lookup, reach](auto s, At at, auto t) {
            int64_t distance = std::clamp<int64_t>(at.key - at.query, -reach, reach) + reach;
            return s + t(at.head, (*lookup)[size_t(distance)]);
          },
          table));
}

Score relative_bias(const Tensor& table) {
  return checked(
      [](const ScoreShape& s) {
        return Shapes{{s.heads, s.queries + s.keys - 1}};
      },
      score_modifier(
          "distance", [](auto s, At at, auto t) { return s + t(at.head, at.key - at.row + at.queries - 1); }, table));
}

Score forget_gate(const Tensor& cumulative) {
  return checked(
      [](const ScoreShape& s) {
        return Shapes{{s.batch, s.heads, s.keys}, {s.batch, s.heads, s.keys}};
      },
      score_modifier(
          "forget",
          [](auto s, At at, auto c_query, auto c_key) {
            return s + c_query(at.batch, at.head, std::max<int64_t>(at.query, 0)) - c_key(at.batch, at.head, at.key);
          },
          cumulative, cumulative));
}

Score gaussian_kernel(const Tensor& q_squared, const Tensor& k_squared, const Tensor& bandwidth) {
  return kernel("gaussian kernel", q_squared, k_squared, bandwidth, [](auto r2, auto h) { return -r2 / (2 * h * h); });
}

Score laplace_kernel(const Tensor& q_squared, const Tensor& k_squared, const Tensor& bandwidth) {
  return kernel("laplace kernel", q_squared, k_squared, bandwidth, [](auto r2, auto h) { return -sqrt(r2) / h; });
}

Score epanechnikov_kernel(const Tensor& q_squared, const Tensor& k_squared, const Tensor& bandwidth) {
  return kernel("epanechnikov kernel", q_squared, k_squared, bandwidth,
                [](auto r2, auto h) { return 1 - r2 / (h * h); });
}

}  // namespace rapt::inline RAPT_ABI

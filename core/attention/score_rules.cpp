#include <fmt/format.h>

#include <array>
#include <cmath>

#include "../lanes.h"
#include "score.h"

// The modifiers that come with rapt. Most could be lambdas; derivatives in closed form make them as cheap as they can
// be.
namespace rapt::inline RAPT_ABI {

namespace {

// A modifier whose captured tensors are read at the score's own place.
struct BroadcastChecked : ScoreRule {
  void check_shape(const ScoreShape& s) const override {
    for (const Tensor& t : tables) {
      check(bind_table(nullptr, t.shape, s).broadcasts,
            "attention: {} has a tensor of shape {}, which does not broadcast to (B, H, N, M) = ({}, {}, {}, {})",
            name(), t.shape, s.batch, s.heads, s.queries, s.keys);
    }
  }
  bool reads_in_place() const override { return true; }
};

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

// One whose captured tensors have shapes of their own.
struct ShapeChecked : ScoreRule {
  std::string title;
  explicit ShapeChecked(const char* n) : title(n) {}
  std::string name() const override { return title; }
  /// −1 for any size
  virtual std::vector<std::vector<int64_t>> shapes(const ScoreShape& s) const = 0;
  void check_shape(const ScoreShape& s) const override {
    auto expected = shapes(s);
    for (size_t t = 0; t < tables.size(); ++t) {
      const Shape& is = tables[t].shape;
      bool fits = is.rank == int(expected[t].size());
      for (int d = 0; fits && d < is.rank; ++d) fits = expected[t][size_t(d)] < 0 || is[d] == expected[t][size_t(d)];
      if (fits) continue;
      std::string sizes;
      for (int64_t size : expected[t])
        sizes += fmt::format("{}{}", sizes.empty() ? "" : ", ", size < 0 ? "any" : fmt::format("{}", size));
      throw Error(fmt::format("attention: {} expected its tensor {} of {} to be ({}), got {}", name(), t + 1,
                              tables.size(), sizes, is));
    }
  }
};
using Shapes = std::vector<std::vector<int64_t>>;

Real sum(int64_t n, const Real* x) {
  return lane_sum(n, [=](int64_t i) { return x[i]; });
}

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
      Real t = math::tanh(scores[i] / c), slope = gradient[i] * (1 - t * t);
      gradient[i] = gradient[i] == 0 ? 0 : slope;  // masked: the score may be NaN
    }
  }
};

struct AlibiRule final : ShapeChecked {
  explicit AlibiRule(const Tensor& slopes) : ShapeChecked("alibi") { tables = {slopes}; }
  Shapes shapes(const ScoreShape& s) const override { return {{s.heads}}; }
  static Real distance(const Strip& s, int64_t i) {
    return std::fabs(Real(int32_t(s.at(0).query - s.key) + int32_t(i)));
  }
  void apply(const Strip& s, const Table* t, Real* scores) const override {
    const Real slope = t->data[s.head];
    for (int64_t i = 0; i < s.count; ++i) scores[i] -= slope * distance(s, i);
  }
  void pull_back(const Strip& s, const Table* t, const Real*, Real* gradient) const override {
    if (t->gradient) t->gradient[s.head] -= lane_sum(s.count, [&](int64_t i) { return gradient[i] * distance(s, i); });
  }
};

struct T5Rule final : ShapeChecked {
  int64_t reach;
  std::vector<int32_t> bucket;  // of the distances −reach … reach; those further off share the outermost
  T5Rule(const Tensor& table, int64_t r, bool bidirectional) : ShapeChecked("t5"), reach(r), bucket(size_t(2 * r + 1)) {
    tables = {table};
    for (int64_t d = -r; d <= r; ++d) bucket[size_t(d + r)] = int32_t(t5_bucket(d, table.shape[1], r, bidirectional));
  }
  Shapes shapes(const ScoreShape& s) const override { return {{s.heads, -1}}; }
  int32_t at(int64_t distance) const { return bucket[size_t(std::clamp(distance, -reach, reach) + reach)]; }
  // The one bucket of a strip that is out of reach, or −1.
  int32_t common(int64_t first, int64_t last) const { return last >= reach || first <= -reach ? at(first) : -1; }
  void apply(const Strip& s, const Table* t, Real* scores) const override {
    const Real* row = t->data + s.head * t->shape[1];
    const int64_t first = s.key - s.at(0).query, last = first - s.count + 1;
    if (int32_t b = common(first, last); b >= 0) {
      for (int64_t i = 0; i < s.count; ++i) scores[i] += row[b];
    } else {
      for (int64_t i = 0; i < s.count; ++i) scores[i] += row[at(first - i)];
    }
  }
  void pull_back(const Strip& s, const Table* t, const Real*, Real* gradient) const override {
    if (!t->gradient) return;
    Real* row = t->gradient + s.head * t->shape[1];
    const int64_t first = s.key - s.at(0).query, last = first - s.count + 1;
    if (int32_t b = common(first, last); b >= 0) {
      row[b] += sum(s.count, gradient);
    } else {
      for (int64_t i = 0; i < s.count; ++i) row[at(first - i)] += gradient[i];
    }
  }
};

struct RelativeBias final : ShapeChecked {
  explicit RelativeBias(const Tensor& table) : ShapeChecked("distance") { tables = {table}; }
  Shapes shapes(const ScoreShape& s) const override {
    return {{s.heads, std::max<int64_t>(0, s.queries + s.keys - 1)}};
  }
  static int64_t first(const Strip& s, const Table* t) { return s.head * t->shape[1] + s.key - s.row + s.queries - 1; }
  void apply(const Strip& s, const Table* t, Real* scores) const override {
    const Real* from = t->data + first(s, t);
    for (int64_t i = 0; i < s.count; ++i) scores[i] += from[-i];
  }
  void pull_back(const Strip& s, const Table* t, const Real*, Real* gradient) const override {
    if (!t->gradient) return;
    Real* to = t->gradient + first(s, t);
    for (int64_t i = 0; i < s.count; ++i) to[-i] += gradient[i];
  }
};

// s + c[query] − c[key], with both c from the same table (B, H, M); queries before the first key read c[0]. Sums of
// many gates differ by less than their rounding; a second table has the rest of each.
struct ForgetGate final : ShapeChecked {
  ForgetGate(const Tensor& cumulative, const Tensor& rest) : ShapeChecked("forget") {
    tables = {cumulative};
    if (rest) tables.push_back(rest);
  }
  Shapes shapes(const ScoreShape& s) const override { return Shapes(tables.size(), {s.batch, s.heads, s.keys}); }
  void apply(const Strip& s, const Table* t, Real* scores) const override {
    const int64_t query = s.at(0).query;
    for (size_t part = 0; part < tables.size(); ++part) {
      const Real* c = t[part].data + (s.batch * t->shape[1] + s.head) * s.keys;
      for (int64_t i = 0; i < s.count; ++i) scores[i] += c[std::max<int64_t>(query + i, 0)] - c[s.key];
    }
  }
  void pull_back(const Strip& s, const Table* t, const Real*, Real* gradient) const override {
    if (!t->gradient) return;
    Real* c = t->gradient + (s.batch * t->shape[1] + s.head) * s.keys;
    const int64_t query = s.at(0).query;
    for (int64_t i = 0; i < s.count; ++i) c[std::max<int64_t>(query + i, 0)] += gradient[i];
    c[s.key] -= sum(s.count, gradient);
  }
};

// A kernel of ρ² = |q|² + |k|² − 2 q·k, which rounding may take below 0; then it is 0, with derivative 0.
// Form gives the value, and its derivatives by ρ² and by the bandwidth h.
template <class Form>
struct Kernel final : ShapeChecked {
  Kernel(const char* name, const Tensor& q_squared, const Tensor& k_squared, const Tensor& bandwidth)
      : ShapeChecked(name) {
    check(q_squared.rank() == 3 && k_squared.rank() == 3 && k_squared.shape[1] > 0 &&
              q_squared.shape[1] % k_squared.shape[1] == 0,
          "{}: expected the squared norms of q (B, H, N) and k (B, Hkv, M), got {} and {}", name, q_squared.shape,
          k_squared.shape);
    tables = {q_squared, k_squared, bandwidth};
  }
  Shapes shapes(const ScoreShape& s) const override {
    return {{s.batch, s.heads, s.queries}, {s.batch, -1, s.keys}, {s.heads}};
  }
  // Where this strip's |q|² start and its |k|² stands.
  static int64_t query(const Strip& s, const Table* t) {
    return (s.batch * t[0].shape[1] + s.head) * s.queries + s.row;
  }
  static int64_t key(const Strip& s, const Table* t) {
    const int64_t kv_heads = t[1].shape[1];  // those of the group share one
    return (s.batch * kv_heads + s.head / (t[0].shape[1] / kv_heads)) * s.keys + s.key;
  }
  void apply(const Strip& s, const Table* t, Real* scores) const override {
    const Real* q2 = t[0].data + query(s, t);
    const Real k2 = t[1].data[key(s, t)], h = t[2].data[s.head];
    for (int64_t i = 0; i < s.count; ++i) {
      Real r2 = q2[i] + k2 - 2 * scores[i];
      scores[i] = Form::value(r2 < 0 ? 0 : r2, h);
    }
  }
  void pull_back(const Strip& s, const Table* t, const Real* scores, Real* gradient) const override {
    const Real* q2 = t[0].data + query(s, t);
    const Real k2 = t[1].data[key(s, t)], h = t[2].data[s.head];
    if (t[2].gradient) {
      t[2].gradient[s.head] += lane_sum(s.count, [=](int64_t i) {
        Real r2 = q2[i] + k2 - 2 * scores[i];
        return gradient[i] == 0 ? Real(0) : gradient[i] * Form::by_h(r2 < 0 ? 0 : r2, h);
      });
    }
    for (int64_t i = 0; i < s.count; ++i) {
      Real r2 = q2[i] + k2 - 2 * scores[i];
      Real above = std::max(r2, std::numeric_limits<Real>::min());  // the slope is computed where it isn't used, too
      gradient[i] = r2 > 0 && gradient[i] != 0 ? gradient[i] * Form::by_r2(above, h) : 0;
    }
    if (t[0].gradient) {
      Real* dq2 = t[0].gradient + query(s, t);
      for (int64_t i = 0; i < s.count; ++i) dq2[i] += gradient[i];
    }
    if (t[1].gradient) t[1].gradient[key(s, t)] += sum(s.count, gradient);
    for (int64_t i = 0; i < s.count; ++i) gradient[i] *= -2;
  }
};

struct Gaussian {  // −ρ² / 2h²
  static Real value(Real r2, Real h) { return -r2 / (2 * h * h); }
  static Real by_r2(Real, Real h) { return -1 / (2 * h * h); }
  static Real by_h(Real r2, Real h) { return r2 / (h * h * h); }
};
struct Laplace {  // −ρ / h
  static Real value(Real r2, Real h) { return -std::sqrt(r2) / h; }
  static Real by_r2(Real r2, Real h) { return -1 / (2 * std::sqrt(r2) * h); }
  static Real by_h(Real r2, Real h) { return std::sqrt(r2) / (h * h); }
};
struct Epanechnikov {  // 1 − ρ² / h²
  static Real value(Real r2, Real h) { return 1 - r2 / (h * h); }
  static Real by_r2(Real, Real h) { return -1 / (h * h); }
  static Real by_h(Real r2, Real h) { return 2 * r2 / (h * h * h); }
};

}  // namespace

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

Score alibi(const Tensor& slopes) { return Score(std::make_shared<AlibiRule>(slopes)); }

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
        "t5_bias: the table {} has too few buckets, or an odd number", table.shape);
  check(reach > buckets / (bidirectional ? 4 : 2), "t5_bias: the reach {} must be above the {} exact buckets", reach,
        buckets / (bidirectional ? 4 : 2));
  return Score(std::make_shared<T5Rule>(table, reach, bidirectional));
}

Score relative_bias(const Tensor& table) { return Score(std::make_shared<RelativeBias>(table)); }

Score forget_gate(const Tensor& cumulative, const Tensor& rest) {
  return Score(std::make_shared<ForgetGate>(cumulative, rest));
}

Score gaussian_kernel(const Tensor& q_squared, const Tensor& k_squared, const Tensor& bandwidth) {
  return Score(std::make_shared<Kernel<Gaussian>>("gaussian kernel", q_squared, k_squared, bandwidth));
}

Score laplace_kernel(const Tensor& q_squared, const Tensor& k_squared, const Tensor& bandwidth) {
  return Score(std::make_shared<Kernel<Laplace>>("laplace kernel", q_squared, k_squared, bandwidth));
}

Score epanechnikov_kernel(const Tensor& q_squared, const Tensor& k_squared, const Tensor& bandwidth) {
  return Score(std::make_shared<Kernel<Epanechnikov>>("epanechnikov kernel", q_squared, k_squared, bandwidth));
}

}  // namespace rapt::inline RAPT_ABI

#include <algorithm>
#include <limits>

#include "../check.h"
#include "../lanes.h"
#include "normalizer.h"

/// The normalisers that need whole rows. Loops run over the keys outside and over the queries of a block, lane by lane,
/// inside.
namespace rapt::inline RAPT_ABI {

namespace {

using RowValues = Real[kTile];

// Scores of one head (width, kTile) to e^(s − lse) in place.
void softmax_rows(int64_t width, Real* scores, Real* lse) {
  alignas(64) RowValues high, sum;
  for (int64_t i = 0; i < kTile; ++i) {
    high[i] = -kInf;
    sum[i] = 0;
  }
  for (int64_t j = 0; j < width; ++j) {
    for (int64_t i = 0; i < kTile; ++i) high[i] = std::max(high[i], scores[j * kTile + i]);
  }
  for (int64_t i = 0; i < kTile; ++i) high[i] = high[i] == -kInf ? 0 : high[i];
  for (int64_t j = 0; j < width; ++j) {
    Real* strip = scores + j * kTile;
    for (int64_t i = 0; i < kTile; ++i) {
      strip[i] = math::exp(strip[i] - high[i]);
      sum[i] += strip[i];
    }
  }
  for (int64_t i = 0; i < kTile; ++i) {
    lse[i] = sum[i] == 0 ? -kInf : high[i] + math::log_positive(sum[i]);
    sum[i] = math::inverse_or_zero(sum[i]);
  }
  for (int64_t j = 0; j < width; ++j) {
    for (int64_t i = 0; i < kTile; ++i) {
      Real weight = scores[j * kTile + i], normalized = weight * sum[i];
      scores[j * kTile + i] = weight == 0 ? 0 : normalized;  // masked, also in a row with NaN
    }
  }
}

// gradient <- P (gradient − Σ P gradient + dlse), rows without keys 0
void softmax_backward(int64_t width, const Real* weights, const Real* dlse, Real* gradient) {
  alignas(64) RowValues delta;
  for (int64_t i = 0; i < kTile; ++i) delta[i] = dlse ? -dlse[i] : 0;
  for (int64_t j = 0; j < width; ++j) {
    const Real *w = weights + j * kTile, *g = gradient + j * kTile;
    for (int64_t i = 0; i < kTile; ++i) {
      Real weight = w[i], slope = g[i];  // read before the choice: see strip_gradients in tiled_backward.cpp
      delta[i] += weight == 0 ? 0 : weight * slope;
    }
  }
  for (int64_t j = 0; j < width; ++j) {
    const Real* w = weights + j * kTile;
    Real* g = gradient + j * kTile;
    for (int64_t i = 0; i < kTile; ++i) {
      Real weight = w[i], above_mean = g[i] - delta[i];
      g[i] = weight == 0 ? 0 : weight * above_mean;
    }
  }
}

struct TopK final : RowRule {
  int64_t k;
  explicit TopK(int64_t count) : k(count) {}
  std::string name() const override { return "top-k"; }
  double parameter() const override { return double(k); }

  void drop_others(const RowBlock& block, Real* scores) const {  // NOLINT(readability-non-const-parameter)
    std::vector<Real> row;
    for (int64_t i = 0; i < block.count; ++i) {
      row.clear();
      for (int64_t j = 0; j < block.width; ++j) {
        if (Real s = scores[j * kTile + i]; s > -kInf) row.push_back(s);
      }
      if (int64_t(row.size()) <= k) continue;
      std::nth_element(row.begin(), row.begin() + (k - 1), row.end(), std::greater<>());
      Real threshold = row[size_t(k - 1)];
      for (int64_t j = 0; j < block.width; ++j) {
        Real& s = scores[j * kTile + i];
        if (s < threshold) s = -kInf;
      }
    }
  }
  void forward(const RowBlock& block, const Table*, Real* scores, Real* lse) const override {
    drop_others(block, scores);
    softmax_rows(block.width, scores, lse);
  }
  void backward(const RowBlock& block, const Table*, Real* scores, Real* gradient, const Real* dlse) const override {
    alignas(64) RowValues lse;
    forward(block, nullptr, scores, lse);
    softmax_backward(block.width, scores, dlse, gradient);
  }
};

struct Hard final : RowRule {
  std::string name() const override { return "hard"; }

  struct Choice {
    int64_t at = -1;
    Real weight = 1;  // NaN if a score of the row is
  };
  static void largest(const RowBlock& block, const Real* scores, Choice* choices) {
    for (int64_t i = 0; i < block.count; ++i) {
      Choice& c = choices[i];
      Real high = -kInf;
      for (int64_t j = 0; j < block.width; ++j) {
        Real s = scores[j * kTile + i];
        if (!(s > high) && !std::isnan(s)) continue;
        high = s;
        c = {j, std::isnan(s) ? s : Real(1)};
      }
    }
  }
  static void one_hot(const RowBlock& block, const Choice* choices, Real* weights) {
    std::fill_n(weights, block.width * kTile, Real(0));
    for (int64_t i = 0; i < block.count; ++i) {
      if (choices[i].at >= 0) weights[choices[i].at * kTile + i] = choices[i].weight;
    }
  }
  void forward(const RowBlock& block, const Table*, Real* scores, Real* lse) const override {
    Choice at[kTile];
    largest(block, scores, at);
    softmax_rows(block.width, scores, lse);
    one_hot(block, at, scores);
  }
  void backward(const RowBlock& block, const Table*, Real* scores, Real* gradient, const Real* dlse) const override {
    Choice at[kTile];
    alignas(64) RowValues lse;
    largest(block, scores, at);
    softmax_rows(block.width, scores, lse);
    softmax_backward(block.width, scores, dlse, gradient);
    one_hot(block, at, scores);
  }
};

struct Entmax final : RowRule {
  double alpha;
  explicit Entmax(double a) : alpha(a) {}
  std::string name() const override { return "entmax"; }
  double parameter() const override { return alpha; }

  // Newton's method from the left of the root of Σ [x − t]₊^(1/(α−1)) − 1, which is convex and falls: it never
  // overshoots.
  void weights(const RowBlock& block, Real* scores) const {
    const double power = 1 / (alpha - 1);
    std::vector<double> row(static_cast<size_t>(block.width));
    for (int64_t i = 0; i < block.count; ++i) {
      double high = -std::numeric_limits<double>::infinity();
      for (int64_t j = 0; j < block.width; ++j) {
        row[size_t(j)] = double(scores[j * kTile + i]) * (alpha - 1);
        if (row[size_t(j)] > high || std::isnan(row[size_t(j)])) high = row[size_t(j)];  // NaN stays
      }
      double t = high == -std::numeric_limits<double>::infinity() ? 0 : high - 1;  // −∞ − (−∞) is never formed
      for (int step = 0; step < 100 && std::isfinite(high); ++step) {
        double value = -1, slope = 0;
        for (double x : row) {
          if (x <= t) continue;
          double p = std::pow(x - t, power - 1);
          value += p * (x - t);
          slope += power * p;
        }
        double next = t + value / slope;
        if (!(next > t)) break;
        t = next;
      }
      for (int64_t j = 0; j < block.width; ++j) {
        if (scores[j * kTile + i] == -kInf) {
          scores[j * kTile + i] = 0;
          continue;
        }
        double over = row[size_t(j)] - t;
        scores[j * kTile + i] = std::isnan(high) ? Real(high) : over > 0 ? Real(std::pow(over, power)) : Real(0);
      }
    }
  }
  void forward(const RowBlock& block, const Table*, Real* scores, Real* lse) const override {
    weights(block, scores);
    std::fill_n(lse, kTile, Real(0));
  }
  void backward(const RowBlock& block, const Table*, Real* scores, Real* gradient, const Real*) const override {
    weights(block, scores);
    for (int64_t i = 0; i < block.count; ++i) {
      Real sum = 0, weighted = 0;
      auto slope = [&](int64_t j) {
        Real p = scores[j * kTile + i];
        return p == 0 ? Real(0) : Real(std::pow(p, Real(2 - alpha)));
      };
      for (int64_t j = 0; j < block.width; ++j) {
        Real w = slope(j);
        sum += w;
        weighted += w == 0 ? 0 : w * gradient[j * kTile + i];
      }
      const Real mean = weighted * math::inverse_or_zero(sum);
      for (int64_t j = 0; j < block.width; ++j) {
        Real w = slope(j);
        Real& g = gradient[j * kTile + i];
        g = w == 0 ? 0 : w * (g - mean);
      }
    }
  }
};

struct StickBreaking final : RowRule {
  std::string name() const override { return "stick-breaking"; }

  void forward(const RowBlock& block, const Table*, Real* scores, Real* lse) const override {
    alignas(64) RowValues left;  // −log of what is left of the stick
    for (int64_t i = 0; i < kTile; ++i) left[i] = lse[i] = 0;
    for (int64_t j = block.width; j-- > 0;) {
      Real* strip = scores + j * kTile;
      for (int64_t i = 0; i < kTile; ++i) {
        bool masked = strip[i] == -kInf;
        Real s = masked ? 0 : strip[i];
        strip[i] = masked ? 0 : math::exp(-math::softplus(-s) - left[i]);
        left[i] += masked ? 0 : math::softplus(s);
      }
    }
  }
  void backward(const RowBlock& block, const Table*, Real* scores, Real* gradient, const Real*) const override {
    std::vector<Real> given(scores, scores + block.width * kTile);
    alignas(64) RowValues unused, before;  // Σ of P dP of the keys further away
    forward(block, nullptr, scores, unused);
    for (int64_t i = 0; i < kTile; ++i) before[i] = 0;
    for (int64_t j = 0; j < block.width; ++j) {
      const Real *w = scores + j * kTile, *s = given.data() + j * kTile;
      Real* g = gradient + j * kTile;
      for (int64_t i = 0; i < kTile; ++i) {
        bool masked = s[i] == -kInf;
        Real part = w[i] == 0 ? 0 : w[i] * g[i], sigma = math::sigmoid(s[i]);
        g[i] = masked ? 0 : part * (1 - sigma) - sigma * before[i];
        before[i] += part;
      }
    }
  }
};

struct ContextualPositions final : RowRule {
  explicit ContextualPositions(const Tensor& z) { tables = {z}; }
  std::string name() const override { return "contextual positions"; }
  void check_shape(const ScoreShape& s) const override {
    const Shape& z = tables[0].shape;
    check(z.rank == 4 && z[0] == s.batch && z[1] == s.heads && z[2] == s.queries && z[3] >= 2,
          "contextual_positions: expected z (B, H, N, P) = ({}, {}, {}, at least 2), got {}", s.batch, s.heads,
          s.queries, z);
  }

  struct Place {
    int64_t low, high;
    Real part;
    bool clamped;
  };
  static Place place(Real p, int64_t positions) {
    bool clamped = p >= Real(positions - 1);
    if (clamped) p = Real(positions - 1);
    auto low = std::isnan(p) ? 0 : int64_t(p);
    return {low, std::min(low + 1, positions - 1), p - Real(low), clamped};
  }
  const Real* row(const RowBlock& block, const Table& z, int64_t i) const { return z.data + row_at(block, z, i); }
  static int64_t row_at(const RowBlock& block, const Table& z, int64_t i) {
    return ((block.batch * block.all_heads + block.head) * block.queries + block.row + i) * z.shape[3];
  }

  // Scores with their positions' values added, and the positions.
  // NOLINTNEXTLINE(readability-non-const-parameter)
  void add_positions(const RowBlock& block, const Table& z, Real* scores, std::vector<Real>* positions) const {
    for (int64_t i = 0; i < block.count; ++i) {
      const Real* values = row(block, z, i);
      Real p = 0;
      for (int64_t j = block.width; j-- > 0;) {
        Real& s = scores[j * kTile + i];
        if (s == -kInf) continue;
        p += math::sigmoid(s);
        Place at = place(p, z.shape[3]);
        if (positions) (*positions)[size_t(j * kTile + i)] = p;
        s += values[at.low] + at.part * (values[at.high] - values[at.low]);
      }
    }
  }
  void forward(const RowBlock& block, const Table* t, Real* scores, Real* lse) const override {
    add_positions(block, t[0], scores, nullptr);
    softmax_rows(block.width, scores, lse);
  }
  void backward(const RowBlock& block, const Table* t, Real* scores, Real* gradient, const Real* dlse) const override {
    const Table& z = t[0];
    alignas(64) RowValues lse;
    std::vector<Real> given(scores, scores + block.width * kTile), positions(given.size());
    add_positions(block, z, scores, &positions);
    softmax_rows(block.width, scores, lse);
    softmax_backward(block.width, scores, dlse, gradient);
    for (int64_t i = 0; i < block.count; ++i) {
      const Real* values = row(block, z, i);
      Real* to = z.gradient ? z.gradient + row_at(block, z, i) : nullptr;
      Real before = 0;  // Σ of the gradients of the positions of keys at and before this one
      for (int64_t j = 0; j < block.width; ++j) {
        Real s = given[size_t(j * kTile + i)], &g = gradient[j * kTile + i];
        if (s == -kInf) continue;
        Place at = place(positions[size_t(j * kTile + i)], z.shape[3]);
        if (!at.clamped) before += g * (values[at.high] - values[at.low]);
        if (to) {
          to[at.low] += g * (1 - at.part);
          to[at.high] += g * at.part;
        }
        Real gate = math::sigmoid(s);
        g += before * gate * (1 - gate);
      }
    }
  }
};

struct TalkingHeads final : RowRule {
  TalkingHeads(const Tensor& before, const Tensor& after) { tables = {before, after}; }
  std::string name() const override { return "talking heads"; }
  bool all_heads() const override { return true; }
  bool drops_by_itself() const override { return true; }
  void check_shape(const ScoreShape& s) const override {
    for (const Tensor& t : tables)
      check(t.shape == Shape{s.heads, s.heads}, "talking_heads: expected (H, H) = ({}, {}), got {}", s.heads, s.heads,
            t.shape);
  }

  // to[h] = Σ_g mix[h, g] from[g] (transposed: mix[g, h]); masked entries of `from` count as 0.
  static void mix(const RowBlock& block, const Real* matrix, bool transposed, const Real* from, Real* to) {
    const int64_t heads = block.heads, size = block.width * kTile;
    for (int64_t h = 0; h < heads; ++h) {
      Real* out = to + h * size;
      std::fill_n(out, size, Real(0));
      for (int64_t g = 0; g < heads; ++g) {
        Real factor = transposed ? matrix[g * heads + h] : matrix[h * heads + g];
        const Real* in = from + g * size;
        for (int64_t e = 0; e < size; ++e) out[e] += in[e] == -kInf ? 0 : factor * in[e];
      }
    }
  }
  // matrix[h, g] += Σ a_h b_g
  static void mix_gradient(const RowBlock& block, const Real* a, const Real* b, Real* matrix) {
    const int64_t heads = block.heads;
    for (int64_t h = 0; matrix && h < heads; ++h) {
      for (int64_t g = 0; g < heads; ++g) {
        Real sum = 0;
        for (int64_t j = 0; j < block.width; ++j) {
          const Real *x = a + block.at(h, j), *y = b + block.at(g, j);
          sum += lane_sum(block.count, [=](int64_t i) {
            Real right = y[i];
            return x[i] * (right == -kInf ? 0 : right);
          });
        }
        matrix[h * heads + g] += sum;
      }
    }
  }
  // mixed scores -> softmax weights, masked where the head's own score is
  static void weights(const RowBlock& block, const Table& before, const Real* scores, Real* to, Real* lse) {
    mix(block, before.data, false, scores, to);
    for (int64_t e = 0; e < block.heads * block.width * kTile; ++e) to[e] = scores[e] == -kInf ? -kInf : to[e];
    for (int64_t h = 0; h < block.heads; ++h) softmax_rows(block.width, to + block.at(h, 0), lse + h * kTile);
  }
  void forward(const RowBlock& block, const Table* t, Real* scores, Real* lse) const override {
    std::vector<Real> p(static_cast<size_t>(block.heads * block.width * kTile));
    weights(block, t[0], scores, p.data(), lse);
    for (int64_t h = 0; h < block.heads; ++h) block.drop(h, p.data() + block.at(h, 0));
    mix(block, t[1].data, false, p.data(), scores);
  }
  void backward(const RowBlock& block, const Table* t, Real* scores, Real* gradient, const Real* dlse) const override {
    const size_t size = size_t(block.heads * block.width * kTile);
    std::vector<Real> p(size), dropped, dp(size), lse(size_t(block.heads * kTile));
    weights(block, t[0], scores, p.data(), lse.data());
    dropped = p;
    for (int64_t h = 0; h < block.heads; ++h) block.drop(h, dropped.data() + block.at(h, 0));
    const size_t one = size / size_t(block.heads);
    for (size_t e = 0; e < one; ++e) {  // a value that no head reads gives no gradient, not 0 · NaN
      bool read = false;
      for (size_t at = e; at < size; at += one) read |= scores[at] != -kInf;
      for (size_t at = e; at < size; at += one) gradient[at] = read ? gradient[at] : 0;
    }
    mix_gradient(block, gradient, dropped.data(), t[1].gradient);
    mix(block, t[1].data, true, gradient, dp.data());
    for (int64_t h = 0; h < block.heads; ++h) {
      block.drop(h, dp.data() + block.at(h, 0));
      softmax_backward(block.width, p.data() + block.at(h, 0), dlse ? dlse + h * kTile : nullptr,
                       dp.data() + block.at(h, 0));
    }
    mix_gradient(block, dp.data(), scores, t[0].gradient);
    std::vector<uint8_t> masked(size);
    for (size_t e = 0; e < size; ++e) masked[e] = scores[e] == -kInf;
    mix(block, t[0].data, true, dp.data(), gradient);
    for (size_t e = 0; e < size; ++e) gradient[e] = masked[e] ? 0 : gradient[e];
    mix(block, t[1].data, false, dropped.data(), scores);
  }
};

template <class Rule, class... Args>
Normalizer rows(Args&&... args) {
  return {.kind = Normalizer::Kind::rows, .rows = std::make_shared<Rule>(std::forward<Args>(args)...)};
}

}  // namespace

Normalizer top_k(int64_t k) {
  check(k >= 1, "top_k: k must be at least 1, got {}", k);
  return rows<TopK>(k);
}
Normalizer hard_attention() { return rows<Hard>(); }
Normalizer entmax(double alpha) {
  check(alpha > 1 && alpha <= 2, "entmax: alpha must be in (1, 2], got {}; 1 is softmax", alpha);
  return rows<Entmax>(alpha);
}
Normalizer stick_breaking() { return rows<StickBreaking>(); }
Normalizer contextual_positions(const Tensor& z) { return rows<ContextualPositions>(z); }
Normalizer talking_heads(const Tensor& before, const Tensor& after) { return rows<TalkingHeads>(before, after); }

}  // namespace rapt::inline RAPT_ABI

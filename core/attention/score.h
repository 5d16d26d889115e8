#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../tensor.h"
#include "dual.h"
#include "mask.h"

/// Score modifiers: functions of one score, its position and captured tensors, applied inside the tiles, in the order
/// written: softcap(30) | relative_bias(table). Captured tensors of any shape receive gradients.
namespace rapt::inline RAPT_ABI {

/// A captured tensor as the kernel holds it: dense, with room for its gradient where one is wanted.
struct Table {
  const Real* data = nullptr;
  Real* gradient = nullptr;  ///< null: not wanted
  Shape shape;
  int64_t size = 0;
  int64_t strides[4] = {};  ///< of (B, H, N, M) when it broadcasts to that
  bool broadcasts = false;
  bool in_place = false, told = false;     ///< its rule reads_in_place, tells_places
  std::atomic<bool>* elsewhere = nullptr;  ///< not null: to be set instead of adding to the gradient of another place

  /// Whether it has an entry for each (row, key).
  bool like_scores() const { return broadcasts && strides[2] != 0 && strides[3] != 0; }
  /// Whether index[i] is the place of entry i of the strip, or −1, for all i.
  bool at_its_place(const Strip& strip, const int64_t* index) const;
};

/// One modifier. Write one by deriving from this (with the derivative in closed form), or by score_modifier.
struct ScoreRule {
  std::vector<Tensor> tables;  ///< captured tensors; Tables arrive in this order
  virtual ~ScoreRule() = default;
  virtual std::string name() const = 0;
  /// Changes the scores of a strip.
  virtual void apply(const Strip& strip, const Table* tables, Real* scores) const = 0;
  /// `scores` as apply was given them; `gradient`: of its results in, of its inputs out. Adds to the tables' gradients.
  virtual void pull_back(const Strip& strip, const Table* tables, const Real* scores, Real* gradient) const = 0;
  /// Throws if the tables don't fit the problem.
  virtual void check_shape(const ScoreShape&) const {}
  /// Whether the score at (b, h, row, key) reads its tables nowhere but at its own place in the broadcast tensor, so
  /// that a gradient with an entry for each (row, key) needs no copies.
  virtual bool reads_in_place() const { return false; }
  /// Whether that is found out by running: pull_back heeds Table::elsewhere.
  virtual bool tells_places() const { return false; }
};

/// A chain of modifiers by value; the default one changes nothing.
class Score {
 public:
  Score() = default;
  explicit Score(std::shared_ptr<const ScoreRule> rule) : rules_{std::move(rule)} {}
  const std::vector<std::shared_ptr<const ScoreRule>>& rules() const { return rules_; }
  bool empty() const { return rules_.empty(); }
  std::string name() const;
  /// First a, then b.
  friend Score operator|(const Score& a, const Score& b) {
    Score both = a;
    both.rules_.insert(both.rules_.end(), b.rules_.begin(), b.rules_.end());
    return both;
  }

 private:
  std::vector<std::shared_ptr<const ScoreRule>> rules_;
};

/// A dense table of this shape at `data`, with strides if it broadcasts to the scores.
Table bind_table(const Real* data, const Shape& shape, const ScoreShape& scores);

/// gradient[index[i]] += value[i] for i in [0, count), quickly where the indices are equal or neighbours.
void scatter_add(int64_t count, const int64_t* index, const Real* value, Real* gradient);

/// Throws what a modifier does wrong with a captured tensor.
[[noreturn]] void bad_table_read(const std::string& name, const Strip& strip, std::span<const Tensor> tables);

namespace detail {

/// A captured tensor as a modifier's lambda sees it: table(i, j, …) with as many indices as it has dimensions,
/// table[i] for a vector, table() for a single number, or table(at) for the place of the score itself in a tensor that
/// broadcasts to (B, H, N, M). To be read once in a call: capture a tensor twice to read it twice.
template <int K>
struct Read {
  const Table* table;
  int slot;        // of the partial derivative; K of 0 has none
  int64_t* index;  // notes what was read
  bool* bad;       // becomes true after a wrong read: throwing here would keep loops from vectorising

  template <class... I>
  Dual<K> operator()(I... i) const {
    const int64_t at[] = {int64_t(i)..., 0};
    int64_t flat = 0;
    bool wrong = table->shape.rank != int(sizeof...(I));
    for (size_t d = 0; d < sizeof...(I); ++d) {
      int64_t size = table->shape.sizes[d];
      wrong |= at[d] < 0 || at[d] >= size;
      flat = flat * size + at[d];
    }
    return read(flat, wrong);
  }
  Dual<K> operator()(const At& at) const {
    const int64_t* s = table->strides;
    return read(at.batch * s[0] + at.head * s[1] + at.row * s[2] + at.key * s[3], !table->broadcasts);
  }
  template <class I>
  Dual<K> operator[](I i) const {
    return (*this)(i);
  }

 private:
  Dual<K> read(int64_t flat, bool wrong) const {
    *bad |= wrong || *index >= 0;
    flat = wrong ? 0 : flat;
    *index = flat;
    if constexpr (K > 0) {
      return Dual<K>::variable(table->data[flat], slot);
    } else {
      return Dual<K>(table->data[flat]);
    }
  }
};

template <class F, int N>
struct LambdaRule final : ScoreRule {
  F f;
  std::string name_;
  LambdaRule(F function, std::string name, std::vector<Tensor>&& captured)
      : f(std::move(function)), name_(std::move(name)) {
    tables = std::move(captured);
  }
  std::string name() const override { return name_; }
  bool tells_places() const override { return true; }

  // One call with K partial derivatives (0 or N + 1), and the indices that it read.
  // NOLINTBEGIN(readability-non-const-parameter): Read writes to both, when there are tables
  template <int K, size_t... I>
  Dual<K> call(const Dual<K>& score, const At& at, [[maybe_unused]] const Table* t, [[maybe_unused]] int64_t* index,
               [[maybe_unused]] bool* bad, std::index_sequence<I...>) const {
    return Dual<K>(f(score, at, Read<K>{t + I, int(I) + 1, index + I, bad}...));
  }
  // NOLINTEND(readability-non-const-parameter)

  void apply(const Strip& s, const Table* t, Real* scores) const override {
    bool bad = false;
    for (int64_t i = 0; i < s.count; ++i) {
      int64_t index[N + 1];
      for (int64_t& x : index) x = -1;
      scores[i] = call<0>(Dual<0>(scores[i]), s.at(i), t, index, &bad, std::make_index_sequence<N>{}).value;
    }
    if (bad) bad_table_read(name_, s, tables);
  }

  void pull_back(const Strip& s, const Table* t, const Real* scores, Real* gradient) const override {
    bool bad = false;
    int64_t index[N + 1][kTile] = {};
    Real slope[N + 1][kTile] = {};
    for (int64_t i = 0; i < s.count; ++i) {
      int64_t at[N + 1];
      for (int64_t& x : at) x = -1;
      auto y = call<N + 1>(Dual<N + 1>::variable(scores[i], 0), s.at(i), t, at, &bad, std::make_index_sequence<N>{});
      Real g = gradient[i];  // 0 where masked: then the slope may be anything
      for (size_t k = 0; k <= N; ++k) slope[k][i] = g == 0 ? 0 : y.partial[k] * g;
      for (size_t k = 0; k < N; ++k) index[k][i] = at[k];
    }
    if (bad) bad_table_read(name_, s, tables);
    for (int64_t i = 0; i < s.count; ++i) gradient[i] = slope[0][i];
    for (size_t k = 0; k < N; ++k) {
      if (!t[k].gradient) continue;
      if (t[k].elsewhere && !t[k].at_its_place(s, index[k])) {
        *t[k].elsewhere = true;
      } else {
        scatter_add(s.count, index[k], slope[k + 1], t[k].gradient);
      }
    }
  }
};

}  // namespace detail

/// A modifier from a generic lambda (auto score, At at, auto table…) -> score, called with Duals; its derivative, also
/// by the captured tensors, comes from running it on dual numbers (see dual.h for the functions it may use):
///
///     score_modifier([](auto s, At at, auto slope) { return s - slope[at.head] * std::abs(at.query - at.key); },
///     slopes)
///
/// Each table is to be read at most once a call, at indices that don't depend on the score. The lambda must be pure: it
/// runs on any thread, forward and again backward.
template <class F, class... T>
requires(std::same_as<T, Tensor>&&...) Score score_modifier(std::string name, F f, const T&... tables) {
  return Score(std::make_shared<detail::LambdaRule<F, int(sizeof...(T))>>(std::move(f), std::move(name),
                                                                          std::vector<Tensor>{tables...}));
}
template <class F, class... T>
requires(!std::convertible_to<F, std::string> && (std::same_as<T, Tensor> && ...)) Score
    score_modifier(F f, const T&... tables) {
  return score_modifier("lambda", std::move(f), tables...);
}

/// The chain for the transposed problem: its entry (i, j) is entry (j, i) here. Slow: one entry at a time.
Score transposed(const Score& score);

// Built in. Shapes of captured tensors are checked when attention is called.

/// c · tanh(s / c) (Gemma 2). Throws unless c > 0.
Score softcap(double c);
Score softcap(const Tensor& c);  ///< broadcast to (B, H, N, M)
/// s · t, t broadcast to (B, H, N, M), for example (H, 1, 1).
Score temperature(const Tensor& t);
/// s + b, b broadcast to (B, H, N, M).
Score bias(const Tensor& b);
/// s − slope[h] · |query − key|, slopes (H) (Press 2022).
Score alibi(const Tensor& slopes);
/// The fixed slopes of the paper for H heads: 2^(−8 (h+1) / H), with its rule for H that is no power of two.
Tensor alibi_slopes(int64_t heads);
/// s + table[h][bucket(key − query)], table (H, buckets) (Raffel 2020). Distances from `reach` on share a bucket.
Score t5_bias(const Tensor& table, int64_t reach, bool bidirectional);
/// The bucket of distance key − query.
int64_t t5_bucket(int64_t distance, int64_t buckets, int64_t reach, bool bidirectional);
/// s + table[h][key − row + N − 1], table (H, N + M − 1).
Score relative_bias(const Tensor& table);
/// s + c[b, h, query] − c[b, h, key], c (B, H, M) the running sum of log forget gates by position (Lin 2025). `rest`,
/// of the same shape, is what rounding took from c; see forget_gates, which has both.
Score forget_gate(const Tensor& cumulative, const Tensor& rest = {});
/// −|q − k|² / (2h²) from s = q·k, the squared norms q² (B, H, N), k² (B, Hkv, M) and the bandwidth h (H).
Score gaussian_kernel(const Tensor& q_squared, const Tensor& k_squared, const Tensor& bandwidth);
/// −|q − k| / h
Score laplace_kernel(const Tensor& q_squared, const Tensor& k_squared, const Tensor& bandwidth);
/// 1 − |q − k|² / h²: with relu_ratio(1) the Epanechnikov kernel, with relu_ratio(0) the boxcar.
Score epanechnikov_kernel(const Tensor& q_squared, const Tensor& k_squared, const Tensor& bandwidth);

}  // namespace rapt::inline RAPT_ABI

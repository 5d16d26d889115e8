#pragma once
#include "dropout.h"
#include "score.h"

/// How scores become weights. Most normalisers need no more of a row than a maximum and a sum, and run tile by tile.
/// Some need the whole row at once (RowRule) and run by blocks of rows, in memory linear in the number of keys.
namespace rapt::inline RAPT_ABI {

/// Weights w = f(s), without a maximum; for elementwise and ratio normalisers. Masked entries have weight 0 and are
/// never asked.
struct WeightRule {
  virtual ~WeightRule() = default;
  virtual std::string name() const = 0;
  virtual void weights(int64_t count, Real* scores) const = 0;  ///< in place
  /// weights[i] = f(s), slopes[i] = f'(s)
  virtual void slopes(int64_t count, const Real* scores, Real* weights, Real* slopes) const = 0;
};

/// A block of complete rows: `heads` heads from `head` on, rows [row, row + count), keys [key, key + width), which are
/// all that these rows read. Element (h, j, i) of a matrix is at (h · width + j) · kTile + i. Masked scores are −∞.
/// Lanes from `count` on hold numbers that are never used.
struct RowBlock {
  int64_t batch, head, heads, row, count, key, width;
  int64_t queries, keys, all_heads;
  const WeightDropout& dropout;

  int64_t at(int64_t h, int64_t j) const { return (h * width + j) * kTile; }
  Strip strip(int64_t h, int64_t j) const { return {batch, head + h, key + j, row, count, queries, keys}; }
  /// matrix[j][i] *= the dropout's factor, for one head's matrix (width, kTile).
  void drop(int64_t h, Real* matrix) const;
};

/// A normaliser that sees whole rows.
struct RowRule {
  std::vector<Tensor> tables;  ///< captured tensors; Tables arrive in this order
  virtual ~RowRule() = default;
  virtual std::string name() const = 0;
  virtual double parameter() const { return 0; }  ///< what its maker was given, if anything
  /// Scores to weights in place; lse (heads, kTile) is the second result of attention.
  virtual void forward(const RowBlock& block, const Table* tables, Real* scores, Real* lse) const = 0;
  /// `scores` as forward got them become the weights; `gradient`, of the weights, becomes that of the scores. Adds to
  /// the tables' gradients. dlse (heads, kTile) may be null.
  virtual void backward(const RowBlock& block, const Table* tables, Real* scores, Real* gradient,
                        const Real* dlse) const = 0;
  virtual bool all_heads() const { return false; }        ///< whether a block has all heads of a batch entry
  virtual bool drops_by_itself() const { return false; }  ///< whether it applies the dropout, instead of the kernel
  virtual void check_shape(const ScoreShape&) const {}
};

/// A normaliser by value; the default one is the softmax.
struct Normalizer {
  enum class Kind {
    softmax,         ///< e^s / Σ e^s
    signed_softmax,  ///< sign(s) e^|s| / Σ e^|s| (CoG attention)
    elementwise,     ///< f(s); no log-sum-exp, lse is 0
    ratio,           ///< f(s) / Σ f(s), f ≥ 0; lse is log Σ f(s) (Nadaraya 1964, Watson 1964)
    rows,
    inverted,  ///< softmax over the queries, then divided by the row's sum (slot attention, Locatello 2020)
  };
  Kind kind = Kind::softmax;
  Tensor sink = {};  ///< (H) or empty: a score that every row has besides, for a key without a value
  std::shared_ptr<const WeightRule> weight = {};
  std::shared_ptr<const RowRule> rows = {};

  std::string name() const;
};

/// Σ has one more term e^sink[h] (gpt-oss). sink (H).
inline Normalizer softmax_with_sink(const Tensor& sink) { return {.sink = sink}; }
/// Σ has one more term 1: "attention is off by one", add_zero_attn.
Normalizer softmax_plus_one(int64_t heads);
inline Normalizer signed_softmax() { return {.kind = Normalizer::Kind::signed_softmax}; }
inline Normalizer inverted_softmax() { return {.kind = Normalizer::Kind::inverted}; }
Normalizer sigmoid_weights();               ///< σ(s) (Ramapuram 2024)
Normalizer exp_weights();                   ///< e^s, for scores that are not above 0: a Gaussian of the distance
Normalizer relu_weights(double power = 1);  ///< max(0, s)^power
Normalizer relu_ratio(double power = 1);    ///< max(0, s)^power over its sum; power 0: a boxcar, [s > 0]
/// The largest k of each row, ties kept; then softmax. The threshold is a constant for the gradient. k ≥ 1.
Normalizer top_k(int64_t k);
/// The largest of each row alone, the first of equals; the gradient is the softmax's (straight through).
Normalizer hard_attention();
/// [(α − 1) s − t]₊^(1/(α − 1)), t so that the row sums to 1 (Peters 2019); α in (1, 2]; 2 is sparsemax. No lse.
Normalizer entmax(double alpha);
/// σ(s_j) Π_{j < t < i} (1 − σ(s_t)), from the query backwards (Tan 2024). Use a strictly causal mask. No lse.
Normalizer stick_breaking();
/// Contextual positions (Golovneva 2024): s + z[b, h, query, p], p the running sum of σ(s) from the query backwards,
/// interpolated; then softmax. z (B, H, N, P).
Normalizer contextual_positions(const Tensor& z);
/// Scores mixed over the heads by `before` (H, H), weights by `after` (H, H): S'_h = Σ_g before[h, g] S_g (Shazeer
/// 2020).
Normalizer talking_heads(const Tensor& before, const Tensor& after);

/// Weights from a generic lambda (auto s) -> f(s), differentiated by dual numbers.
template <class F>
std::shared_ptr<const WeightRule> weight_rule(std::string name, F f) {
  struct Rule final : WeightRule {
    F f;
    std::string name_;
    Rule(F function, std::string n) : f(std::move(function)), name_(std::move(n)) {}
    std::string name() const override { return name_; }
    void weights(int64_t count, Real* s) const override {
      for (int64_t i = 0; i < count; ++i) s[i] = Dual<0>(f(Dual<0>(s[i]))).value;
    }
    void slopes(int64_t count, const Real* s, Real* w, Real* slope) const override {
      for (int64_t i = 0; i < count; ++i) {
        Dual<1> y = Dual<1>(f(Dual<1>::variable(s[i], 0)));
        w[i] = y.value;
        slope[i] = y.partial[0];
      }
    }
  };
  return std::make_shared<Rule>(std::move(f), std::move(name));
}

}  // namespace rapt::inline RAPT_ABI

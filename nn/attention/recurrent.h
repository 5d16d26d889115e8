#pragma once
#include <optional>

#include "../../autograd/ops/recurrence.h"
#include "layer.h"
#include "rotary.h"

/// Layers of the recurrent family (autograd/ops/recurrence.h): attention without a softmax, in time and memory linear
/// in the sequence. All take x (B, N, C) to (B, N, C) and are causal. Short convolutions before the recurrence, which
/// some of the papers add, are not included.
namespace rapt::inline RAPT_ABI {

struct RecurrentOptions {
  int64_t key_value_heads = 0;  ///< divides the heads; 0: as many
  bool bias = false;            ///< of the projections q, k, v, gate and proj
  double qkv_deviation = 0;     ///< see LinearOptions::deviation; of the gate too
  double proj_deviation = 0;
  int64_t chunk = 32;  ///< positions that are computed together; changes rounding only
  /// Retention, GLA and the delta rules turn queries and keys by these; without, retention does as in its paper
  /// (interleaved pairs), the others don't. Features that must be positive can't be turned: the others refuse it.
  std::optional<RotaryOptions> rotary = {};
};

/// What they share: projections to heads of D = C/H channels and back.
/// Parameters: q.weight (C, C), k.weight and v.weight (Hkv·D, C), proj.weight (C, C).
struct RecurrentAttention : AttentionLayer {
  int64_t heads, key_value_heads, chunk;
  Linear q, k, v, proj;
  std::optional<RotaryEmbedding> rotary;

 protected:
  RecurrentAttention(int64_t dim, int64_t head_count, const RecurrentOptions& options);
  Tensor queries(const Tensor& x) const;  ///< (B, H, N, D)
  Tensor keys(const Tensor& x) const;     ///< (B, Hkv, N, D)
  Tensor turn_queries(const Tensor& x) const { return rotary ? rotary->queries(x) : x; }
  Tensor turn_keys(const Tensor& x) const { return rotary ? rotary->keys(x) : x; }
  Tensor values(const Tensor& x) const;
  int64_t width() const { return proj.weight.shape[1] / heads; }  ///< D
};

/// Weights φ(q)·φ(k) with φ = elu + 1, normalised to sum 1 (Katharopoulos 2020).
struct LinearAttention : RecurrentAttention {
  LinearAttention(int64_t dim, int64_t head_count, RecurrentOptions options = {});
  Tensor operator()(const Tensor& x) const override;
};

struct PerformerOptions {
  int64_t features = 0;  ///< m; 0: D ln D
  uint64_t seed = 0;     ///< of the random features, which are no parameters: a model needs the same seed all its life
  RecurrentOptions common{};
};

/// Softmax attention estimated by positive orthogonal random features (FAVOR+, Choromanski 2021): φ(x) =
/// exp(w·x − ‖x‖²/2) / √m of queries and keys over D^¼, normalised. Exponents are taken relative to the largest so far,
/// as in an online softmax, so that nothing overflows and nothing later is read.
struct Performer : RecurrentAttention {
  Tensor features;  ///< w (m, D); not a parameter
  Performer(int64_t dim, int64_t head_count, PerformerOptions options = {});
  Tensor operator()(const Tensor& x) const override;
};

/// Retention (RetNet, Sun 2023): head h forgets by the factor 1 − 2^(−5−h) a position; each head's result is
/// RMS-normalised without a weight, and gated by silu(gate(x)).
/// Parameters: those of RecurrentAttention, gate.weight (C, C).
struct RetentiveAttention : RecurrentAttention {
  Linear gate;
  Tensor log_decay;  ///< (H, 1); not a parameter
  RetentiveAttention(int64_t dim, int64_t head_count, RecurrentOptions options = {});
  Tensor operator()(const Tensor& x) const override;
};

/// Linear attention with a decay σ(decay(x / √C))^(1/16) for each head and position (GLA, Yang 2024, with one number a
/// head instead of one a channel), RMS norm of each head and a gate. It begins with the decays of retention, so that
/// some heads remember long from the start. Parameters: those of RecurrentAttention, gate.weight (C, C), decay.weight
/// (H, C), decay.bias (H), norm.weight (D).
struct GatedLinearAttention : RecurrentAttention {
  Linear gate, decay;
  RMSNorm norm;
  GatedLinearAttention(int64_t dim, int64_t head_count, RecurrentOptions options = {});
  Tensor operator()(const Tensor& x) const override;
};

/// The delta rule: before a value is written, what the state holds under its key is taken away, as far as
/// β = σ(beta(x)) says (Schlag 2021, Yang 2024). Queries and keys are silu's of length 1; RMS norm of each head.
/// Parameters: those of RecurrentAttention, beta.weight (H, C), norm.weight (D).
struct DeltaNet : RecurrentAttention {
  Linear beta;
  RMSNorm norm;
  DeltaNet(int64_t dim, int64_t head_count, RecurrentOptions options = {});
  Tensor operator()(const Tensor& x) const override;
};

/// The same with a state that also decays by α = exp(−e^log_rate · softplus(decay(x / √C) + decay_bias)), and a gate
/// (Yang 2025). It begins with rates e^log_rate in [1, 16), as Mamba-2, and steps softplus(decay_bias) that
/// make α retention's decays.
/// Parameters: those of RecurrentAttention, gate.weight (C, C), beta.weight and decay.weight (H, C), norm.weight (D),
/// log_rate and decay_bias (H).
struct GatedDeltaNet : RecurrentAttention {
  Linear gate, beta, decay;
  RMSNorm norm;
  Tensor log_rate, decay_bias;
  GatedDeltaNet(int64_t dim, int64_t head_count, RecurrentOptions options = {});
  Tensor operator()(const Tensor& x) const override;
};

}  // namespace rapt::inline RAPT_ABI

#pragma once
#include "../record.h"

/// The recurrent family: attention without a softmax, as a state S (D, Dv) for each head that is read by o_t = S_tᵀ
/// q_t. All are causal. q is (B, H, N, D), k (B, Hkv, N, D), v (B, Hkv, N, Dv) → (B, H, N, Dv); H is a multiple of Hkv,
/// query head h reads head h / (H / Hkv). Nothing is scaled and nothing normalised inside.
///
/// They are computed by chunks of `chunk` positions: matrix products inside a chunk, a recurrence from one chunk to the
/// next (Yang 2024). Memory is linear in N. N need not be a multiple of the chunk; the chunk changes rounding only.
namespace rapt::inline RAPT_ABI {

struct LinearAttentionOptions {
  bool normalize = false;  ///< divide o_t by q_t · Σ_{u≤t} k_u; the caller's features must keep it from being 0
  int64_t chunk = 32;
};
/// S_t = S_{t−1} + k_t v_tᵀ (Katharopoulos 2020). A feature map is applied by the caller.
Tensor linear_attention(const Tensor& q, const Tensor& k, const Tensor& v, LinearAttentionOptions options = {},
                        Where where = Where::here());

/// S_t = α_t S_{t−1} + k_t v_tᵀ: RetNet with constant, scalar-gated GLA with computed decays (Sun 2023, Yang 2024).
/// log_decay is ln α, (B, H, N) or what broadcasts to it, such as (H, 1); −∞ forgets everything.
Tensor decay_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& log_decay, int64_t chunk = 32,
                       Where where = Where::here());

/// S_t = α_t S_{t−1} + β_t k_t (v_t − α_t S_{t−1}ᵀ k_t)ᵀ: DeltaNet, and gated DeltaNet with log_decay = ln α (Schlag
/// 2021, Yang 2024, 2025). beta and log_decay are (B, H, N) or what broadcasts to it; log_decay may be empty: α = 1.
/// Keys are expected to have length 1 and β to be in [0, 2]: then the state can't grow without bound.
Tensor delta_rule(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& beta, const Tensor& log_decay = {},
                  int64_t chunk = 32, Where where = Where::here());

/// What one of them will do for tensors of these shapes.
struct RecurrencePlan {
  std::string name;
  int64_t heads = 0, chunks = 0, chunk = 0;                ///< B·H; chunks of each, and positions of one
  double forward_operations = 0, backward_operations = 0;  ///< floating-point, of the products; with all gradients
  int64_t saved_bytes = 0;                                 ///< kept for the backward beside q, k, v and the result
};
enum class Recurrence { linear, linear_normalized, decay, delta, gated_delta };
/// q (B, H, N, D), k (B, Hkv, N, D), v (B, Hkv, N, Dv), dense; log_decay as the call's, for decay and gated_delta.
RecurrencePlan explain(Recurrence kind, const Shape& q, const Shape& k, const Shape& v, const Shape& log_decay = {},
                       int64_t chunk = 32);
std::string to_string(const RecurrencePlan& plan);

// What they are made of.

/// (I + the part of a below the diagonal)⁻¹ for a (…, C, C); the rest of a is not read.
Tensor inverse_unit_lower(const Tensor& a, Where where = Where::here());

/// The states before each step of S_{i+1} = M_i S_i + P_i from S_0 = 0: M (…, n, D, D), or (…, n, 1, 1) for a number,
/// P (…, n, D, E) → S (…, n, D, E). The last step is not taken.
Tensor affine_scan(const Tensor& transition, const Tensor& increment, Where where = Where::here());

}  // namespace rapt::inline RAPT_ABI

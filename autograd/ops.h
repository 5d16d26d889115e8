#pragma once
#include <span>
#include <vector>

#include "../core/attention/attention.h"
#include "../core/tokens.h"
#include "ops/recurrence.h"
#include "record.h"

/// Every differentiable operation, one line each; the implementations are in autograd/ops/, a file for each family.
/// Operands broadcast as in NumPy. Dimensions may be negative: they count from the end. `where` is the caller's line.
namespace rapt::inline RAPT_ABI {

/// An operand of an operator: a tensor or a number, and the line that wrote it.
struct Operand {
  Tensor tensor;
  Where where;
  Operand(const Tensor& x, Where at = Where::here()) : tensor(x), where(at) {}
  Operand(double x, Where at = Where::here()) : tensor(scalar(Real(x))), where(at) {}
};

// Arithmetic (ops/arithmetic.cpp)
Tensor operator+(const Operand& a, const Operand& b);
Tensor operator-(const Operand& a, const Operand& b);
Tensor operator*(const Operand& a, const Operand& b);
Tensor operator/(const Operand& a, const Operand& b);
Tensor operator-(const Operand& x);
Tensor abs(const Tensor& x, Where where = Where::here());                   ///< gradient 0 at 0
Tensor pow(const Tensor& x, double exponent, Where where = Where::here());  ///< x^exponent
Tensor pow(const Tensor& x, const Tensor& exponent,
           Where where = Where::here());  ///< x > 0 where exponent wants a gradient
Tensor clamp(const Tensor& x, double low, double high, Where where = Where::here());  ///< gradient inside [low, high]
Tensor maximum(const Operand& a, const Operand& b,
               Where where = Where::here());  ///< half of the gradient each where equal
Tensor where(const Tensor& condition, const Operand& a, const Operand& b,
             Where at = Where::here());  ///< condition ≠ 0 ? a : b

// Functions of one number (ops/activations.cpp)
Tensor exp(const Tensor& x, Where where = Where::here());  ///< exactly 0 below −60, see core/vector_math.h
Tensor log(const Tensor& x, Where where = Where::here());
Tensor sqrt(const Tensor& x, Where where = Where::here());
Tensor sigmoid(const Tensor& x, Where where = Where::here());
Tensor tanh(const Tensor& x, Where where = Where::here());
Tensor relu(const Tensor& x, Where where = Where::here());
enum class Gelu { erf, tanh };  ///< x Φ(x), or its approximation by tanh (Hendrycks & Gimpel 2016)
Tensor gelu(const Tensor& x, Gelu form = Gelu::erf, Where where = Where::here());
Tensor silu(const Tensor& x, Where where = Where::here());      ///< x σ(x)
Tensor softplus(const Tensor& x, Where where = Where::here());  ///< log(1 + eˣ)

// Reductions (ops/reductions.cpp). Without dims: over everything, giving rank 0.
Tensor sum(const Tensor& x, Where where = Where::here());
Tensor sum(const Tensor& x, std::initializer_list<int> dims, bool keep = false, Where where = Where::here());
Tensor mean(const Tensor& x, Where where = Where::here());
Tensor mean(const Tensor& x, std::initializer_list<int> dims, bool keep = false, Where where = Where::here());
Tensor max(const Tensor& x, int dim, bool keep = false,
           Where where = Where::here());  ///< gradient to the first of equals
Tensor logsumexp(const Tensor& x, int dim, bool keep = false, Where where = Where::here());  ///< −∞ for a row of −∞
Tensor cumsum(const Tensor& x, int dim, Where where = Where::here());
/// Σ x² over the last dimension. Where no gradient arrives x gets none, even if it is NaN.
Tensor squared_norm(const Tensor& x, Where where = Where::here());
Tokens argmax(const Tensor& x, int dim);  ///< no gradient

// Views and rearrangement (ops/views.cpp). Views share storage; see core/view.h.
Tensor slice(const Tensor& x, int dim, int64_t begin, int64_t end, int64_t step = 1, Where where = Where::here());
Tensor select(const Tensor& x, int dim, int64_t index, Where where = Where::here());
Tensor transpose(const Tensor& x, int a, int b, Where where = Where::here());
Tensor permute(const Tensor& x, std::initializer_list<int> dims, Where where = Where::here());
Tensor reshape(const Tensor& x, const Shape& shape, Where where = Where::here());  ///< one size may be −1
Tensor expand(const Tensor& x, const Shape& shape, Where where = Where::here());
Tensor squeeze(const Tensor& x, int dim, Where where = Where::here());
Tensor unsqueeze(const Tensor& x, int dim, Where where = Where::here());
Tensor cat(std::span<const Tensor> x, int dim, Where where = Where::here());
Tensor stack(std::span<const Tensor> x, int dim, Where where = Where::here());
std::vector<Tensor> split(const Tensor& x, int64_t size, int dim,
                          Where where = Where::here());  ///< views; the last may be shorter
Tensor pad(const Tensor& x, int dim, int64_t before, int64_t after, double value = 0, Where where = Where::here());
Tensor index_select(const Tensor& x, int dim, const Tokens& index, Where where = Where::here());

// Products (ops/matmul.cpp)
/// (…, M, K) × (…, K, N) → (…, M, N), leading dimensions broadcast; a rank-1 operand is a row or a column that
/// disappears.
Tensor matmul(const Tensor& a, const Tensor& b, Where where = Where::here());
/// x (…, in), weight (out, in), bias (out) or empty → x weightᵀ + bias (…, out)
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {}, Where where = Where::here());

// Normalisation (ops/normalization.cpp), over the last dimension C unless a dimension is given
Tensor softmax(const Tensor& x, int dim = -1, Where where = Where::here());  ///< a row of −∞ gives 0
Tensor log_softmax(const Tensor& x, int dim = -1, Where where = Where::here());
/// (x − mean) / √(var + epsilon) · weight + bias; weight (C) and bias (C) may be empty (Ba 2016)
Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double epsilon = 1e-5,
                  Where where = Where::here());
/// x / √(mean x² + epsilon) · weight; weight (C) may be empty (Zhang & Sennrich 2019)
Tensor rms_norm(const Tensor& x, const Tensor& weight, double epsilon = 1e-6, Where where = Where::here());

// Lookup and noise (ops/embedding.cpp)
/// weight (V, C), ids (…) in [0, V) → (…, C)
Tensor embedding(const Tensor& weight, const Tokens& ids, Where where = Where::here());
/// Zero with probability p, else x / (1 − p), by the next stream of the generator (core/random.h). 0 ≤ p ≤ 1.
Tensor dropout(const Tensor& x, double p, Where where = Where::here());

// Positions (ops/rotary.cpp)
enum class RotaryStyle { half_split, interleaved };  ///< pairs of channels (c, c + R/2), or (2c, 2c + 1)
/// The first R channels of x (…, N, D) turned in pairs, pair c of row n by the angle of cos and sin (N, R/2); the
/// others stay. No gradient for cos and sin (Su 2021).
Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, RotaryStyle style = RotaryStyle::half_split,
              Where where = Where::here());

// Losses (ops/loss.cpp)
struct CrossEntropyOptions {
  int32_t ignore_index = -100;  ///< targets of this value count for nothing
  double label_smoothing = 0;   ///< in [0, 1): that much of the target spread evenly over all classes
};
/// Mean of −log softmax(logits)[target] over the targets that count; 0 when none does. logits (…, V), targets (…).
Tensor cross_entropy(const Tensor& logits, const Tokens& targets, CrossEntropyOptions options = {},
                     Where where = Where::here());
/// The same of x weightᵀ, x (…, C), weight (V, C), by chunks of rows: the logits (…, V) never exist at once, and the
/// gradients are made on the way forward.
Tensor linear_cross_entropy(const Tensor& x, const Tensor& weight, const Tokens& targets,
                            CrossEntropyOptions options = {}, Where where = Where::here());

// Attention (ops/attention.cpp)
/// softmax(scale · q kᵀ) v by tiles, in memory linear in the sequence, and every variant that AttentionOptions spells;
/// captured tensors receive gradients. q (B, H, N, D), k (B, Hkv, M, D), v (B, Hkv, M, Dv) → (B, H, N, Dv). H is a
/// multiple of Hkv.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options = {},
                 Where where = Where::here());
/// The same for q, k and v side by side in one projection (B, N, 3·H·D), q | k | v, head h at h·D in each: copies
/// nothing. Gives (B, N, H·D).
Tensor packed_attention(const Tensor& qkv, int64_t heads, const AttentionOptions& options = {},
                        Where where = Where::here());
struct AttentionResult {
  Tensor out;  ///< (B, H, N, Dv)
  Tensor lse;  ///< (B, H, N): the log of the sum of each row's weights before division; differentiable
};
AttentionResult attention_with_lse(const Tensor& q, const Tensor& k, const Tensor& v,
                                   const AttentionOptions& options = {}, Where where = Where::here());
/// The weights (B, H, N, M), or their mean over the heads (B, N, M). No gradient, no dropout.
Tensor attention_weights(const Tensor& q, const Tensor& k, const AttentionOptions& options = {},
                         bool mean_over_heads = false);
/// forget_gate of log gates (B, H, M): their running sums in double, so that the gates between neighbours count also at
/// the end of a long sequence.
Score forget_gates(const Tensor& log_gates, Where where = Where::here());
/// What attention will do for tensors of these shapes.
AttentionPlan explain(const Shape& q, const Shape& k, const Shape& v, const AttentionOptions& options = {});
/// (B, Hkv, N, D) → (B, H, N, D), each head H / Hkv times in a row.
Tensor repeat_heads(const Tensor& x, int64_t heads, Where where = Where::here());

// The same with whole (N, M) matrices, made of the operations above (ops/attention_dense.cpp): slow, easy to read and
// to change, and what the tiles are tested against.
AttentionResult attention_dense_with_lse(const Tensor& q, const Tensor& k, const Tensor& v,
                                         const AttentionOptions& options = {}, Where where = Where::here());
Tensor attention_dense(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options = {},
                       Where where = Where::here());

// Linear attention, gated and delta-rule recurrences: ops/recurrence.h

/// The names of the operations, as their nodes have them, that gradients() and backward() can record under
/// create_graph, so that the gradients can be differentiated again: as often as one likes. All others refuse.
const std::vector<std::string>& twice_differentiable();

}  // namespace rapt::inline RAPT_ABI

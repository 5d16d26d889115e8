#include "recurrent.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "../../core/random.h"
#include "heads.h"

namespace rapt::inline RAPT_ABI {

namespace {

int64_t checked_heads(int64_t dim, int64_t heads) {
  check(heads > 0 && dim > 0 && dim % heads == 0, "attention: {} heads do not divide the dimension {}", heads, dim);
  return heads;
}

LinearOptions projection(const RecurrentOptions& o) { return {o.bias, o.qkv_deviation}; }
LinearOptions numbers(const RecurrentOptions& o, bool bias = false) { return {bias, o.qkv_deviation}; }

RecurrentOptions turned(RecurrentOptions o) {
  if (!o.rotary) o.rotary = RotaryOptions{.style = RotaryStyle::interleaved};
  return o;
}

RecurrentOptions unturned(const RecurrentOptions& o) {
  check(!o.rotary, "attention: rotary positions would make weights of positive features negative");
  return o;
}

double retention_log_decay(int64_t head) { return std::log1p(-std::exp2(-5.0 - double(head))); }

// Rows of length 1: x / √(Σ x² + 1e−6)
Tensor of_length_one(const Tensor& x) {
  const double D = double(x.shape[-1]);
  return rms_norm(x, {}, 1e-6 / D) * (1 / std::sqrt(D));
}

// elu(x) + 1, and a little more, so that the weights never sum to 0
Tensor elu_features(const Tensor& x) { return relu(x) + exp(-relu(-x)) + 1e-6; }

// m rows, orthogonal within each D of them, of the lengths of normal vectors
Tensor orthogonal_features(int64_t m, int64_t D, uint64_t seed) {
  NoGrad no_grad;
  const Random random{seed, 0};
  std::vector<Real> values(size_t(m * D));
  for (size_t i = 0; i < values.size(); ++i) values[i] = Real(random.normal(i));
  const Tensor gaussian = from_values({m, D}, values);
  const Tensor lengths = sqrt(sum(gaussian * gaussian, {-1}, true));
  std::vector<Tensor> rows;
  for (int64_t i = 0; i < m; ++i) {
    Tensor row = slice(gaussian, 0, i, i + 1);
    const size_t before = size_t(i % D);                        // of the same block
    for (int repeat = 0; repeat < 2 && before > 0; ++repeat) {  // twice: once leaves rounding behind
      const Tensor block = cat(std::span<const Tensor>(rows).last(before), 0);
      row = row - matmul(matmul(row, transpose(block, 0, 1)), block);
    }
    rows.push_back(row / sqrt(sum(row * row)));
  }
  // a normal vector's length does not depend on its direction, so the rows keep theirs
  return cat(rows, 0) * lengths;
}

// The largest so far along dimension 2 of x (B, H, N), in steps of doubling width
Tensor running_max(Tensor x) {
  const int64_t N = x.shape[2];
  for (int64_t step = 1; step < N; step *= 2) {
    x = maximum(x, pad(slice(x, 2, 0, N - step), 2, step, 0, -std::numeric_limits<double>::infinity()));
  }
  return x;
}

}  // namespace

RecurrentAttention::RecurrentAttention(int64_t dim, int64_t head_count, const RecurrentOptions& o)
    : heads(checked_heads(dim, head_count)),
      key_value_heads(checked_key_value_heads(heads, o.key_value_heads)),
      chunk(o.chunk),
      q(child<Linear>("q", dim, dim, projection(o))),
      k(child<Linear>("k", dim, dim / heads * key_value_heads, projection(o))),
      v(child<Linear>("v", dim, dim / heads * key_value_heads, projection(o))),
      proj(child<Linear>("proj", dim, dim, LinearOptions{o.bias, o.proj_deviation})) {
  if (o.rotary) rotary.emplace(*o.rotary);
  check(chunk >= 1, "attention: the chunk must be at least 1, got {}", chunk);
}

Tensor RecurrentAttention::queries(const Tensor& x) const {
  check(x.rank() == 3, "attention: x must be (B, N, C), but is {}", x.shape);
  return split_heads(q(x), heads);
}
Tensor RecurrentAttention::keys(const Tensor& x) const { return split_heads(k(x), key_value_heads); }
Tensor RecurrentAttention::values(const Tensor& x) const { return split_heads(v(x), key_value_heads); }

LinearAttention::LinearAttention(int64_t dim, int64_t head_count, RecurrentOptions o)
    : RecurrentAttention(dim, head_count, unturned(o)) {}

Tensor LinearAttention::operator()(const Tensor& input) const {
  auto attend = [&](const Tensor& x) {
    return proj(merge_heads(linear_attention(elu_features(queries(x)), elu_features(keys(x)), values(x),
                                             {.normalize = true, .chunk = chunk})));
  };
  return run(attend, input);
}

Performer::Performer(int64_t dim, int64_t head_count, PerformerOptions o)
    : RecurrentAttention(dim, head_count, unturned(o.common)) {
  check(o.features >= 0, "performer: {} features", o.features);
  const int64_t D = width();
  const int64_t m = o.features ? o.features : std::max<int64_t>(1, std::llround(double(D) * std::log(double(D))));
  features = orthogonal_features(m, D, o.seed);
}

Tensor Performer::operator()(const Tensor& input) const {
  auto attend = [&](const Tensor& x) {
    const Tensor shrunk = features * std::pow(double(width()), -0.25);
    const double half = 0.5 / std::sqrt(double(width()));
    // ln √m φ: (B, H, N, m)
    auto exponents = [&](const Tensor& rows) { return linear(rows, shrunk) - half * sum(rows * rows, {-1}, true); };
    const Tensor a = exponents(queries(x)), b = exponents(keys(x)), value = values(x);
    // What is subtracted cancels in the quotient, so it needs no gradient. For keys it grows along the sequence, and
    // the state is rescaled by a decay.
    const Tensor top = running_max(max(b.detach(), -1));
    const int64_t N = x.shape[1];
    const Tensor before = cat(std::vector<Tensor>{slice(top, 2, 0, 1), slice(top, 2, 0, N - 1)}, 2);
    const Tensor Q = exp(a - max(a.detach(), -1, true));
    const Tensor K = exp(b - unsqueeze(top, -1)) + 1e-10;  // at least one weight isn't 0
    const Tensor one = ones({value.shape[0], value.shape[1], N, 1});
    Tensor y = decay_attention(Q, K, cat(std::vector<Tensor>{value, one}, -1),
                               squeeze(repeat_heads(unsqueeze(before - top, 3), heads), 3), chunk);
    const int64_t D = width();
    return proj(merge_heads(slice(y, -1, 0, D) / slice(y, -1, D, D + 1)));
  };
  return run(attend, input);
}

RetentiveAttention::RetentiveAttention(int64_t dim, int64_t head_count, RecurrentOptions o)
    : RecurrentAttention(dim, head_count, turned(o)), gate(child<Linear>("gate", dim, dim, projection(o))) {
  std::vector<Real> decays;
  for (int64_t h = 0; h < heads; ++h) decays.push_back(Real(retention_log_decay(h)));
  log_decay = from_values({heads, 1}, decays);
}

Tensor RetentiveAttention::operator()(const Tensor& input) const {
  auto attend = [&](const Tensor& x) {
    const Tensor Q = turn_queries(queries(x)), K = turn_keys(keys(x) * (1 / std::sqrt(double(width()))));
    const Tensor y = rms_norm(decay_attention(Q, K, values(x), log_decay, chunk), {});
    return proj(merge_heads(y) * silu(gate(x)));
  };
  return run(attend, input);
}

GatedLinearAttention::GatedLinearAttention(int64_t dim, int64_t head_count, RecurrentOptions o)
    : RecurrentAttention(dim, head_count, o),
      gate(child<Linear>("gate", dim, dim, projection(o))),
      decay(child<Linear>("decay", dim, heads, numbers(o, true))),
      norm(child<RMSNorm>("norm", dim / heads)) {
  NoGrad no_grad;
  std::vector<Real> biases;
  for (int64_t h = 0; h < heads; ++h) {
    const double a = 16 * retention_log_decay(h);  // ln σ(bias)
    biases.push_back(Real(a - std::log(-std::expm1(a))));
  }
  Tensor bias = decay.bias.detach();
  copy_into(bias, from_values({heads}, biases));
}

Tensor GatedLinearAttention::operator()(const Tensor& input) const {
  auto attend = [&](const Tensor& x) {
    const Tensor log_decay = softplus(-transpose(decay(for_decays(x)), 1, 2)) * (-1.0 / 16);  // ln σ(z) = −softplus(−z)
    const Tensor Q = turn_queries(queries(x) * (1 / std::sqrt(double(width())))), K = turn_keys(keys(x));
    return proj(merge_heads(norm(decay_attention(Q, K, values(x), log_decay, chunk))) * silu(gate(x)));
  };
  return run(attend, input);
}

DeltaNet::DeltaNet(int64_t dim, int64_t head_count, RecurrentOptions o)
    : RecurrentAttention(dim, head_count, o),
      beta(child<Linear>("beta", dim, heads, numbers(o))),
      norm(child<RMSNorm>("norm", dim / heads)) {}

Tensor DeltaNet::operator()(const Tensor& input) const {
  auto attend = [&](const Tensor& x) {
    const Tensor Q = turn_queries(of_length_one(silu(queries(x))));
    const Tensor K = turn_keys(of_length_one(silu(keys(x))));
    return proj(merge_heads(norm(delta_rule(Q, K, values(x), sigmoid(transpose(beta(x), 1, 2)), {}, chunk))));
  };
  return run(attend, input);
}

GatedDeltaNet::GatedDeltaNet(int64_t dim, int64_t head_count, RecurrentOptions o)
    : RecurrentAttention(dim, head_count, o),
      gate(child<Linear>("gate", dim, dim, projection(o))),
      beta(child<Linear>("beta", dim, heads, numbers(o))),
      decay(child<Linear>("decay", dim, heads, numbers(o))),
      norm(child<RMSNorm>("norm", dim / heads)) {
  NoGrad no_grad;
  log_rate = param("log_rate", log(uniform({heads}, 1, 16)));
  std::vector<Real> biases = exp(log_rate).to_vector();
  for (size_t h = 0; h < biases.size(); ++h) {
    const double step = -retention_log_decay(int64_t(h)) / double(biases[h]);
    biases[h] = Real(step + std::log(-std::expm1(-step)));  // softplus of it is the step
  }
  decay_bias = param("decay_bias", from_values({heads}, biases));
}

Tensor GatedDeltaNet::operator()(const Tensor& input) const {
  auto attend = [&](const Tensor& x) {
    const Tensor log_decay = -(exp(log_rate) * softplus(decay(for_decays(x)) + decay_bias));  // (B, N, H)
    const Tensor Q = turn_queries(of_length_one(silu(queries(x))));
    const Tensor K = turn_keys(of_length_one(silu(keys(x))));
    Tensor y = delta_rule(Q, K, values(x), sigmoid(transpose(beta(x), 1, 2)), transpose(log_decay, 1, 2), chunk);
    return proj(merge_heads(norm(y)) * silu(gate(x)));
  };
  return run(attend, input);
}

}  // namespace rapt::inline RAPT_ABI

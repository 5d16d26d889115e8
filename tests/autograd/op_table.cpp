#include "op_table.h"

#include <rapt/core/random.h>

#include <cmath>
#include <numeric>
#include <utility>

namespace rapt::inline RAPT_ABI {

namespace {

// Rounded to float, so that both libraries begin with the same numbers.
Tensor random_tensor(const RowInput& input, uint64_t seed) {
  Random random{seed, 0};
  int64_t n = input.shape.numel();
  std::vector<Real> values(size_t(n), 0);
  for (int64_t i = 0; i < n; ++i) {
    double u = input.apart ? (double(i) + 0.5) / double(n) : random.uniform(uint64_t(i));
    values[size_t(i)] = Real(float(input.low + (input.high - input.low) * u));
  }
  for (int64_t i = n - 1; input.apart && i > 0; --i) {
    std::swap(values[size_t(i)], values[size_t(random.below(i + 1, uint64_t(i)))]);
  }
  return from_values(input.shape, values);
}

// 0, 1, …, classes − 1, 0, …
Tokens cycling(const Shape& shape, int32_t classes) {
  std::vector<int32_t> ids(size_t(shape.numel()));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = int32_t(i) % classes;
  return {shape, ids};
}

Tensor of_length_one(const Tensor& x) { return x / sqrt(sum(x * x, {-1}, true) + 1e-3); }

// x (…, N, D), the first `dims` channels turned: row n, pair c by n + c radians.
Tensor turned(const Tensor& x, int64_t dims, RotaryStyle style) {
  Tensor cosine = empty({x.shape[-2], dims / 2}), sine = empty(cosine.shape);
  for (int64_t n = 0; n < cosine.shape[0]; ++n) {
    for (int64_t c = 0; c < cosine.shape[1]; ++c) {
      cosine.set({n, c}, Real(std::cos(double(n + c))));
      sine.set({n, c}, Real(std::sin(double(n + c))));
    }
  }
  return rotate(x, cosine, sine, style);
}

}  // namespace

RowInput in(const Shape& shape, double low, double high) { return {shape, low, high}; }
RowInput positive(const Shape& shape) { return {shape, 0.5, 2}; }
RowInput apart(const Shape& shape, double shift) { return {shape, -2 + shift, 2 + shift, true}; }

std::vector<OpRow> op_table(int64_t n) {
  return {
      // Arithmetic
      {"add", [](Inputs x) { return x[0] + x[1]; }, {in({n, 4}), in({n, 4})}, {.broadcasts = true}},
      {"add/number", [](Inputs x) { return x[0] + 2.5; }, {in({n, 4})}},
      {"add/itself", [](Inputs x) { return x[0] + x[0]; }, {in({n, 4})}},
      {"sub", [](Inputs x) { return x[0] - x[1]; }, {in({n, 4}), in({n, 4})}, {.broadcasts = true}},
      {"sub/from_number", [](Inputs x) { return 2.5 - x[0]; }, {in({n, 4})}},
      {"mul", [](Inputs x) { return x[0] * x[1]; }, {in({n, 4}), in({n, 4})}, {.broadcasts = true}},
      {"mul/number", [](Inputs x) { return 3 * x[0]; }, {in({n, 4})}},
      {"mul/outer", [](Inputs x) { return x[0] * x[1]; }, {in({n, 1}), in({4})}},
      {"mul/ranks", [](Inputs x) { return x[0] * x[1]; }, {in({2, 1, 1, 4}), in({n, 1})}},
      {"mul/itself", [](Inputs x) { return x[0] * x[0]; }, {in({n, 4})}},
      {"div", [](Inputs x) { return x[0] / x[1]; }, {in({n, 4}), positive({n, 4})}, {.broadcasts = true}},
      {"div/of_number", [](Inputs x) { return 3 / x[0]; }, {positive({n, 4})}},
      {"neg", [](Inputs x) { return -x[0]; }, {in({n, 4})}},
      {"abs", [](Inputs x) { return abs(x[0]); }, {apart({n, 4})}},
      {"pow/1", [](Inputs x) { return pow(x[0], 1.0); }, {in({n, 4})}},
      {"pow/2", [](Inputs x) { return pow(x[0], 2.0); }, {in({n, 4})}},
      {"pow/3", [](Inputs x) { return pow(x[0], 3.0); }, {in({n, 4})}},
      {"pow/fraction", [](Inputs x) { return pow(x[0], -1.5); }, {positive({n, 4})}},
      {"pow/tensor", [](Inputs x) { return pow(x[0], x[1]); }, {positive({n, 4}), in({n, 4})}, {.broadcasts = true}},
      {"clamp", [](Inputs x) { return clamp(x[0], -1, 0.83); }, {apart({n, 4}, 0.05)}},
      {"maximum",
       [](Inputs x) { return maximum(x[0], x[1]); },
       {apart({n, 4}), apart({n, 4}, 0.15)},
       {.broadcasts = true}},
      {"maximum/number", [](Inputs x) { return maximum(x[0], 0.33); }, {apart({n, 4}, 0.05)}},
      {"where",
       [](Inputs x) {
         return where(from_values({4}, {1, 0, 0, 2}), x[0], x[1]);
       },
       {in({n, 4}), in({n, 4})},
       {.broadcasts = true}},
      {"where/number",
       [](Inputs x) {
         return where(from_values({4}, {1, 0, 0, 2}), x[0], 0.5);
       },
       {in({n, 4})}},

      // Functions of one number
      {"exp", [](Inputs x) { return exp(x[0]); }, {in({n, 5}, -3, 3)}},
      {"log", [](Inputs x) { return log(x[0]); }, {positive({n, 5})}},
      {"sqrt", [](Inputs x) { return sqrt(x[0]); }, {positive({n, 5})}},
      {"sigmoid", [](Inputs x) { return sigmoid(x[0]); }, {in({n, 5}, -5, 5)}},
      {"tanh", [](Inputs x) { return tanh(x[0]); }, {in({n, 5}, -3, 3)}},
      {"relu", [](Inputs x) { return relu(x[0]); }, {apart({n, 5}, 0.07)}},
      {"gelu", [](Inputs x) { return gelu(x[0]); }, {in({n, 5}, -4, 4)}},
      {"gelu/tanh", [](Inputs x) { return gelu(x[0], Gelu::tanh); }, {in({n, 5}, -4, 4)}},
      {"silu", [](Inputs x) { return silu(x[0]); }, {in({n, 5}, -5, 5)}},
      {"softplus", [](Inputs x) { return softplus(x[0]); }, {in({n, 5}, -5, 5)}},

      // Reductions
      {"sum", [](Inputs x) { return sum(x[0]); }, {in({n, 3, 4})}, {.float_tolerance = 1e-4}},
      {"sum/first", [](Inputs x) { return sum(x[0], {0}); }, {in({n, 3, 4})}},
      {"sum/middle", [](Inputs x) { return sum(x[0], {1}); }, {in({n, 3, 4})}},
      {"sum/last", [](Inputs x) { return sum(x[0], {-1}, true); }, {in({n, 3, 4})}},
      {"sum/two",
       [](Inputs x) {
         return sum(x[0], {2, 0});
       },
       {in({n, 3, 4})}},
      {"mean", [](Inputs x) { return mean(x[0]); }, {in({n, 3, 4})}},
      {"mean/first", [](Inputs x) { return mean(x[0], {0}, true); }, {in({n, 3, 4})}},
      {"mean/two",
       [](Inputs x) {
         return mean(x[0], {1, -1});
       },
       {in({n, 3, 4})}},
      {"max/first", [](Inputs x) { return max(x[0], 0); }, {apart({n, 3, 4})}, {.smallest = 1}},
      {"max/middle", [](Inputs x) { return max(x[0], 1, true); }, {apart({n, 3, 4})}},
      {"max/last", [](Inputs x) { return max(x[0], -1); }, {apart({n, 3, 4})}},
      {"logsumexp/first", [](Inputs x) { return logsumexp(x[0], 0); }, {in({n, 3, 4})}, {.smallest = 1}},
      {"logsumexp/middle", [](Inputs x) { return logsumexp(x[0], 1); }, {in({n, 3, 4})}},
      {"logsumexp/last", [](Inputs x) { return logsumexp(x[0], -1, true); }, {in({n, 3, 4})}},
      {"squared_norm", [](Inputs x) { return squared_norm(x[0]); }, {in({n, 3, 4})}},
      {"cumsum/first", [](Inputs x) { return cumsum(x[0], 0); }, {in({n, 3, 4})}},
      {"cumsum/last", [](Inputs x) { return cumsum(x[0], -1); }, {in({n, 3, 4})}},

      // Views and rearrangement
      {"slice", [](Inputs x) { return slice(x[0], 1, 1, 3); }, {in({n, 4, 2})}},
      {"slice/step", [](Inputs x) { return slice(x[0], -1, 0, -1, 2); }, {in({n, 6})}},
      {"slice/overlapping", [](Inputs x) { return slice(x[0], 1, 0, 4) * slice(x[0], 1, 2, 6); }, {in({n, 6})}},
      {"select", [](Inputs x) { return select(x[0], 1, -1); }, {in({n, 4, 2})}},
      {"transpose", [](Inputs x) { return transpose(x[0], 0, -1); }, {in({n, 4, 2})}},
      {"permute",
       [](Inputs x) {
         return permute(x[0], {2, 0, -2});
       },
       {in({n, 4, 2})}},
      {"reshape",
       [n](Inputs x) {
         return reshape(x[0], {2, n, -1});
       },
       {in({n, 4, 2})},
       {.smallest = 1}},
      {"reshape/copying",
       [n](Inputs x) {
         return reshape(transpose(x[0], 0, 1), {4 * n, 2});
       },
       {in({n, 4, 2})}},
      {"reshape/repeated",
       [n](Inputs x) {
         return reshape(expand(x[0], {n, 2, 3}), {6 * n});
       },
       {in({n, 1, 3})}},
      {"reshape/repeated_inside",
       [n](Inputs x) {
         return reshape(expand(x[0], {n, 2, 3}), {6 * n});
       },
       {in({n, 2, 1})}},
      {"expand",
       [n](Inputs x) {
         return expand(x[0], {n, 4, 2});
       },
       {in({n, 1, 2})}},
      {"expand/new",
       [n](Inputs x) {
         return expand(x[0], {3, n, 2});
       },
       {in({n, 1})}},
      {"squeeze", [](Inputs x) { return squeeze(x[0], -2); }, {in({n, 1, 2})}},
      {"unsqueeze", [](Inputs x) { return unsqueeze(x[0], -1); }, {in({n, 2})}},
      {"unsqueeze/first", [](Inputs x) { return unsqueeze(x[0], 0); }, {in({n, 2})}},
      {"cat", [](Inputs x) { return cat(x, 1); }, {in({n, 2, 2}), in({n, 1, 2}), in({n, 3, 2})}},
      {"cat/first", [](Inputs x) { return cat(x, 0); }, {in({n, 3}), in({2, 3})}},
      {"cat/empty", [](Inputs x) { return cat(x, -1); }, {in({n, 3}), in({n, 0})}},
      {"cat/many", [](Inputs x) { return cat(std::vector<Tensor>(70, x[0]), 0); }, {in({n, 3})}, {.many = 500}},
      {"stack", [](Inputs x) { return stack(x, 0); }, {in({n, 2}), in({n, 2})}},
      {"stack/last", [](Inputs x) { return stack(x, -1); }, {in({n, 2}), in({n, 2})}},
      {"stack/many", [](Inputs x) { return stack(std::vector<Tensor>(40, x[0]), 1); }, {in({n, 3})}, {.many = 500}},
      {"split",
       [](Inputs x) {
         std::vector<Tensor> part = split(x[0], 2, 1);
         return part[0] * part[1] + part[2];
       },
       {in({n, 5})}},
      {"pad", [](Inputs x) { return pad(x[0], 1, 2, 1, 0.5); }, {in({n, 3, 2})}},
      {"pad/first", [](Inputs x) { return pad(x[0], 0, 0, 2); }, {in({n, 3})}},
      {"index_select",
       [](Inputs x) {
         return index_select(x[0], 1, {{4}, {2, 0, 2, 2}});
       },
       {in({n, 3, 2})}},
      {"index_select/last",
       [](Inputs x) {
         return index_select(x[0], -1, {{3}, {0, 3, 0}});
       },
       {in({n, 4})}},
      {"index_select/first",
       [](Inputs x) {
         return index_select(x[0], 0, {{3}, {1, 1, 0}});
       },
       {in({2, n})}},

      // Products
      {"matmul", [](Inputs x) { return matmul(x[0], x[1]); }, {in({n, 3}), in({3, 4})}},
      {"matmul/inner",
       [](Inputs x) { return matmul(x[0], x[1]); },
       {in({2, n}), in({n, 3})},
       {.float_tolerance = 1e-4}},
      {"matmul/stack", [](Inputs x) { return matmul(x[0], x[1]); }, {in({n, 2, 3}), in({n, 3, 2})}},
      {"matmul/broadcast", [](Inputs x) { return matmul(x[0], x[1]); }, {in({n, 1, 2, 3}), in({4, 3, 2})}},
      {"matmul/by_column", [](Inputs x) { return matmul(x[0], x[1]); }, {in({n, 2, 3}), in({3})}},
      {"matmul/row_by", [](Inputs x) { return matmul(x[0], x[1]); }, {in({3}), in({n, 3, 2})}},
      {"matmul/dot", [](Inputs x) { return matmul(x[0], x[1]); }, {in({n}), in({n})}, {.float_tolerance = 1e-4}},
      {"linear", [](Inputs x) { return linear(x[0], x[1], x[2]); }, {in({n, 3}), in({4, 3}), in({4})}},
      {"linear/no_bias", [](Inputs x) { return linear(x[0], x[1]); }, {in({2, n, 3}), in({4, 3})}},

      // Normalisation
      {"softmax", [](Inputs x) { return softmax(x[0]); }, {in({n, 5})}},
      {"softmax/middle", [](Inputs x) { return softmax(x[0], 1); }, {in({n, 5, 2})}},
      {"softmax/first", [](Inputs x) { return softmax(x[0], 0); }, {in({n, 3})}},
      {"log_softmax", [](Inputs x) { return log_softmax(x[0]); }, {in({n, 5})}},
      {"log_softmax/middle", [](Inputs x) { return log_softmax(x[0], -2); }, {in({n, 5, 2})}},
      {"layer_norm", [](Inputs x) { return layer_norm(x[0], x[1], x[2]); }, {in({n, 6}), in({6}), in({6})}},
      {"layer_norm/weight", [](Inputs x) { return layer_norm(x[0], x[1], {}); }, {in({2, n, 6}), in({6})}},
      {"layer_norm/plain", [](Inputs x) { return layer_norm(x[0], {}, {}); }, {in({n, 6})}},
      {"rms_norm", [](Inputs x) { return rms_norm(x[0], x[1]); }, {in({n, 6}), in({6})}},
      {"rms_norm/plain", [](Inputs x) { return rms_norm(x[0], {}); }, {in({2, n, 6})}},

      // Lookup and noise
      {"embedding", [n](Inputs x) { return embedding(x[0], cycling({n}, 3)); }, {in({3, 4})}},
      {"embedding/stack",
       [n](Inputs x) {
         return embedding(x[0], cycling({2, n}, 2));
       },
       {in({5, 4})}},
      {"dropout", [](Inputs x) { return dropout(x[0], 0.3); }, {in({n, 5})}},

      // Positions
      {"rotate", [](Inputs x) { return turned(x[0], 4, RotaryStyle::half_split); }, {in({2, n, 2, 4})}},
      {"rotate/interleaved", [](Inputs x) { return turned(x[0], 4, RotaryStyle::interleaved); }, {in({n, 5})}},
      {"rotate/heads",
       [](Inputs x) { return turned(transpose(x[0], 1, 2), 2, RotaryStyle::half_split); },
       {in({2, n, 2, 3})}},

      // Losses
      {"cross_entropy", [n](Inputs x) { return cross_entropy(x[0], cycling({n}, 5)); }, {in({n, 5})}},
      {"cross_entropy/options",
       [n](Inputs x) {
         return cross_entropy(x[0], cycling({2, n}, 5), {.ignore_index = 1, .label_smoothing = 0.1});
       },
       {in({2, n, 5})}},
      {"linear_cross_entropy",
       [n](Inputs x) { return linear_cross_entropy(x[0], x[1], cycling({n}, 5)); },
       {in({n, 3}), in({5, 3})}},
      {"linear_cross_entropy/options",
       [n](Inputs x) {
         return 3 * linear_cross_entropy(x[0], x[1], cycling({2, n}, 5), {.ignore_index = 1, .label_smoothing = 0.1});
       },
       {in({2, n, 3}), in({5, 3})}},

      // Attention
      {"attention",
       [](Inputs x) { return attention(x[0], x[1], x[2]); },
       {in({n, 2, 3, 4}), in({n, 2, 5, 4}), in({n, 2, 5, 3})},
       {.many = 300}},
      {"attention/causal",
       [](Inputs x) { return attention(x[0], x[1], x[2], {.mask = causal(), .scale = 0.3}); },
       {in({2, 4, n, 4}), in({2, 2, n, 4}), in({2, 2, n, 4})},
       {.many = 150}},
      {"attention_dense",
       [](Inputs x) { return attention_dense(x[0], x[1], x[2], {.mask = causal()}); },
       {in({2, 2, n, 4}), in({2, 1, n, 4}), in({2, 1, n, 3})},
       {.many = 70}},
      {"repeat_heads", [](Inputs x) { return repeat_heads(x[0], 6); }, {in({2, 3, n, 2})}},
      {"packed_attention",
       [](Inputs x) { return packed_attention(x[0], 2, {.mask = causal()}); },
       {in({n, 3, 24})},
       {.many = 300}},

      // Recurrences
      {"linear_attention",
       [](Inputs x) { return linear_attention(x[0], x[1], x[2], {.chunk = 4}); },
       {in({2, 4, n, 3}), in({2, 2, n, 3}), in({2, 2, n, 5})},
       {.many = 150, .float_tolerance = 1e-4}},
      {"linear_attention/normalized",
       [](Inputs x) { return linear_attention(x[0], x[1], x[2], {.normalize = true, .chunk = 4}); },
       {positive({2, 2, n, 3}), positive({2, 2, n, 3}), in({2, 2, n, 3})},
       {.many = 150, .float_tolerance = 1e-4}},
      {"decay_attention",
       [](Inputs x) { return decay_attention(x[0], x[1], x[2], x[3], 4); },
       {in({2, 4, n, 3}), in({2, 2, n, 3}), in({2, 2, n, 5}), in({2, 4, n}, -2, 0)},
       {.many = 150, .float_tolerance = 1e-4}},
      {"decay_attention/constant",
       [](Inputs x) { return decay_attention(x[0], x[1], x[2], x[3], 4); },
       {in({2, 2, n, 3}), in({2, 2, n, 3}), in({2, 2, n, 3}), in({2, 1}, -1, 0)},
       {.many = 150, .float_tolerance = 1e-4}},
      {"delta_rule",
       [](Inputs x) { return delta_rule(x[0], of_length_one(x[1]), x[2], x[3], {}, 4); },
       {in({2, 4, n, 3}), in({2, 2, n, 3}), in({2, 2, n, 5}), in({2, 4, n}, 0, 1)},
       {.many = 150, .float_tolerance = 1e-4}},
      {"delta_rule/gated",
       [](Inputs x) { return delta_rule(x[0], of_length_one(x[1]), x[2], x[3], x[4], 4); },
       {in({2, 2, n, 3}), in({2, 2, n, 3}), in({2, 2, n, 3}), in({2, 2, n}, 0, 1), in({2, 2, n}, -2, 0)},
       {.many = 150, .float_tolerance = 1e-4}},
      {"inverse_unit_lower", [](Inputs x) { return inverse_unit_lower(x[0]); }, {in({n, 5, 5}, -1, 1)}},
      {"inverse_unit_lower/size",
       [](Inputs x) { return inverse_unit_lower(0.05 * x[0]); },
       {in({2, n, n}, -1, 1)},
       {.many = 40}},
      {"affine_scan",
       [](Inputs x) { return affine_scan(x[0], x[1]); },
       {in({n, 2, 5, 3, 3}, -1, 1), in({n, 2, 5, 3, 2})}},
      {"affine_scan/numbers",
       [](Inputs x) { return affine_scan(x[0], x[1]); },
       {in({2, n, 1, 1}, -1, 1), in({2, n, 3, 2})},
       {.many = 300}},
  };
}

std::vector<Tensor> make_inputs(const OpRow& row) {
  std::vector<Tensor> inputs;
  for (const RowInput& input : row.inputs) inputs.push_back(random_tensor(input, 100 + inputs.size()));
  return inputs;
}

Tensor random_cotangent(const Shape& shape) { return random_tensor(in(shape, -1, 1), 7); }

RowOutcome run_row(const OpRow& row, Inputs inputs, uint32_t wanted, Tensor cotangent) {
  std::vector<Tensor> leaves;
  for (const Tensor& x : inputs) {
    leaves.push_back(wanted >> leaves.size() & 1 ? requires_grad(x.detach()) : x.detach());
  }
  manual_seed(5);
  Tensor y = row.function(leaves);
  RowOutcome outcome{y.detach(), std::vector<Tensor>(leaves.size())};
  if (!y.node) return outcome;
  backward(y, cotangent ? cotangent : random_cotangent(y.shape));
  for (size_t i = 0; i < leaves.size(); ++i) {
    if (!leaves[i].node) continue;
    const Tensor& g = gradient(leaves[i]);
    outcome.gradients[i] = g ? g : zeros(leaves[i].shape);
  }
  return outcome;
}

}  // namespace rapt::inline RAPT_ABI

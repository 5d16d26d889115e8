#include "attention_variants.h"

#include <rapt/core/random.h>
#include <rapt/core/view.h>

#include <cmath>

namespace rapt::inline RAPT_ABI {

namespace {

using Sizes = AttentionSizes;
using Shapes = std::vector<Shape>;

Shapes none(const Sizes&) { return {}; }
Shapes per_head(const Sizes& s) { return {{s.heads}}; }

template <class F>
std::function<AttentionOptions(const AttentionCase&)> scored(F score) {
  return [score](const AttentionCase& c) {
    AttentionOptions o;
    o.score = score(c);
    return o;
  };
}

template <class F>
std::function<AttentionOptions(const AttentionCase&)> normalized(F normalizer) {
  return [normalizer](const AttentionCase& c) {
    AttentionOptions o;
    o.normalizer = normalizer(c);
    return o;
  };
}

std::vector<AttentionVariant> make_variants() {
  using C = const AttentionCase&;
  std::vector<AttentionVariant> all{
      {"plain", none, [](C) { return AttentionOptions{}; }},
      {"scale", none, [](C) { return AttentionOptions{.scale = 0.3}; }},
      {"dropout", none,
       [](C) {
         return AttentionOptions{.dropout_state = WeightDropout{0.3, 11, 5}};
       }},
      {"softcap", none, scored([](C) { return softcap(0.7); })},
      {"softcap learned", [](const Sizes&) { return Shapes{{}}; }, scored([](C c) { return softcap(c.tables[0]); })},
      {"temperature",
       [](const Sizes& s) {
         return Shapes{{s.heads, 1, 1}};
       },
       scored([](C c) { return temperature(c.tables[0]); })},
      {"bias per query and key",
       [](const Sizes& s) {
         return Shapes{{s.queries, s.keys}};
       },
       scored([](C c) { return bias(c.tables[0]); })},
      {"bias full",
       [](const Sizes& s) {
         return Shapes{{s.batch, s.heads, s.queries, s.keys}};
       },
       scored([](C c) { return bias(c.tables[0]); })},
      {"bias of batch entries",
       [](const Sizes& s) {
         return Shapes{{s.batch, 1, s.queries, s.keys}};
       },
       scored([](C c) { return bias(c.tables[0]); })},
      {"bias per key",
       [](const Sizes& s) {
         return Shapes{{s.batch, 1, 1, s.keys}};
       },
       scored([](C c) { return bias(c.tables[0]); })},
      {"bias per query, softcap, bias of one number",
       [](const Sizes& s) {
         return Shapes{{s.heads, s.queries, 1}, {}};
       },
       scored([](C c) { return bias(c.tables[0]) | softcap(2) | bias(c.tables[1]); })},
      {"alibi", per_head, scored([](C c) { return alibi(c.tables[0]); })},
      {"t5",
       [](const Sizes& s) {
         return Shapes{{s.heads, 8}};
       },
       scored([](C c) { return t5_bias(c.tables[0], 16, true); })},
      {"t5 causal",
       [](const Sizes& s) {
         return Shapes{{s.heads, 6}};
       },
       scored([](C c) { return t5_bias(c.tables[0], 20, false); })},
      {"distance",
       [](const Sizes& s) {
         return Shapes{{s.heads, std::max<int64_t>(0, s.queries + s.keys - 1)}};
       },
       scored([](C c) { return relative_bias(c.tables[0]); })},
      {"forget",
       [](const Sizes& s) {
         return Shapes{{s.batch, s.heads, s.keys}};
       },
       scored([](C c) { return forget_gates(c.tables[0]); })},
      {"lambda",
       [](const Sizes& s) {
         return Shapes{{s.heads}, {s.batch, s.queries}, {s.keys, 2}, {}};
       },
       scored([](C c) {
         return score_modifier(
             [](auto s, At at, auto a, auto b, auto d, auto e) {
               return tanh(s * a[at.head]) / (1 + exp(b(at.batch, at.row))) +
                      max(d(at.key, at.key % 2), e()) * sigmoid(s);
             },
             c.tables[0], c.tables[1], c.tables[2], c.tables[3]);
       })},
      {"gaussian", per_head,
       [](C c) {
         return AttentionOptions{.score = gaussian_kernel(squared_norm(c.q), squared_norm(c.k), c.tables[0]),
                                 .scale = 1};
       },
       false, true},
      {"gaussian, not divided", per_head,
       [](C c) {
         return AttentionOptions{.score = gaussian_kernel(squared_norm(c.q), squared_norm(c.k), c.tables[0]),
                                 .normalizer = exp_weights(),
                                 .scale = 1};
       },
       false, true, false},
      {"laplace", per_head,
       [](C c) {
         return AttentionOptions{.score = laplace_kernel(squared_norm(c.q), squared_norm(c.k), c.tables[0]),
                                 .scale = 1};
       },
       false, true},
      {"epanechnikov", per_head,
       [](C c) {
         return AttentionOptions{.score = epanechnikov_kernel(squared_norm(c.q), squared_norm(c.k), c.tables[0] + 3),
                                 .normalizer = relu_ratio(1),
                                 .scale = 1};
       },
       false, true},
      {"sink", per_head, normalized([](C c) { return softmax_with_sink(c.tables[0]); })},
      {"plus one", none, normalized([](C c) { return softmax_plus_one(c.sizes.heads); })},
      {"signed", none, normalized([](C) { return signed_softmax(); })},
      {"sigmoid",
       [](const Sizes& s) {
         return Shapes{{s.heads, 1, 1}};
       },
       [](C c) { return AttentionOptions{.score = bias(c.tables[0]), .normalizer = sigmoid_weights()}; }, false, false,
       false},
      {"relu", none, normalized([](C) { return relu_weights(1); }), false, false, false},
      {"relu squared", none, normalized([](C) { return relu_weights(2); }), false, false, false},
      {"relu squared over its sum", none,
       [](C) {
         return AttentionOptions{.score = score_modifier([](auto s, At) { return s + 3; }),
                                 .normalizer = relu_ratio(2)};
       }},
      {"inverted", none, normalized([](C) { return inverted_softmax(); })},
      {"inverted with a bias",
       [](const Sizes& s) {
         return Shapes{{s.heads, s.queries, s.keys}};
       },
       [](C c) { return AttentionOptions{.score = bias(c.tables[0]) | softcap(3), .normalizer = inverted_softmax()}; }},
      {"top-k", none, normalized([](C) { return top_k(3); })},
      {"hard", none, normalized([](C) { return hard_attention(); }), true},
      {"entmax", none, normalized([](C) { return entmax(1.5); }), false, false, false},
      {"sparsemax", none, normalized([](C) { return entmax(2); }), false, false, false},
      {"stick-breaking", none,
       [](C) { return AttentionOptions{.mask = strictly_causal(), .normalizer = stick_breaking()}; }, false, false,
       false},
      {"contextual positions",
       [](const Sizes& s) {
         return Shapes{{s.batch, s.heads, s.queries, 4}};
       },
       normalized([](C c) { return contextual_positions(c.tables[0]); })},
      {"talking heads",
       [](const Sizes& s) {
         return Shapes{{s.heads, s.heads}, {s.heads, s.heads}};
       },
       normalized([](C c) { return talking_heads(c.tables[0], c.tables[1]); })},
      {"talking heads with dropout and a bias",
       [](const Sizes& s) {
         return Shapes{{s.heads, s.heads}, {s.heads, s.heads}, {s.heads, 1, s.keys}};
       },
       [](C c) {
         return AttentionOptions{.score = bias(c.tables[2]),
                                 .normalizer = talking_heads(c.tables[0], c.tables[1]),
                                 .dropout_state = WeightDropout{0.2, 3, 1}};
       }},
      {"transformer-xl",
       [](const Sizes& s) {
         return Shapes{{s.batch, s.heads, s.queries, s.dim},
                       {s.heads, std::max<int64_t>(0, s.queries + s.keys - 1), s.dim}};
       },
       [](C c) { return AttentionOptions{.relative_queries = c.tables[0], .relative_keys = c.tables[1]}; }},
      {"shaw",
       [](const Sizes& s) {
         return Shapes{{s.batch, s.heads, s.queries, 5}, {5, s.value_dim}};
       },
       [](C c) {
         AttentionOptions o;
         o.score = score_modifier(
             [](auto s, At at, auto t) {
               return s + t(at.batch, at.head, at.row, std::clamp<int64_t>(at.key - at.query, -2, 2) + 2);
             },
             c.tables[0]);
         o.relative_values = c.tables[1];
         o.dropout_state = WeightDropout{0.25, 8, 0};
         return o;
       }},
      {"window, sink, softcap, alibi, dropout",
       [](const Sizes& s) {
         return Shapes{{s.heads}, {s.heads}};
       },
       [](C c) {
         return AttentionOptions{.mask = window(5, 2),
                                 .score = softcap(2) | alibi(c.tables[0]),
                                 .normalizer = softmax_with_sink(c.tables[1]),
                                 .dropout_state = WeightDropout{0.1, 77, 0}};
       }},
      {"prefix or dilated, not chunked", none,
       [](C) { return AttentionOptions{.mask = prefix(2) | (dilated(3) & !chunked(4)) | global(1)}; }},
  };
  return all;
}

}  // namespace

std::vector<Tensor> AttentionCase::inputs() const {
  std::vector<Tensor> all{q, k, v};
  all.insert(all.end(), tables.begin(), tables.end());
  return all;
}

AttentionCase AttentionCase::with(const std::vector<Tensor>& x) const {
  return {sizes, x[0], x[1], x[2], std::vector<Tensor>(x.begin() + 3, x.end())};
}

const std::vector<AttentionVariant>& attention_variants() {
  static const std::vector<AttentionVariant> all = make_variants();
  return all;
}

std::vector<AttentionSetting> attention_settings(int64_t n) {
  auto all = [](const Sizes&) { return Mask(); };
  auto documents = [](const Sizes& s) {
    Tokens ids;
    ids.shape = {s.batch, s.keys};
    for (int64_t b = 0; b < s.batch; ++b) {
      for (int64_t j = 0; j < s.keys; ++j) ids.ids.push_back(int32_t((j + b) * 3 / s.keys));
    }
    return document(ids) & causal();
  };
  auto padded = [](const Sizes& s) {  // the last keys; in the second batch entry all of them
    Tokens padding;
    padding.shape = {s.batch, s.keys};
    for (int64_t b = 0; b < s.batch; ++b) {
      for (int64_t j = 0; j < s.keys; ++j) padding.ids.push_back(b == 1 || j > s.keys * 2 / 3);
    }
    return key_padding(padding);
  };
  auto scattered = [](const Sizes& s) {
    Tensor keep = empty({s.heads, s.queries, s.keys});
    for (int64_t e = 0; e < keep.numel(); ++e) keep.mutable_data()[e] = Real(e * 7 % 5 > 1);
    return keep_where(keep);
  };
  return {
      {"everything", {.queries = n, .keys = n}, all},
      {"causal", {.queries = n, .keys = n}, [](const Sizes&) { return causal(); }},
      {"causal, fewer queries", {.queries = n / 2, .keys = n + 3}, [](const Sizes&) { return causal(); }},
      {"causal, rows without keys", {.queries = n + 4, .keys = n - 1}, [](const Sizes&) { return causal(); }},
      {"causal top left", {.queries = n, .keys = n + 5}, [](const Sizes&) { return causal_top_left(); }},
      {"window", {.queries = n, .keys = n}, [n](const Sizes&) { return window(n / 3, 2); }},
      {"documents", {.queries = n, .keys = n}, documents},
      {"padding", {.queries = n - 1, .keys = n + 1}, padded},
      {"scattered", {.queries = n, .keys = n + 2}, scattered},
      {"grouped heads", {.heads = 4, .kv_heads = 2, .queries = n, .keys = n}, [](const Sizes&) { return causal(); }},
      {"one kv head",
       {.batch = 1, .heads = 3, .kv_heads = 1, .queries = n, .keys = n + 1, .dim = 3, .value_dim = 7},
       all},
      {"one query", {.queries = 1, .keys = n}, all},
      {"one key, one dimension", {.queries = n, .keys = 1, .dim = 1, .value_dim = 1}, all},
  };
}

AttentionCase make_case(const AttentionVariant& variant, const AttentionSizes& s) {
  manual_seed(42);
  auto leaf = [](const Tensor& x) { return requires_grad(x); };
  AttentionCase c{s,
                  leaf(normal({s.batch, s.heads, s.queries, s.dim})),
                  leaf(normal({s.batch, s.kv_heads, s.keys, s.dim})),
                  leaf(normal({s.batch, s.kv_heads, s.keys, s.value_dim})),
                  {}};
  for (const Shape& shape : variant.tables(s))
    c.tables.push_back(leaf(variant.kernel ? uniform(shape, Real(1), Real(2)) : normal(shape, Real(0.2), Real(0.8))));
  return c;
}

AttentionOptions options_of(const AttentionVariant& variant, const AttentionSetting& setting, const AttentionCase& c) {
  AttentionOptions o = variant.options(c);
  o.mask = o.mask & setting.mask(setting.sizes);
  return o;
}

Tensor attention_objective(const AttentionVariant& variant, const AttentionSetting& setting, const AttentionCase& c,
                           bool dense, AttentionResult* result) {
  AttentionOptions o = options_of(variant, setting, c);
  AttentionResult r = dense ? attention_dense_with_lse(c.q, c.k, c.v, o) : attention_with_lse(c.q, c.k, c.v, o);
  if (result) *result = r;
  manual_seed(7);
  Tensor objective = sum(r.out * normal(r.out.shape));
  Tensor weights = normal(r.lse.shape), finite = clone(r.lse.detach());
  if (!variant.has_lse) return objective;
  for (int64_t e = 0; e < finite.numel(); ++e) finite.mutable_data()[e] = Real(std::isfinite(finite.data()[e]));
  return objective + sum(where(finite, r.lse, 0) * weights);
}

AttentionOutcome attend(const AttentionVariant& variant, const AttentionSetting& setting, bool dense) {
  AttentionCase c = make_case(variant, setting.sizes);
  AttentionResult r;
  Tensor objective = attention_objective(variant, setting, c, dense, &r);
  backward(objective);
  AttentionOutcome outcome{r.out.detach(), r.lse.detach(), {}};
  for (const Tensor& x : c.inputs()) {
    const Tensor& g = gradient(x);
    outcome.gradients.push_back(g ? g : zeros(x.shape));
  }
  return outcome;
}

}  // namespace rapt::inline RAPT_ABI

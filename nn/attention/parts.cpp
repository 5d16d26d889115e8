#include "parts.h"

#include <algorithm>
#include <cmath>

#include "heads.h"

namespace rapt::inline RAPT_ABI {

namespace {

struct Rotary final : AttentionPart {
  RotaryEmbedding rotary;
  explicit Rotary(const RotaryOptions& o) : rotary(o) {}
  std::string name() const override { return rotary.options().xpos ? "xpos" : "rope"; }
  void before(AttentionState& s) const override {
    s.q = rotary.queries(s.q, s.first_position);
    s.k = rotary.keys(s.k, s.first_position);
  }
  std::optional<int64_t> horizon() const override {  // xPos has an end
    return rotary.options().xpos ? std::nullopt : std::optional(Band::kFar);
  }
};

struct Alibi final : AttentionPart {
  Tensor slopes, log_slopes;
  Alibi(const PartSizes& sizes, bool learned) : slopes(alibi_slopes(sizes.heads)) {
    if (learned) log_slopes = param("log_slopes", log(slopes));
  }
  std::string name() const override { return "alibi"; }
  void add_options(AttentionState& s) const override {
    s.options.score = s.options.score | alibi(log_slopes ? exp(log_slopes) : slopes);
  }
};

struct T5 final : AttentionPart {
  Tensor table;
  int64_t reach;
  T5(const PartSizes& sizes, int64_t buckets, int64_t r)
      : table(param("table", zeros({sizes.heads, buckets}))), reach(r) {
    t5_bias(table, reach, false);  // refuses sizes that make no sense
  }
  std::string name() const override { return "t5"; }
  void add_options(AttentionState& s) const override {
    s.options.score = s.options.score | t5_bias(table, reach, false);
  }
};

struct Distance final : AttentionPart {
  Tensor table;
  explicit Distance(const PartSizes& sizes) : table(param("table", zeros({sizes.heads, sizes.context}))) {}
  std::string name() const override { return "distance"; }
  void add_options(AttentionState& s) const override {
    s.options.score =
        s.options.score | score_modifier(
                              "distance",
                              [last = table.shape[1] - 1](auto score, At at, auto t) {
                                return score + t(at.head, std::clamp<int64_t>(at.query - at.key, 0, last));
                              },
                              table);
  }
};

struct Shaw final : AttentionPart {
  Tensor keys, values;
  int64_t reach;
  Shaw(const PartSizes& sizes, int64_t r)
      : keys(param("keys", normal({2 * r + 1, sizes.head_dim}, 0, Real(0.02)))),
        values(param("values", normal({2 * r + 1, sizes.head_dim}, 0, Real(0.02)))),
        reach(r) {}
  std::string name() const override { return "shaw"; }
  void add_options(AttentionState& s) const override {
    double scale = s.options.scale != 0 ? s.options.scale : 1 / std::sqrt(double(s.q.shape[3]));
    s.options.score = s.options.score | score_modifier(
                                            "shaw",
                                            [c = reach](auto score, At at, auto t) {
                                              return score + t(at.batch, at.head, at.row,
                                                               std::clamp<int64_t>(at.key - at.query, -c, c) + c);
                                            },
                                            matmul(s.q * scale, transpose(keys, 0, 1)));
    s.options.relative_values = values;
  }
};

struct TransformerXl final : AttentionPart {
  Tensor content_bias, position_bias;
  Linear keys;
  int64_t heads, head_dim;
  explicit TransformerXl(const PartSizes& z)
      : content_bias(param("content_bias", zeros({z.heads, z.head_dim}))),
        position_bias(param("position_bias", zeros({z.heads, z.head_dim}))),
        keys(child<Linear>("keys", z.dim, z.heads * z.head_dim, LinearOptions{false, 0.02})),
        heads(z.heads),
        head_dim(z.head_dim) {}
  std::string name() const override { return "xl"; }
  void add_options(AttentionState& s) const override {
    const int64_t distances = s.q.shape[2] + s.k.shape[2] - 1, dim = keys.weight.shape[1];
    // distance back of entry d is N − 1 − d counted from the query's row; M − N positions come before row 0
    Tensor sinusoids = empty({distances, dim});
    const double nearest_back = double(s.k.shape[2] - s.q.shape[2]) + double(s.q.shape[2] - 1);
    for (int64_t d = 0; d < distances; ++d) {
      double back = nearest_back - double(d);
      for (int64_t c = 0; c < dim; ++c) {
        double angle = back / std::pow(10000.0, double(c - c % 2) / double(dim));
        sinusoids.mutable_data()[d * dim + c] = Real(c % 2 == 0 ? std::sin(angle) : std::cos(angle));
      }
    }
    s.options.relative_keys = transpose(reshape(keys(sinusoids), {distances, heads, head_dim}), 0, 1);
    Tensor q = s.q;
    s.options.relative_queries = q + unsqueeze(position_bias, 1);
    s.q = q + unsqueeze(content_bias, 1);
  }
};

struct Forget final : AttentionPart {
  Linear gate;
  explicit Forget(const PartSizes& z) : gate(child<Linear>("gate", z.dim, z.heads, LinearOptions{true, 0.02})) {
    Tensor start = gate.bias.detach();
    fill(start, 4);  // remembers nearly everything at first
  }
  std::string name() const override { return "forget"; }
  void add_options(AttentionState& s) const override {
    Tensor log_gates = -softplus(-gate(for_decays(s.x)));  // (B, N, H)
    s.options.score = s.options.score | forget_gates(transpose(log_gates, 1, 2));
  }
  bool has_cache() const override { return false; }  // gates of earlier positions come from x
};

struct Contextual final : AttentionPart {
  Tensor positions;
  Contextual(const PartSizes& z, int64_t count) : positions(param("positions", zeros({count, z.head_dim}))) {}
  std::string name() const override { return "cope"; }
  void add_options(AttentionState& s) const override {
    s.options.normalizer = contextual_positions(matmul(s.q, transpose(positions, 0, 1)));
  }
};

struct QkNorm final : AttentionPart {
  RMSNorm query, key;
  explicit QkNorm(const PartSizes& z)
      : query(child<RMSNorm>("query", z.head_dim)), key(child<RMSNorm>("key", z.head_dim)) {}
  std::string name() const override { return "qk-norm"; }
  void before(AttentionState& s) const override {
    s.q = query(s.q);
    s.k = key(s.k);
  }
};

struct Cosine final : AttentionPart {
  Tensor temperature_;
  explicit Cosine(const PartSizes& z)
      : temperature_(param("temperature", full({z.heads, 1, 1}, Real(std::sqrt(double(z.head_dim)))))) {}
  std::string name() const override { return "cosine"; }
  void before(AttentionState& s) const override {
    auto unit = [](const Tensor& x) { return x / sqrt(sum(x * x, {-1}, true) + 1e-12); };
    s.q = unit(s.q);
    s.k = unit(s.k);
    s.options.scale = 1;
  }
  void add_options(AttentionState& s) const override { s.options.score = s.options.score | temperature(temperature_); }
};

// A mask whose keys come behind `count` others that every query reads. Its positions are those without them.
struct BehindMemory final : MaskRule {
  Mask mask;
  int64_t count;
  BehindMemory(const Mask& m, int64_t n) : mask(m), count(n) {}
  ScoreShape without(const ScoreShape& s) const { return {s.batch, s.heads, s.queries, s.keys - count}; }
  std::string name() const override { return fmt::format("{} behind {} for all", mask.name(), count); }
  Band band(const ScoreShape& s) const override {
    return {.high = std::max(mask.rule().band(without(s)).high, count - 1 - s.offset())};
  }
  void check_shape(const ScoreShape& s) const override { mask.rule().check_shape(without(s)); }
  void keep(const Strip& s, uint8_t* to) const override {
    if (s.key < count)
      std::fill_n(to, s.count, uint8_t{1});
    else
      mask.rule().keep({s.batch, s.head, s.key - count, s.row, s.count, s.queries, s.keys - count}, to);
  }
  Cover classify(const Box& b, const ScoreShape& s) const override {
    if (b.key_end <= count) return Cover::full;
    const Cover others = mask.rule().classify({b.batch, b.head, b.query_begin - count, b.query_end - count,
                                               std::max<int64_t>(0, b.key_begin - count), b.key_end - count},
                                              without(s));
    return b.key_begin < count && others == Cover::empty ? Cover::partial : others;
  }
};

struct Memory final : AttentionPart {
  Tensor keys, values;
  Memory(const PartSizes& z, int64_t count)
      : keys(param("keys", normal({1, z.key_value_heads, count, z.head_dim}, 0, Real(0.02)))),
        values(param("values", normal({1, z.key_value_heads, count, z.head_dim}, 0, Real(0.02)))) {}
  std::string name() const override { return "memory"; }
  // before all other keys, where a mask that is causal and no more lets everybody read them
  void add_options(AttentionState& s) const override {
    const int64_t count = keys.shape[2];
    if (const Mask& mask = s.options.mask; !mask.everything()) {
      const Band band = mask.rule().band({s.q.shape[0], s.q.shape[1], s.q.shape[2], s.k.shape[2] + count});
      if (!mask.rule().is_band() || band.low > -Band::kFar || band.high < -1)
        s.options.mask = Mask(std::make_shared<BehindMemory>(mask, count));
    }
    auto together = [&](const Tensor& memory, const Tensor& x) {
      Tensor each = expand(memory, {x.shape[0], memory.shape[1], memory.shape[2], memory.shape[3]});
      return cat(std::vector<Tensor>{each, x}, 2);
    };
    s.k = together(keys, s.k);
    s.v = together(values, s.v);
  }
  std::optional<int64_t> horizon() const override { return std::nullopt; }  // they stay the first
};

struct Temperature final : AttentionPart {
  Tensor factor;
  explicit Temperature(const PartSizes& z) : factor(param("factor", ones({z.heads, 1, 1}))) {}
  std::string name() const override { return "temperature"; }
  void add_options(AttentionState& s) const override { s.options.score = s.options.score | temperature(factor); }
};

struct Sink final : AttentionPart {
  Tensor sink;
  explicit Sink(const PartSizes& z) : sink(param("sink", zeros({z.heads}))) {}
  std::string name() const override { return "sink"; }
  void add_options(AttentionState& s) const override { s.options.normalizer = softmax_with_sink(sink); }
};

// A bias with which each of `context` keys begins with the part 1 / context, so that no distance is out of reach.
Tensor equal_shares(const PartSizes& z) {
  return full({z.heads, 1, 1}, Real(-std::log(double(std::max<int64_t>(1, z.context)))));
}

struct SigmoidWeights final : AttentionPart {
  Tensor offset;
  explicit SigmoidWeights(const PartSizes& z) : offset(param("bias", equal_shares(z))) {}
  std::string name() const override { return "sigmoid"; }
  void add_options(AttentionState& s) const override {
    s.options.score = s.options.score | bias(offset);
    s.options.normalizer = sigmoid_weights();
  }
};

struct StickBreaking final : AttentionPart {
  Tensor offset;
  explicit StickBreaking(const PartSizes& z) : offset(param("bias", equal_shares(z))) {}
  std::string name() const override { return "stick-breaking"; }
  void add_options(AttentionState& s) const override {
    s.options.score = s.options.score | bias(offset);
    s.options.normalizer = stick_breaking();
    s.options.mask = s.options.mask & strictly_causal();
  }
};

struct Talking final : AttentionPart {
  Tensor before_, after_;
  explicit Talking(const PartSizes& z) : before_(param("before", eye(z.heads))), after_(param("after", eye(z.heads))) {}
  std::string name() const override { return "talking"; }
  void add_options(AttentionState& s) const override { s.options.normalizer = talking_heads(before_, after_); }
};

struct Gate final : AttentionPart {
  Linear gate;
  explicit Gate(const PartSizes& z)
      : gate(child<Linear>("gate", z.dim, z.heads * z.head_dim, LinearOptions{false, 0.02})) {}
  std::string name() const override { return "gate"; }
  Tensor after(const Tensor& y, const AttentionState& s) const override {
    const Shape& is = y.shape;  // (B, H, N, D)
    return y * transpose(reshape(sigmoid(gate(s.x)), {is[0], is[2], is[1], is[3]}), 1, 2);
  }
};

struct Plain final : AttentionPart {
  std::string word;
  std::function<void(AttentionOptions&)> apply;
  Plain(std::string w, std::function<void(AttentionOptions&)> f) : word(std::move(w)), apply(std::move(f)) {}
  std::string name() const override { return word; }
  void add_options(AttentionState& s) const override {
    apply(s.options);
    if (!training()) s.options.dropout = 0;
  }
  std::optional<int64_t> horizon() const override {
    AttentionOptions options{.mask = causal()};
    apply(options);
    const ScoreShape any{1, 1, 1, 1};
    if (options.mask.everything() || !options.mask.rule().is_band()) return std::nullopt;
    return -options.mask.rule().band(any).low;
  }
};

}  // namespace

PartPointer rotary_part(const RotaryOptions& o) { return std::make_unique<Rotary>(o); }
PartPointer alibi_part(const PartSizes& z, bool learned) { return std::make_unique<Alibi>(z, learned); }
PartPointer t5_part(const PartSizes& z, int64_t buckets, int64_t reach) {
  return std::make_unique<T5>(z, buckets, reach);
}
PartPointer distance_part(const PartSizes& z) { return std::make_unique<Distance>(z); }
PartPointer shaw_part(const PartSizes& z, int64_t reach) { return std::make_unique<Shaw>(z, reach); }
PartPointer transformer_xl_part(const PartSizes& z) { return std::make_unique<TransformerXl>(z); }
PartPointer forget_part(const PartSizes& z) { return std::make_unique<Forget>(z); }
PartPointer contextual_part(const PartSizes& z, int64_t n) { return std::make_unique<Contextual>(z, n); }
PartPointer qk_norm_part(const PartSizes& z) { return std::make_unique<QkNorm>(z); }
PartPointer cosine_part(const PartSizes& z) { return std::make_unique<Cosine>(z); }
PartPointer memory_part(const PartSizes& z, int64_t count) { return std::make_unique<Memory>(z, count); }
PartPointer temperature_part(const PartSizes& z) { return std::make_unique<Temperature>(z); }
PartPointer sink_part(const PartSizes& z) { return std::make_unique<Sink>(z); }
PartPointer sigmoid_part(const PartSizes& z) { return std::make_unique<SigmoidWeights>(z); }
PartPointer stick_breaking_part(const PartSizes& z) { return std::make_unique<StickBreaking>(z); }
PartPointer talking_part(const PartSizes& z) { return std::make_unique<Talking>(z); }
PartPointer gate_part(const PartSizes& z) { return std::make_unique<Gate>(z); }
PartPointer plain_part(const std::string& name, std::function<void(AttentionOptions&)> apply) {
  return std::make_unique<Plain>(name, std::move(apply));
}

}  // namespace rapt::inline RAPT_ABI

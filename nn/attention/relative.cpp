#include "relative.h"

#include <algorithm>
#include <cmath>

#include "heads.h"

namespace rapt::inline RAPT_ABI {

namespace {

struct Disentangled final : AttentionPart {
  int64_t reach;
  Tensor positions;
  Linear key, query;

  Disentangled(int64_t dim, const GroupedQueryAttention& layer, const DebertaOptions& o)
      : reach(o.reach),
        positions(param("positions", normal({2 * o.reach, dim}, 0, Real(0.02)))),
        key(child<Linear>("key", dim, layer.heads * layer.head_dim, LinearOptions{false, o.common.qkv_deviation})),
        query(child<Linear>("query", dim, layer.key_value_heads * layer.head_dim,
                            LinearOptions{false, o.common.qkv_deviation})) {}
  std::string name() const override { return "relative"; }

  void add_options(AttentionState& s) const override {
    Scope scope(path());
    const double scale = 1 / std::sqrt(3 * double(s.q.shape[3]));
    const int64_t H = s.q.shape[1], shared = s.k.shape[1], group = H / shared, C = reach;
    auto with_positions = [&](const Tensor& x, const Linear& map, int64_t count) {  // (B, count, …, 2·reach)
      const Tensor r = split_heads(unsqueeze(map(positions), 0), count);
      return matmul(x, transpose(r, 2, 3)) * scale;
    };
    s.options.scale = scale;
    s.options.score = s.options.score |
                      score_modifier(
                          "deberta",
                          [C, group](auto score, At at, auto of_query, auto of_key) {
                            const int64_t back = at.query - at.key, last = 2 * C - 1;
                            return score + of_query(at.batch, at.head, at.row, std::clamp<int64_t>(C + back, 0, last)) +
                                   of_key(at.batch, at.head / group, at.key, std::clamp<int64_t>(C - back, 0, last));
                          },
                          with_positions(s.q, key, H), with_positions(s.k, query, shared));
  }
};

struct DynamicBias final : AttentionPart {
  bool logarithmic;
  Linear in, middle, out;

  DynamicBias(int64_t heads, const DynamicBiasOptions& o)
      : logarithmic(o.logarithmic),
        in(child<Linear>("in", 1, o.hidden)),
        middle(child<Linear>("middle", o.hidden, o.hidden)),
        out(child<Linear>("out", o.hidden, heads, LinearOptions{.bias = false})) {
    Tensor weight = out.weight.detach();
    fill(weight, 0);
  }
  std::string name() const override { return "dynamic"; }

  void add_options(AttentionState& s) const override {
    Scope scope(path());
    const int64_t N = s.q.shape[2], M = s.k.shape[2];
    Tensor distance = arange(N + M - 1) - double(M - 1);  // key − query, from the first key and the last query on
    if (logarithmic) {
      const Tensor size = log(abs(distance) + 1);
      distance = where(relu(distance), size, -size);
    }
    const Tensor table = out(silu(middle(silu(in(unsqueeze(distance, 1))))));
    s.options.score = s.options.score | relative_bias(transpose(table, 0, 1));
  }
};

}  // namespace

DebertaAttention::DebertaAttention(int64_t dim, int64_t head_count, DebertaOptions o)
    : GroupedQueryAttention(dim, head_count, o.common) {
  check(o.reach > 0, "deberta: the reach must be at least 1, got {}", o.reach);
  parts.push_back(child("relative", std::unique_ptr<AttentionPart>(std::make_unique<Disentangled>(dim, *this, o))));
}

std::unique_ptr<AttentionPart> dynamic_bias_part(int64_t heads, DynamicBiasOptions options) {
  return std::make_unique<DynamicBias>(heads, options);
}

}  // namespace rapt::inline RAPT_ABI

#include "sparse.h"

#include <algorithm>
#include <numeric>

#include "../../core/random.h"
#include "heads.h"

namespace rapt::inline RAPT_ABI {

namespace {

// Flags (B, G, N, blocks): whether a query reads a block.
struct ChosenBlocks final : MaskRule {
  std::vector<uint8_t> flags;
  int64_t batch, groups, rows, blocks, block, heads;

  ChosenBlocks(const Shape& importance, int64_t head_count, int64_t keys, int64_t size)
      : batch(importance[0]),
        groups(importance[1]),
        rows(importance[2]),
        blocks((keys + size - 1) / size),
        block(size),
        heads(head_count) {
    flags.assign(size_t(batch * groups * rows * blocks), 0);
  }
  std::string name() const override { return "chosen blocks"; }
  // `b` and the group of a head, or both flattened
  int64_t at(int64_t entry, int64_t row) const { return (entry * rows + row) * blocks; }
  int64_t entry(int64_t b, int64_t head) const { return b * groups + head / (heads / groups); }

  void keep(const Strip& s, uint8_t* to) const override {
    const uint8_t* from = flags.data() + at(entry(s.batch, s.head), s.row) + s.key / block;
    for (int64_t i = 0; i < s.count; ++i) to[i] = from[i * blocks];
  }
  Cover classify(const Box& box, const ScoreShape& s) const override {
    const int64_t first = box.key_begin / block, last = (box.key_end - 1) / block;
    bool any = false, all = true;
    for (int64_t query = box.query_begin; query < box.query_end; ++query) {
      const uint8_t* row = flags.data() + at(entry(box.batch, box.head), query - s.offset());
      for (int64_t c = first; c <= last; ++c) any |= row[c] != 0, all &= row[c] != 0;
    }
    return !any ? Cover::empty : all ? Cover::full : Cover::partial;
  }
  void check_shape(const ScoreShape& s) const override {
    check(
        s.batch == batch && s.heads == heads && s.queries == rows && (s.keys + block - 1) / block == blocks,
        "attention: blocks were chosen for {} batch entries, {} heads, {} queries and {} blocks, but there are {}, {}, "
        "{} and {}",
        batch, heads, rows, blocks, s.batch, s.heads, s.queries, (s.keys + block - 1) / block);
  }
};

// Complete blocks of x (B, Hkv, M, D), as (B, Hkv, blocks, block, D).
Tensor in_blocks(const Tensor& x, int64_t block) {
  const Shape& s = x.shape;
  const int64_t complete = s[2] / block;
  return reshape(slice(x, 2, 0, complete * block), {s[0], s[1], complete, block, s[3]});
}

struct MixtureOfBlocks final : AttentionPart {
  int64_t block, count;
  MixtureOfBlocks(int64_t size, int64_t n) : block(size), count(n) {}
  std::string name() const override { return "blocks"; }
  std::optional<int64_t> horizon() const override { return std::nullopt; }  // blocks have places
  void add_options(AttentionState& s) const override {
    NoGrad no_grad;
    const int64_t H = s.q.shape[1];
    const Tensor means = repeat_heads(mean(in_blocks(s.k, block), {3}), H);
    s.options.mask = s.options.mask & chosen_blocks(matmul(s.q, transpose(means, 2, 3)), H, s.k.shape[2], block, count);
  }
};

struct NativeSparse final : AttentionPart {
  int64_t block, count, window;
  Linear compress_keys, compress_values, gate;

  NativeSparse(int64_t dim, int64_t heads, int64_t D, const NativeSparseOptions& o)
      : block(o.block),
        count(o.count),
        window(o.window),
        compress_keys(child<Linear>("compress_keys", o.block * D, D)),
        compress_values(child<Linear>("compress_values", o.block * D, D)),
        gate(child<Linear>("gate", dim, 3 * heads, LinearOptions{true, o.common.qkv_deviation})) {
    NoGrad no_grad;
    const Tensor average = reshape(expand(unsqueeze(eye(D), 1), {D, o.block, D}), {D, o.block * D}) / double(o.block);
    for (const Linear* map : {&compress_keys, &compress_values}) {
      Tensor weight = map->weight.detach(), bias = map->bias.detach();
      copy_into(weight, average);
      fill(bias, 0);
    }
  }
  std::string name() const override { return "sparse"; }
  std::optional<int64_t> horizon() const override { return std::nullopt; }  // blocks have places

  Tensor compressed(const Tensor& x, const Linear& map) const {
    const Tensor blocks = in_blocks(x, block);
    const Shape& s = blocks.shape;
    return map(reshape(blocks, {s[0], s[1], s[2], s[3] * s[4]}));
  }
  // Compressed keys are read once their block has ended.
  AttentionOptions over_blocks(const AttentionState& s) const {
    const int64_t first = s.k.shape[2] - s.q.shape[2];
    return {.mask = mask_of([first, size = block](const At& at) { return (at.key + 1) * size <= first + at.row + 1; })};
  }

  // The layer's own attention becomes that to the selected blocks.
  void add_options(AttentionState& s) const override {
    NoGrad no_grad;
    const int64_t B = s.q.shape[0], H = s.q.shape[1], N = s.q.shape[2], shared = s.k.shape[1], M = s.k.shape[2];
    const int64_t complete = M / block;
    Tensor importance = zeros({B, shared, N, complete});
    if (complete > 0) {
      const Tensor weights = attention_weights(s.q, compressed(s.k, compress_keys), over_blocks(s));
      importance = sum(reshape(weights, {B, shared, H / shared, N, complete}), {2});
    }
    s.options.mask = s.options.mask & chosen_blocks(importance, H, M, block, count);
  }

  Tensor after(const Tensor& selected, const AttentionState& s) const override {
    Scope scope(path());
    const int64_t H = s.q.shape[1];
    const Tensor gates = split_heads(sigmoid(gate(s.x)), 3 * H);  // (B, 3H, N, 1)
    auto of = [&](int64_t branch) { return slice(gates, 1, branch * H, (branch + 1) * H); };
    const Tensor near = attention(s.q, s.k, s.v, {.mask = causal() & rapt::window(window - 1)});
    Tensor y = of(1) * selected + of(2) * near;
    if (s.k.shape[2] < block) return y;
    return y + of(0) * attention(s.q, compressed(s.k, compress_keys), compressed(s.v, compress_values), over_blocks(s));
  }
};

}  // namespace

Mask chosen_blocks(const Tensor& importance, int64_t heads, int64_t keys, int64_t block, int64_t count) {
  const Shape& s = importance.shape;
  check(s.rank == 4 && block > 0 && count > 0 && s[1] > 0 && heads % s[1] == 0 && s[3] == keys / block && keys >= s[2],
        "chosen_blocks: expected importance (B, G, N, {} complete blocks) with G dividing {} heads, got {}",
        block > 0 ? keys / block : 0, heads, s);
  auto rule = std::make_shared<ChosenBlocks>(s, heads, keys, block);
  const Tensor dense = contiguous(importance);
  std::vector<int64_t> order(size_t(rule->blocks));
  for (int64_t entry = 0; entry < s[0] * s[1]; ++entry) {
    for (int64_t row = 0; row < s[2]; ++row) {
      const int64_t own = (row + keys - s[2]) / block, others = std::min(own, count - 1);
      const Real* value = dense.data() + (entry * s[2] + row) * s[3];
      std::iota(order.begin(), order.begin() + own, int64_t{0});
      std::partial_sort(order.begin(), order.begin() + others, order.begin() + own, [&](int64_t a, int64_t b) {
        return value[a] != value[b] ? value[a] > value[b] : a < b;  // of equals the first
      });
      uint8_t* flags = rule->flags.data() + rule->at(entry, row);
      flags[own] = 1;
      for (int64_t c = 0; c < others; ++c) flags[order[size_t(c)]] = 1;
    }
  }
  return Mask(rule);
}

MaskedAttention::MaskedAttention(int64_t dim, int64_t head_count, const Mask& mask, GroupedQueryOptions o)
    : GroupedQueryAttention(dim, head_count, o) {
  parts.push_back(child("mask", plain_part("mask", [mask](AttentionOptions& call) { call.mask = call.mask & mask; })));
}

Mask bigbird(int64_t positions, const BigBirdOptions& o) {
  check(positions > 0 && o.block > 0 && o.window > 0 && o.global >= 0 && o.random >= 0,
        "bigbird: expected at least 1 position, blocks of at least 1, a window of at least 1 block and no negative "
        "number of global and random ones, got {}, {}, {}, {} and {}",
        positions, o.block, o.window, o.global, o.random);
  const int64_t blocks = (positions + o.block - 1) / o.block;
  std::vector<int32_t> listed(size_t(blocks * blocks), 0);
  const Random draws{o.seed, o.layer};
  for (int64_t q = 0; q < blocks; ++q) {
    std::vector<int64_t> others;
    for (int64_t k = 0; k < blocks; ++k) {
      const bool near = std::abs(q - k) < o.window, all = q < o.global || k < o.global;
      if (near || all)
        listed[size_t(q * blocks + k)] = 1;
      else if (k < q || !o.causal)
        others.push_back(k);
    }
    const int64_t count = std::min(o.random, int64_t(others.size()));
    for (int64_t i = 0; i < count; ++i) {  // the first of a shuffle
      const int64_t left = int64_t(others.size()) - i;
      std::swap(others[size_t(i)], others[size_t(i + draws.below(left, uint64_t(q * o.random + i)))]);
      listed[size_t(q * blocks + others[size_t(i)])] = 1;
    }
  }
  return block_list(Tokens({blocks, blocks}, std::move(listed)), o.block);
}

MixtureOfBlockAttention::MixtureOfBlockAttention(int64_t dim, int64_t head_count, MixtureOfBlockOptions o)
    : GroupedQueryAttention(dim, head_count, o.common) {
  check(o.common.causal && o.block > 0 && o.count > 0,
        "attention: a mixture of blocks is causal, with at least 1 block of at least 1 key; got {} of {}", o.count,
        o.block);
  parts.push_back(child("blocks", std::unique_ptr<AttentionPart>(std::make_unique<MixtureOfBlocks>(o.block, o.count))));
}

NativeSparseAttention::NativeSparseAttention(int64_t dim, int64_t head_count, NativeSparseOptions o)
    : GroupedQueryAttention(dim, head_count, o.common) {
  check(
      o.common.causal && o.block > 0 && o.count > 0 && o.window > 0,
      "attention: native sparse attention is causal, with at least 1 block of at least 1 key and a window of at least "
      "1; got {} of {}, and {}",
      o.count, o.block, o.window);
  parts.push_back(
      child("sparse", std::unique_ptr<AttentionPart>(std::make_unique<NativeSparse>(dim, heads, head_dim, o))));
}

}  // namespace rapt::inline RAPT_ABI

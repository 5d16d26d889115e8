#include "../../nn/attention/sparse.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "../../autograd/grad_check.h"
#include "../../core/random.h"
#include "../../core/view.h"
#include "../expect.h"
#include "parameters.h"

namespace rapt {
namespace {

void copy_parameters(const Module& from, const Module& to) {
  for (size_t i = 0; i < to.parameters().size(); ++i) {
    ASSERT_EQ(from.parameters()[i].name, to.parameters()[i].name);
    Tensor values = to.parameters()[i].tensor.detach();
    copy_into(values, from.parameters()[i].tensor.detach());
  }
}

// The weights of one head, row by row, with q, k (rows, D).
std::vector<double> softmax_over(const std::vector<double>& scores, const std::vector<bool>& read) {
  std::vector<double> w(scores.size());
  double total = 0;
  for (size_t j = 0; j < w.size(); ++j) total += w[j] = read[j] ? std::exp(scores[j]) : 0;
  for (double& x : w) x = total > 0 ? x / total : 0;
  return w;
}

double dot(const Tensor& a, int64_t i, const Tensor& b, int64_t j) {
  return double(sum(select(a, 0, i) * select(b, 0, j)).item());
}

// Of the blocks before `own`, the `count` with the largest value.
std::vector<int64_t> largest(const std::vector<double>& value, int64_t own, int64_t count) {
  std::vector<int64_t> order;
  for (int64_t c = 0; c < own; ++c) order.push_back(c);
  std::ranges::stable_sort(order, [&](int64_t a, int64_t b) { return value[size_t(a)] > value[size_t(b)]; });
  order.resize(size_t(std::min(own, count)));
  return order;
}

struct Heads {
  Tensor q, k, v;  // (N, D) of one head
};
Heads head_of(const GroupedQueryAttention& m, const Tensor& x, int64_t h) {
  const int64_t D = m.head_dim, g = h / (m.heads / m.key_value_heads);
  Tensor qkv = m.qkv(x);
  auto part = [&](int64_t i) { return slice(qkv, 1, i * D, (i + 1) * D); };
  return {part(h), part(m.heads + g), part(m.heads + m.key_value_heads + g)};
}

Tensor mix(const std::vector<double>& w, const Tensor& v) {
  Tensor y = zeros({v.shape[1]});
  for (size_t j = 0; j < w.size(); ++j) y = y + w[j] * select(v, 0, int64_t(j));
  return y;
}

// The papers' definitions, query by query.
Tensor moba_by_hand(const MixtureOfBlockAttention& m, const Tensor& x, int64_t block, int64_t count) {
  const int64_t N = x.shape[0];
  std::vector<Tensor> heads;
  for (int64_t h = 0; h < m.heads; ++h) {
    const Heads t = head_of(m, x, h);
    std::vector<Tensor> rows;
    for (int64_t i = 0; i < N; ++i) {
      const int64_t own = i / block;
      std::vector<double> value, scores;
      for (int64_t c = 0; c < own; ++c)
        value.push_back(double(sum(select(t.q, 0, i) * mean(slice(t.k, 0, c * block, (c + 1) * block), {0})).item()));
      std::vector<bool> read;
      const std::vector<int64_t> chosen = largest(value, own, count - 1);
      for (int64_t j = 0; j <= i; ++j) {
        scores.push_back(dot(t.q, i, t.k, j) / std::sqrt(double(m.head_dim)));
        read.push_back(j / block == own || std::ranges::count(chosen, j / block) > 0);
      }
      rows.push_back(mix(softmax_over(scores, read), t.v));
    }
    heads.push_back(stack(rows, 0));
  }
  return m.proj(cat(heads, 1));
}

TEST(Sparse, MixtureOfBlocksIsTheFormula) {
  manual_seed(1);
  for (int64_t count : {1, 2, 3}) {
    MixtureOfBlockAttention attend(8, 4, {.common = {.key_value_heads = 2}, .block = 3, .count = count});
    randomize(attend);
    Tensor x = normal({2, 14, 8}), y = attend(x);
    for (int64_t b : {0, 1}) expect_near(select(y, 0, b), moba_by_hand(attend, select(x, 0, b), 3, count));
  }
}

Tensor nsa_by_hand(const NativeSparseAttention& m, const Tensor& x, int64_t block, int64_t count, int64_t window) {
  auto parameter = [&](const std::string& name) {
    for (const NamedTensor& p : m.parameters()) {
      if (p.name == "sparse." + name) return p.tensor;
    }
    throw Error(name);
  };
  const int64_t N = x.shape[0], H = m.heads, group = H / m.key_value_heads, D = m.head_dim;
  Tensor gates = sigmoid(linear(x, parameter("gate.weight"), parameter("gate.bias")));
  const double scale = 1 / std::sqrt(double(D));
  auto compressed = [&](const Tensor& t, const std::string& name) {
    Tensor blocks = reshape(slice(t, 0, 0, N / block * block), {N / block, block * D});
    return linear(blocks, parameter(name + ".weight"), parameter(name + ".bias"));
  };
  std::vector<Tensor> heads;
  for (int64_t h = 0; h < H; ++h) {
    const Heads t = head_of(m, x, h);
    Tensor kc = compressed(t.k, "compress_keys"), vc = compressed(t.v, "compress_values");
    auto block_weights = [&](const Tensor& q, int64_t i) {
      std::vector<double> scores;
      std::vector<bool> read;
      for (int64_t c = 0; c < N / block; ++c) {
        scores.push_back(dot(q, i, kc, c) * scale);
        read.push_back((c + 1) * block - 1 <= i);
      }
      return softmax_over(scores, read);
    };
    std::vector<Tensor> rows;
    for (int64_t i = 0; i < N; ++i) {
      std::vector<double> value(size_t(N / block));
      for (int64_t other = h / group * group; other < (h / group + 1) * group; ++other) {
        std::vector<double> w = block_weights(head_of(m, x, other).q, i);
        for (size_t c = 0; c < w.size(); ++c) value[c] += w[c];
      }
      const int64_t own = i / block;
      const std::vector<int64_t> chosen = largest(value, own, count - 1);
      std::vector<double> scores;
      std::vector<bool> selected, near;
      for (int64_t j = 0; j <= i; ++j) {
        scores.push_back(dot(t.q, i, t.k, j) * scale);
        selected.push_back(j / block == own || std::ranges::count(chosen, j / block) > 0);
        near.push_back(i - j < window);
      }
      auto gate = [&](int64_t branch) { return double(gates.at({i, branch * H + h})); };
      rows.push_back(gate(0) * mix(block_weights(t.q, i), vc) + gate(1) * mix(softmax_over(scores, selected), t.v) +
                     gate(2) * mix(softmax_over(scores, near), t.v));
    }
    heads.push_back(stack(rows, 0));
  }
  return m.proj(cat(heads, 1));
}

TEST(Sparse, NativeSparseIsTheFormula) {
  manual_seed(2);
  for (int64_t count : {1, 2}) {
    NativeSparseAttention attend(8, 4, {.common = {.key_value_heads = 2}, .block = 3, .count = count, .window = 4});
    randomize(attend);
    Tensor x = normal({2, 14, 8}), y = attend(x);
    for (int64_t b : {0, 1}) expect_near(select(y, 0, b), nsa_by_hand(attend, select(x, 0, b), 3, count, 4));
    EXPECT_EQ(attend(slice(x, 1, 0, 2)).shape, Shape({2, 2, 8}));  // not one block is complete
  }
}

// Longer than a tile: skipped, full and partial ones against the same mask without shortcuts.
TEST(Sparse, TilesAreSkippedRightly) {
  manual_seed(3);
  for (int64_t block : {7, 64, 100}) {
    const int64_t N = 300, keys = 330, complete = keys / block;
    Tensor q = normal({1, 4, N, 3}), k = normal({1, 2, keys, 3}), v = normal({1, 2, keys, 3});
    // most queries agree, so that there are empty tiles
    Tensor importance =
        expand(normal({1, 2, 1, complete}), {1, 2, N, complete}) + normal({1, 2, N, complete}, 0, Real(0.01));
    Mask chosen = chosen_blocks(importance, 4, keys, block, 2);
    Mask slow = mask_of([&](const At& at) {
      uint8_t keep;
      chosen.rule().keep({at.batch, at.head, at.key, at.row, 1, N, keys}, &keep);
      return keep != 0;
    });
    expect_near(attention(q, k, v, {.mask = causal() & chosen}), attention(q, k, v, {.mask = causal() & slow}));
    if (block != 7) continue;
    EXPECT_GT(explain(q.shape, k.shape, v.shape, {.mask = causal() & chosen}).skipped,
              explain(q.shape, k.shape, v.shape, {.mask = causal()}).skipped);
  }
}

// Which blocks are listed, from the mask itself.
std::vector<int> blocks_read(const Mask& mask, int64_t q, int64_t blocks, int64_t size) {
  std::vector<int> all;
  for (int64_t k = 0; k < blocks; ++k) {
    uint8_t keep;
    mask.rule().keep({0, 0, k * size + size - 1, q * size, 1, blocks * size, blocks * size}, &keep);
    if (keep) all.push_back(int(k));
  }
  return all;
}

TEST(Sparse, BigBirdHasWindowGlobalAndRandomBlocks) {
  constexpr int64_t blocks = 20, size = 4;
  for (bool is_causal : {true, false}) {
    const BigBirdOptions o{.block = size, .window = 2, .global = 1, .random = 3, .seed = 5, .causal = is_causal};
    const Mask mask = bigbird(blocks * size, o);
    for (int64_t q = 0; q < blocks; ++q) {
      std::vector<int> read = blocks_read(mask, q, blocks, size);
      if (q == 0) {
        EXPECT_EQ(read.size(), size_t(blocks));  // global
        continue;
      }
      auto has = [&](int64_t k) { return std::ranges::count(read, int(k)) == 1; };
      int64_t others = 0;
      for (int64_t k = 0; k < blocks; ++k) {
        const bool fixed = k == 0 || std::abs(q - k) < o.window;
        EXPECT_TRUE(!fixed || has(k)) << q << " " << k;
        if (fixed || !has(k)) continue;
        ++others;
        EXPECT_TRUE(k < q || !is_causal);
      }
      const int64_t before = std::max<int64_t>(0, q - 2);  // neither global nor near
      EXPECT_EQ(others, is_causal ? std::min<int64_t>(3, before) : 3) << q;
    }
  }
  auto row = [](BigBirdOptions o, int64_t positions) {
    o.block = size;
    return blocks_read(bigbird(positions, o), 12, 13, size);
  };
  const int64_t all = blocks * size;
  EXPECT_EQ(row({.seed = 1}, all), row({.seed = 1}, all));
  EXPECT_NE(row({.seed = 1}, all), row({.seed = 2}, all));
  EXPECT_NE(row({.seed = 1}, all), row({.seed = 1, .layer = 1}, all));
  EXPECT_EQ(row({.seed = 1}, all), row({.seed = 1}, 13 * size));  // a longer context draws the same
  EXPECT_THROW(bigbird(16, {.block = 0}), Error);
  EXPECT_THROW(bigbird(16, {.window = 0}), Error);
}

// Layers within a mask: that of a list of blocks, of every second key, of BigBird.
TEST(Sparse, MaskedAttentionIsAttentionWithTheMask) {
  manual_seed(7);
  Tensor x = normal({2, 19, 8});
  const Mask masks[] = {block_list(Tokens({3, 3}, {1, 0, 0, 1, 1, 0, 1, 0, 1}), 7), dilated(2), window(2) | global(1),
                        bigbird(19, {.block = 2, .window = 1, .random = 1})};
  for (const Mask& mask : masks) {
    SCOPED_TRACE(mask.name());
    MaskedAttention attend(8, 2, mask);
    const Heads t = head_of(attend, select(x, 0, 1), 1);
    std::vector<Tensor> rows;
    for (int64_t i = 0; i < 19; ++i) {
      std::vector<double> scores;
      std::vector<bool> read;
      for (int64_t j = 0; j <= i; ++j) {
        uint8_t keep;
        mask.rule().keep({1, 1, j, i, 1, 19, 19}, &keep);
        scores.push_back(dot(t.q, i, t.k, j) / 2);
        read.push_back(keep != 0);
      }
      rows.push_back(mix(softmax_over(scores, read), t.v));
    }
    Tensor other = zeros({19, 4});  // the first head's part of the projection is taken away
    NoGrad no_grad;
    Tensor weight = attend.proj.weight.detach();
    for (int64_t r = 0; r < 8; ++r) {
      for (int64_t c = 0; c < 4; ++c) weight.set({r, c}, 0);
    }
    expect_near(select(attend(x), 0, 1), attend.proj(cat(std::vector<Tensor>{other, stack(rows, 0)}, 1)));
  }
}

TEST(Sparse, EverythingChosenIsPlainAttention) {
  manual_seed(4);
  MixtureOfBlockAttention attend(8, 2, {.block = 4, .count = 100});
  GroupedQueryAttention plain(8, 2);
  copy_parameters(attend, plain);
  Tensor x = normal({2, 19, 8});
  expect_near(attend(x), plain(x));
}

template <class Layer>
void expect_steps_agree(const Layer& attend) {
  ASSERT_TRUE(attend.has_cache());
  EvalMode eval;
  Tensor x = normal({2, 15, 8}), whole = attend(x);
  KeyValueCache cache(15);
  int64_t from = 0;
  for (int64_t to : {2, 3, 8, 9, 10, 11, 15}) {
    expect_near(attend.step(slice(x, 1, from, to), cache), slice(whole, 1, from, to));
    from = to;
  }
}

TEST(Sparse, StepByStepIsTheWhole) {
  manual_seed(5);
  MixtureOfBlockAttention moba(8, 4, {.common = {.key_value_heads = 2}, .block = 3, .count = 2});
  NativeSparseAttention nsa(8, 4, {.common = {.key_value_heads = 2}, .block = 3, .count = 2, .window = 2});
  randomize(moba);
  randomize(nsa);
  expect_steps_agree(moba);
  expect_steps_agree(nsa);
}

// The choice stays the same for small changes.
TEST(Sparse, Gradients) {
  if (sizeof(Real) == 4) GTEST_SKIP() << "needs double";
  manual_seed(6);
  MixtureOfBlockAttention moba(8, 2, {.block = 2, .count = 2});
  NativeSparseAttention nsa(8, 4, {.common = {.key_value_heads = 2}, .block = 2, .count = 2, .window = 3});
  Tensor x = normal({1, 9, 8});
  auto result = grad_check([&](const std::vector<Tensor>& in) { return moba(in[0]); }, {x}, {.step = 1e-4});
  EXPECT_TRUE(result) << result.message;
  result = grad_check([&](const std::vector<Tensor>& in) { return nsa(in[0]); }, {x}, {.step = 1e-4});
  EXPECT_TRUE(result) << result.message;
  nsa.zero_gradients();
  Tensor c = normal(x.shape);
  backward(sum(nsa(x) * c));
  for (const NamedTensor& p : nsa.parameters()) {
    NoGrad no_grad;
    Tensor values = reshape(p.tensor.detach(), {-1}), gradients = reshape(gradient(p.tensor), {-1});
    const int64_t i = values.numel() / 2;
    const Real value = values.at({i}), h = Real(1e-4);
    auto at = [&](Real shift) {
      values.set({i}, value + shift);
      return double(sum(nsa(x) * c).item());
    };
    const double numeric = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * double(h));
    values.set({i}, value);
    EXPECT_NEAR(gradients.at({i}), numeric, 1e-8) << p.name;
  }
}

TEST(Sparse, CompressionStartsAsTheMean) {
  NativeSparseAttention attend(8, 2, {.block = 3});
  Tensor blocks = normal({2, 3, 4});
  for (const NamedTensor& p : attend.parameters()) {
    if (p.name != "sparse.compress_keys.weight") continue;
    ASSERT_EQ(p.tensor.shape, Shape({4, 12}));
    expect_near(linear(reshape(blocks, {2, 12}), p.tensor), mean(blocks, {1}));
  }
}

TEST(Sparse, BadArguments) {
  EXPECT_THROW(MixtureOfBlockAttention(8, 2, {.block = 0}), Error);
  EXPECT_THROW(MixtureOfBlockAttention(8, 2, {.count = 0}), Error);
  EXPECT_THROW(MixtureOfBlockAttention(8, 2, {.common = {.causal = false}}), Error);
  EXPECT_THROW(NativeSparseAttention(8, 2, {.window = 0}), Error);
  EXPECT_THROW(NativeSparseAttention(8, 2, {.block = 0}), Error);
  EXPECT_THROW(chosen_blocks(zeros({1, 2, 4, 3}), 4, 8, 2, 1), Error);  // 4 blocks, not 3
  EXPECT_THROW(chosen_blocks(zeros({1, 3, 4, 4}), 4, 8, 2, 1), Error);
  Mask mask = chosen_blocks(zeros({1, 2, 4, 4}), 4, 8, 2, 1);
  Tensor q = zeros({1, 4, 5, 2}), k = zeros({1, 2, 8, 2});
  EXPECT_THROW(attention(q, k, k, {.mask = mask}), Error);
}

}  // namespace
}  // namespace rapt

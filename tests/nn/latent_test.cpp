#include "../../nn/attention/latent.h"

#include <gtest/gtest.h>

#include "../../autograd/grad_check.h"
#include "../../core/random.h"
#include "../../core/view.h"
#include "../expect.h"

namespace rapt {
namespace {

const std::vector<LatentOptions>& settings() {
  static const std::vector<LatentOptions> all{
      {},
      {.rank_q = 5, .rank_kv = 7, .d_nope = 3, .d_rope = 2, .d_v = 4, .bias = true},
      {.rank_kv = 3, .d_rope = 4, .rotary = {.style = RotaryStyle::interleaved}},
  };
  return all;
}

// Head by head, keys and values written out.
Tensor by_hand(const MultiHeadLatentAttention& m, const Tensor& x) {
  const int64_t N = x.shape[0], r = m.rank_kv;
  Tensor queries = m.q ? (*m.q)(x) : (*m.q_up)((*m.q_norm)((*m.q_down)(x)));
  Tensor down = m.kv_down(x), c = m.kv_norm(slice(down, 1, 0, r)), up = m.kv_up(c);
  Tensor position = m.rotary(slice(down, 1, r, r + m.d_rope)), future = zeros({N, N});
  for (int64_t i = 0; i < N; ++i) {
    for (int64_t j = i + 1; j < N; ++j) future.set({i, j}, -1e9);
  }
  std::vector<Tensor> heads;
  for (int64_t h = 0; h < m.heads; ++h) {
    Tensor q = slice(queries, 1, h * (m.d_nope + m.d_rope), (h + 1) * (m.d_nope + m.d_rope));
    Tensor kv = slice(up, 1, h * (m.d_nope + m.d_v), (h + 1) * (m.d_nope + m.d_v));
    Tensor scores = matmul(slice(q, 1, 0, m.d_nope), transpose(slice(kv, 1, 0, m.d_nope), 0, 1)) +
                    matmul(m.rotary(slice(q, 1, m.d_nope, m.d_nope + m.d_rope)), transpose(position, 0, 1));
    heads.push_back(matmul(softmax(scores / std::sqrt(double(m.d_nope + m.d_rope)) + future),
                           slice(kv, 1, m.d_nope, m.d_nope + m.d_v)));
  }
  return m.proj(cat(heads, 1));
}

TEST(Latent, IsTheFormula) {
  for (const LatentOptions& o : settings()) {
    manual_seed(1);
    MultiHeadLatentAttention attend(8, 2, o);
    Tensor x = normal({2, 6, 8});
    Tensor y = attend(x);
    for (int64_t b : {0, 1}) expect_near(select(y, 0, b), by_hand(attend, select(x, 0, b)));
  }
}

TEST(Latent, TheAbsorbedFormAgrees) {
  for (const LatentOptions& o : settings()) {
    manual_seed(2);
    MultiHeadLatentAttention attend(8, 4, o);
    EvalMode eval;
    Tensor x = normal({2, 9, 8}), whole = attend(x);
    KeyValueCache cache(9);
    int64_t from = 0;
    for (int64_t to : {5, 6, 7, 9}) {
      expect_near(attend.step(slice(x, 1, from, to), cache), slice(whole, 1, from, to));
      from = to;
    }
    // one short vector per position, for all heads
    EXPECT_EQ(cache.keys.shape, Shape({2, 1, 9, attend.rank_kv + attend.d_rope}));
    EXPECT_EQ(cache.values.numel(), 0);
    EXPECT_THROW(attend.step(slice(x, 1, 0, 1), cache), Error);
  }
}

TEST(Latent, Gradients) {
  if (sizeof(Real) == 4) GTEST_SKIP() << "needs double";
  for (const LatentOptions& o : settings()) {
    manual_seed(3);
    MultiHeadLatentAttention attend(8, 2, o);
    // small inputs of a norm curve strongly, so short steps
    auto result =
        grad_check([&](const std::vector<Tensor>& x) { return attend(x[0]); }, {normal({1, 5, 8})}, {.step = 1e-4});
    EXPECT_TRUE(result) << result.message;
    Tensor x = normal({1, 5, 8});
    backward(sum(attend(x) * normal(x.shape)));
    for (const NamedTensor& p : attend.parameters()) EXPECT_TRUE(gradient(p.tensor)) << p.name;
  }
}

TEST(Latent, ParametersAndSizes) {
  auto shapes = [](const Module& m) {
    std::vector<std::string> out;
    for (const NamedTensor& p : m.parameters()) out.push_back(fmt::format("{} {}", p.name, p.tensor.shape));
    return out;
  };
  MultiHeadLatentAttention small(8, 2, {.rank_q = 5, .rank_kv = 7, .d_nope = 3, .d_rope = 2, .d_v = 4});
  EXPECT_EQ(shapes(small),
            (std::vector<std::string>{"kv_down.weight (9, 8)", "kv_norm.weight (7,)", "kv_up.weight (14, 7)",
                                      "proj.weight (8, 8)", "q_down.weight (5, 8)", "q_norm.weight (5,)",
                                      "q_up.weight (10, 5)"}));
  MultiHeadLatentAttention usual(64, 4);
  EXPECT_EQ(usual.d_nope, 16);
  EXPECT_EQ(usual.d_rope, 8);
  EXPECT_EQ(usual.d_v, 16);
  EXPECT_EQ(usual.rank_kv, 32);
  EXPECT_THROW(MultiHeadLatentAttention(8, 3), Error);
  EXPECT_THROW(MultiHeadLatentAttention(8, 0), Error);
  EXPECT_THROW(MultiHeadLatentAttention(8, 2, {.d_rope = 3}), Error);
  EXPECT_THROW(MultiHeadLatentAttention(8, 2, {.rank_kv = -3}), Error);
}

}  // namespace
}  // namespace rapt

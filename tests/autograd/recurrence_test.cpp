#include "../../autograd/ops/recurrence.h"

#include <gtest/gtest.h>

#include <cmath>

#include "../../autograd/grad_check.h"
#include "../../autograd/ops.h"
#include "../../core/random.h"
#include "../../core/storage.h"
#include "../../core/view.h"
#include "../expect.h"

namespace rapt {
namespace {

void expect_agreement(const Tensor& a, const Tensor& b, const std::string& what) {
  EXPECT_LE(relative_difference(a, b), kClose) << what;
}

struct RecurrenceCase {
  Tensor q, k, v, log_decay, beta;
};
RecurrenceCase make_case(int64_t B, int64_t H, int64_t shared, int64_t N, int64_t D, int64_t Dv) {
  manual_seed(11);
  RecurrenceCase c{normal({B, H, N, D}), normal({B, shared, N, D}), normal({B, shared, N, Dv}),
                   uniform({B, H, N}, -1, 0), uniform({B, H, N}, 0, 2)};
  c.k = (c.k / sqrt(sum(c.k * c.k, {-1}, true))).detach();
  return c;
}

// The recurrences as they are written, one position after the other. Empty: no decay, no delta rule.
Tensor step_by_step(const RecurrenceCase& c, const Tensor& log_decay, const Tensor& beta) {
  const int64_t B = c.q.shape[0], H = c.q.shape[1], N = c.q.shape[2], D = c.q.shape[3], Dv = c.v.shape[3];
  const int64_t group = H / c.k.shape[1];
  Tensor out = empty({B, H, N, Dv});
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t h = 0; h < H; ++h) {
      std::vector<double> S(size_t(D * Dv), 0);
      for (int64_t t = 0; t < N; ++t) {
        const double alpha = log_decay ? std::exp(double(log_decay.at({b, h, t}))) : 1;
        auto k = [&](int64_t d) { return double(c.k.at({b, h / group, t, d})); };
        for (double& s : S) s *= alpha;
        for (int64_t e = 0; e < Dv; ++e) {
          double value = c.v.at({b, h / group, t, e});
          if (beta) {
            for (int64_t d = 0; d < D; ++d) value -= S[size_t(d * Dv + e)] * k(d);
            value *= beta.at({b, h, t});
          }
          for (int64_t d = 0; d < D; ++d) S[size_t(d * Dv + e)] += k(d) * value;
          double read = 0;
          for (int64_t d = 0; d < D; ++d) read += S[size_t(d * Dv + e)] * c.q.at({b, h, t, d});
          out.set({b, h, t, e}, Real(read));
        }
      }
    }
  }
  return out;
}

TEST(Recurrence, ChunksGiveWhatStepsGive) {
  for (int64_t shared : {4, 2, 1}) {
    for (int64_t N : {37, 32, 1}) {
      RecurrenceCase c = make_case(2, 4, shared, N, 3, 5);
      Tensor linear = step_by_step(c, {}, {}), decayed = step_by_step(c, c.log_decay, {});
      Tensor delta = step_by_step(c, {}, c.beta), gated = step_by_step(c, c.log_decay, c.beta);
      for (int64_t chunk : {int64_t(1), int64_t(4), int64_t(16), N, 2 * N}) {
        std::string what = fmt::format("N = {}, {} heads of keys, chunk {}", N, shared, chunk);
        expect_agreement(linear_attention(c.q, c.k, c.v, {.chunk = chunk}), linear, "linear, " + what);
        expect_agreement(decay_attention(c.q, c.k, c.v, c.log_decay, chunk), decayed, "decay, " + what);
        expect_agreement(delta_rule(c.q, c.k, c.v, c.beta, {}, chunk), delta, "delta, " + what);
        expect_agreement(delta_rule(c.q, c.k, c.v, c.beta, c.log_decay, chunk), gated, "gated delta, " + what);
      }
    }
  }
}

TEST(Recurrence, NormalizedIsAWeightedMean) {
  RecurrenceCase c = make_case(1, 2, 2, 21, 3, 4);
  Tensor q = c.q * c.q, k = c.k * c.k + 0.1;
  // of values that are all 1: 1
  Tensor mean = linear_attention(q, k, ones({1, 2, 21, 4}), {.normalize = true, .chunk = 8});
  expect_agreement(mean, ones(mean.shape), "mean of ones");
  // against weights q·k of whole rows
  Tensor weights = matmul(q, transpose(k, -1, -2)).detach();
  for (int64_t h = 0; h < 2; ++h) {
    for (int64_t i = 0; i < 21; ++i) {
      for (int64_t j = i + 1; j < 21; ++j) weights.set({0, h, i, j}, 0);
    }
  }
  Tensor expected = matmul(weights, c.v) / sum(weights, {-1}, true);
  expect_agreement(linear_attention(q, k, c.v, {.normalize = true, .chunk = 8}), expected, "weighted mean");
}

TEST(Recurrence, DecaysBroadcast) {
  RecurrenceCase c = make_case(2, 3, 3, 10, 2, 2);
  for (const Tensor& small :
       {from_values({3, 1}, {-0.1, -0.2, -0.3}), from_values({1}, {-0.5}), full({2, 1, 10}, -1)}) {
    Tensor written_out = clone(view::expand(small, {2, 3, 10}));
    expect_agreement(decay_attention(c.q, c.k, c.v, small, 4), decay_attention(c.q, c.k, c.v, written_out, 4), "decay");
    expect_agreement(delta_rule(c.q, c.k, c.v, -small, small, 4),
                     delta_rule(c.q, c.k, c.v, -written_out, written_out, 4), "delta");
  }
}

TEST(Recurrence, NoDecayIsLinearAttention) {
  RecurrenceCase c = make_case(2, 2, 1, 19, 3, 3);
  expect_agreement(decay_attention(c.q, c.k, c.v, zeros({1}), 8), linear_attention(c.q, c.k, c.v, {.chunk = 8}),
                   "decay");
  expect_agreement(delta_rule(c.q, c.k, c.v, c.beta, zeros({1}), 8), delta_rule(c.q, c.k, c.v, c.beta, {}, 8), "delta");
}

// With β = 1 and orthonormal keys a value is stored, read back as it was, and replaced by the next under its key.
TEST(Recurrence, DeltaRuleStoresAndReplaces) {
  manual_seed(3);
  const int64_t N = 8;
  Tensor k = zeros({1, 1, 3 * N, N}), v = normal({1, 1, 3 * N, 5});
  for (int64_t t = 0; t < 3 * N; ++t) k.set({0, 0, t, t % N}, 1);
  for (int64_t chunk : {1, 5, 8, 24}) {
    Tensor at_once = delta_rule(k, k, v, ones({1}), {}, chunk);
    expect_agreement(at_once, v, "read at once");
    // at time t, what was stored under the key of time t + 3 is the value of time t + 3 − N
    Tensor later = clone(k);
    for (int64_t t = 0; t < 3 * N; ++t) {
      for (int64_t d = 0; d < N; ++d) later.set({0, 0, t, d}, d == (t + 3) % N ? 1 : 0);
    }
    Tensor old = delta_rule(later, k, v, ones({1}), {}, chunk);
    expect_agreement(view::slice(old, 2, N - 3, 3 * N), view::slice(v, 2, 0, 2 * N + 3), "read later");
    for (Real none : view::slice(old, 2, 0, N - 3).to_vector()) EXPECT_EQ(none, 0);
  }
}

TEST(Recurrence, ALogDecayOfMinusInfinityForgetsAll) {
  RecurrenceCase c = make_case(1, 2, 2, 23, 3, 3);
  for (int64_t t : {0, 5, 6, 16}) {
    for (int64_t h : {0, 1}) c.log_decay.set({0, h, t}, -kInf);
  }
  for (int64_t chunk : {1, 4, 8, 32}) {
    for (bool delta : {false, true}) {
      auto run = [&](const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& log_decay) {
        return delta ? delta_rule(q, k, v, c.beta, log_decay, chunk) : decay_attention(q, k, v, log_decay, chunk);
      };
      Tensor q = requires_grad(c.q), k = requires_grad(c.k), v = requires_grad(c.v);
      Tensor log_decay = requires_grad(c.log_decay);
      Tensor out = run(q, k, v, log_decay);
      expect_agreement(out.detach(), step_by_step(c, c.log_decay, delta ? c.beta : Tensor()), "forgetting");
      backward(out, ones(out.shape));
      for (const Tensor& x : {q, k, v, log_decay}) {
        for (Real g : gradient(x).to_vector()) ASSERT_FALSE(std::isnan(g));
      }
      for (int64_t t : {0, 5, 6, 16}) EXPECT_EQ(gradient(log_decay).at({0, 1, t}), 0);
    }
  }
}

TEST(Recurrence, LaterPositionsNeverMatter) {
  RecurrenceCase c = make_case(1, 2, 1, 30, 3, 3);
  auto all = [&](const RecurrenceCase& x) {
    return std::vector<Tensor>{linear_attention(x.q, x.k, x.v, {.chunk = 8}),
                               linear_attention(x.q * x.q, x.k * x.k, x.v, {.normalize = true, .chunk = 8}),
                               decay_attention(x.q, x.k, x.v, x.log_decay, 8),
                               delta_rule(x.q, x.k, x.v, x.beta, x.log_decay, 8)};
  };
  std::vector<Tensor> before = all(c);
  for (int64_t t : {29, 17, 16, 1}) {
    RecurrenceCase changed{clone(c.q), clone(c.k), clone(c.v), clone(c.log_decay), clone(c.beta)};
    for (Tensor* x : {&changed.q, &changed.k, &changed.v, &changed.log_decay, &changed.beta}) {
      Tensor rest = view::slice(*x, 2, t, 30);
      fill(rest, Real(0.7));
    }
    std::vector<Tensor> after = all(changed);
    for (size_t i = 0; i < before.size(); ++i) {
      EXPECT_EQ(view::slice(before[i], 2, 0, t).to_vector(), view::slice(after[i], 2, 0, t).to_vector()) << i;
      EXPECT_NE(before[i].to_vector(), after[i].to_vector()) << i;
    }
  }
}

// NaN reaches the rows that read it: its own in q, and from it on in the others; and back the positions they read.
TEST(Recurrence, NanNeverReachesEarlierPositions) {
  const int64_t N = 70, at = 40;
  for (int part = 0; part < 4; ++part) {  // q, k, v, beta
    for (int kind = 0; kind < 4; ++kind) {
      if (part == 3 && kind < 2) continue;
      SCOPED_TRACE(fmt::format("part {}, kind {}", part, kind));
      RecurrenceCase c = make_case(1, 2, 1, N, 3, 4);
      Tensor q = requires_grad(c.q), k = requires_grad(c.k), v = requires_grad(c.v), beta = requires_grad(c.beta);
      if (part < 3) (part == 0 ? q : part == 1 ? k : v).detach().set({0, 0, at, 1}, kNan);
      if (part == 3) beta.detach().set({0, 0, at}, kNan);
      Tensor y = kind == 0   ? linear_attention(q, k, v)
                 : kind == 1 ? decay_attention(q, k, v, c.log_decay)
                 : kind == 2 ? delta_rule(q, k, v, beta)
                             : delta_rule(q, k, v, beta, c.log_decay);
      backward(y, ones(y.shape));
      for (int64_t t = 0; t < N; ++t) {
        const bool spoilt = part == 0 ? t == at : t >= at;
        EXPECT_EQ(std::isnan(y.at({0, 0, t, 0})), spoilt) << t;
        EXPECT_EQ(std::isnan(gradient(q).at({0, 0, t, 0})), spoilt) << t;
        EXPECT_EQ(std::isnan(gradient(k).at({0, 0, t, 0})), part > 0 || t <= at) << t;
        EXPECT_EQ(std::isnan(gradient(v).at({0, 0, t, 0})), part > 0 || t <= at) << t;
      }
    }
  }
}

TEST(Recurrence, Gradients) {
  RecurrenceCase c = make_case(1, 2, 1, 7, 2, 3);
  for (int64_t chunk : {1, 3, 7}) {
    auto result =
        grad_check([&](const std::vector<Tensor>& x) { return delta_rule(x[0], x[1], x[2], x[3], x[4], chunk); },
                   {c.q, c.k, c.v, c.beta, c.log_decay});
    EXPECT_TRUE(result) << "chunk " << chunk << ": " << result.message;
    result = grad_check([&](const std::vector<Tensor>& x) { return decay_attention(x[0], x[1], x[2], x[3], chunk); },
                        {c.q, c.k, c.v, c.log_decay});
    EXPECT_TRUE(result) << "chunk " << chunk << ": " << result.message;
    result =
        grad_check([&](const std::vector<Tensor>& x) { return linear_attention(x[0], x[1], x[2], {.chunk = chunk}); },
                   {c.q, c.k, c.v});
    EXPECT_TRUE(result) << "chunk " << chunk << ": " << result.message;
  }
}

// Floating-point operations of what runs while this lives, as the operations tell them.
struct CountOperations : Observer {
  double forward = 0, backward = 0;
  void end(const Operation& o) override {
    forward += o.cost.forward;
    backward += o.cost.backward;
  }
};

Tensor run(Recurrence kind, const RecurrenceCase& c) {
  switch (kind) {
    case Recurrence::linear:
    case Recurrence::linear_normalized:
      return linear_attention(c.q, c.k, c.v, {.normalize = kind == Recurrence::linear_normalized});
    case Recurrence::decay: return decay_attention(c.q, c.k, c.v, c.log_decay);
    case Recurrence::delta: return delta_rule(c.q, c.k, c.v, c.beta);
    case Recurrence::gated_delta: return delta_rule(c.q, c.k, c.v, c.beta, c.log_decay);
  }
  return {};
}

constexpr Recurrence kRecurrences[] = {Recurrence::linear, Recurrence::linear_normalized, Recurrence::decay,
                                       Recurrence::delta, Recurrence::gated_delta};

RecurrenceCase leaves(RecurrenceCase c) {
  for (Tensor* x : {&c.q, &c.k, &c.v, &c.log_decay, &c.beta}) *x = requires_grad(*x);
  return c;
}

// 3 chunks of C positions: products of C × C with D and Dv inside of one, of C with D × Dv between them.
TEST(Recurrence, ExplainsItself) {
  const int64_t B = 2, H = 4, C = 32, n = 3, D = 8, Dv = 6;
  const Shape q{B, H, n * C, D}, v{B, H, n * C, Dv};
  const RecurrencePlan linear = explain(Recurrence::linear, q, q, v);
  EXPECT_EQ(linear.heads, B * H);
  EXPECT_EQ(linear.chunks, n);
  EXPECT_EQ(linear.chunk, C);
  const double inside = double(B * H * n * (C * C * D + C * C * Dv)), between = double(B * H * n * 2 * C * D * Dv);
  EXPECT_EQ(linear.forward_operations, 2 * (inside + between));
  EXPECT_EQ(linear.backward_operations, 2 * linear.forward_operations);
  const double scan = double(B * H * (n - 1) * D * Dv);
  EXPECT_EQ(explain(Recurrence::decay, q, q, v, {H, 1}).forward_operations, 2 * (inside + between + scan));
  EXPECT_EQ(explain(Recurrence::linear, q, q, v, {}, n * C).forward_operations, 2 * n * inside);  // one chunk
  expect_contains(to_string(linear), "3 chunks of 32 positions in each of 8 heads: 24 tasks");
  expect_contains(error_of([&] { explain(Recurrence::delta, q, v, v); }), "delta_rule: q, k and v don't fit");
}

TEST(Recurrence, ExplainsTheOperationsThatRun) {
  for (Recurrence kind : kRecurrences) {
    for (int64_t shared : {4, 1}) {
      for (int64_t N : {1, 20, 64, 70}) {
        SCOPED_TRACE(fmt::format("kind {}, {} heads of keys, N {}", int(kind), shared, N));
        RecurrenceCase c = leaves(make_case(2, 4, shared, N, 3, 5));
        CountOperations count;
        run(kind, c);
        const RecurrencePlan plan = explain(kind, c.q.shape, c.k.shape, c.v.shape, c.log_decay.shape);
        EXPECT_EQ(plan.forward_operations, count.forward);
        EXPECT_EQ(plan.backward_operations, count.backward);
      }
    }
  }
}

TEST(Recurrence, ExplainsTheMemoryThatIsKept) {
  for (Recurrence kind : kRecurrences) {
    for (int64_t shared : {4, 2, 1}) {
      for (int64_t N : {32, 256, 250}) {
        SCOPED_TRACE(fmt::format("kind {}, {} heads of keys, N {}", int(kind), shared, N));
        RecurrenceCase c = leaves(make_case(2, 4, shared, N, 32, 32));
        const int64_t before = memory_stats().in_use;
        Tensor y = run(kind, c);
        const int64_t result = y.numel() * int64_t(sizeof(Real)), kept = memory_stats().in_use - before - result;
        const RecurrencePlan plan = explain(kind, c.q.shape, c.k.shape, c.v.shape, c.log_decay.shape);
        EXPECT_NEAR(double(plan.saved_bytes), double(kept), 0.2 * double(kept));  // which comes in size classes
      }
    }
  }
}

TEST(Recurrence, InverseTimesTheMatrixIsOne) {
  manual_seed(5);
  const int64_t C = 40;
  Tensor a = uniform({3, C, C}, -0.3f, 0.3f), matrix = zeros({3, C, C});
  for (int64_t m = 0; m < 3; ++m) {
    for (int64_t i = 0; i < C; ++i) {
      for (int64_t j = 0; j <= i; ++j) matrix.set({m, i, j}, i == j ? 1 : a.at({m, i, j}));
    }
  }
  expect_agreement(matmul(matrix, inverse_unit_lower(a)), clone(view::expand(eye(C), {3, C, C})), "inverse");
}

TEST(Recurrence, BadArguments) {
  RecurrenceCase c = make_case(2, 4, 2, 6, 3, 3);
  auto contains = [](const std::function<void()>& f, const std::string& part) {
    try {
      f();
      ADD_FAILURE() << "no error: " << part;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  contains([&] { linear_attention(c.q, view::slice(c.k, 2, 0, 5), c.v); }, "linear_attention: q, k and v don't fit");
  contains([&] { linear_attention(c.q, c.k, c.v, {.chunk = 0}); }, "chunk must be at least 1");
  contains([&] { linear_attention(view::slice(c.q, 1, 0, 3), c.k, c.v); }, "2 heads of k and v don't divide 3");
  contains([&] { decay_attention(c.q, c.k, c.v, zeros({2, 4, 5})); }, "log_decay must broadcast to (2, 4, 6)");
  contains([&] { delta_rule(c.q, c.k, c.v, zeros({3})); }, "delta_rule: beta must broadcast to (2, 4, 6)");
  contains([&] { delta_rule(view::select(c.q, 0, 0), c.k, c.v, c.beta); }, "must be (B, H, N, D)");
  contains([&] { inverse_unit_lower(zeros({2, 3})); }, "must be (…, C, C), but is (2, 3)");
  contains([&] { affine_scan(zeros({4, 2, 2}), zeros({5, 2, 2})); }, "transition is (4, 2, 2)");
}

}  // namespace
}  // namespace rapt

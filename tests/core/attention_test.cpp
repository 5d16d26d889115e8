#include <gtest/gtest.h>
#include <rapt/core/attention/attention.h>
#include <rapt/core/check.h>
#include <rapt/core/parallel.h>
#include <rapt/core/random.h>
#include <rapt/core/view.h>

#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

namespace rapt {
namespace {

constexpr Real kInf = std::numeric_limits<Real>::infinity();
constexpr Real kNan = std::numeric_limits<Real>::quiet_NaN();

struct Sizes {
  int64_t batch = 2, heads = 2, kv_heads = 2, queries = 5, keys = 5, dim = 8, value_dim = 8;
  bool causal = false;
};

std::string describe(const Sizes& s) {
  return fmt::format("B {} H {} Hkv {} N {} M {} D {} Dv {}{}", s.batch, s.heads, s.kv_heads, s.queries, s.keys, s.dim,
                     s.value_dim, s.causal ? " causal" : "");
}

// (B, H, N, D) as a view of memory in the order (B, N, H, D), as the modules have it; NaN where nothing was written.
Tensor heads_view(int64_t batch, int64_t heads, int64_t length, int64_t dim) {
  return view::transpose(full({batch, length, heads, dim}, kNan), 1, 2);
}

struct Inputs {
  Tensor q, k, v, dout, dlse;

  explicit Inputs(const Sizes& s, Real size = 1) {
    manual_seed(3);
    auto draw = [&](int64_t heads, int64_t length, int64_t dim) {
      Tensor x = heads_view(s.batch, heads, length, dim);
      copy_into(x, normal(x.shape, 0, size));
      return x;
    };
    q = draw(s.heads, s.queries, s.dim);
    k = draw(s.kv_heads, s.keys, s.dim);
    v = draw(s.kv_heads, s.keys, s.value_dim);
    dout = draw(s.heads, s.queries, s.value_dim);
    dlse = normal({s.batch, s.heads, s.queries});
  }
};

struct Results {
  Tensor out, lse, dq, dk, dv;
};

using Forward = decltype(&attention_forward);
using Backward = decltype(&attention_backward);

Results run(const Inputs& x, const AttentionOptions& options, bool use_dlse, Forward forward = attention_forward,
            Backward backward = attention_backward) {
  auto like = [](const Tensor& t) { return heads_view(t.shape[0], t.shape[1], t.shape[2], t.shape[3]); };
  Results r{like(x.dout), full(x.dlse.shape, kNan), like(x.q), like(x.k), like(x.v)};
  forward(x.q, x.k, x.v, options, r.out, r.lse);
  backward(x.q, x.k, x.v, r.out, r.lse, x.dout, use_dlse ? &x.dlse : nullptr, options, r.dq, r.dk, r.dv);
  return r;
}

Results run_dense(const Inputs& x, const AttentionOptions& options, bool use_dlse) {
  return run(x, options, use_dlse, attention_dense_forward, attention_dense_backward);
}

// Largest difference over the size of the numbers; infinities must agree, NaN never does.
double difference(const Tensor& a, const Tensor& b) {
  std::vector<Real> x = a.to_vector(), y = b.to_vector();
  EXPECT_EQ(x.size(), y.size());
  double worst = 0, size = 1;
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] == y[i]) continue;
    double d = std::fabs(double(x[i]) - double(y[i]));
    if (!std::isfinite(d)) return 1e30;
    worst = std::max(worst, d);
    size = std::max(size, std::fabs(double(y[i])));
  }
  return worst / size;
}

constexpr double kTolerance = std::is_same_v<Real, float> ? 4e-6 : 1e-14;

void expect_close(const Results& got, const Results& expected, double tolerance = kTolerance) {
  EXPECT_LE(difference(got.out, expected.out), tolerance) << "out";
  EXPECT_LE(difference(got.lse, expected.lse), tolerance) << "lse";
  EXPECT_LE(difference(got.dq, expected.dq), tolerance) << "dq";
  EXPECT_LE(difference(got.dk, expected.dk), tolerance) << "dk";
  EXPECT_LE(difference(got.dv, expected.dv), tolerance) << "dv";
}

void expect_same_bits(const Results& a, const Results& b) {
  EXPECT_EQ(a.out.to_vector(), b.out.to_vector());
  EXPECT_EQ(a.lse.to_vector(), b.lse.to_vector());
  EXPECT_EQ(a.dq.to_vector(), b.dq.to_vector());
  EXPECT_EQ(a.dk.to_vector(), b.dk.to_vector());
  EXPECT_EQ(a.dv.to_vector(), b.dv.to_vector());
}

TEST(Attention, tiles_agree_with_dense) {
  const int64_t lengths[][2] = {{1, 1},   {1, 7},   {7, 1},   {5, 5},    {33, 17},  {17, 33},   {63, 63}, {64, 64},
                                {65, 65}, {64, 65}, {65, 64}, {129, 65}, {65, 129}, {129, 129}, {1, 130}, {130, 1}};
  for (bool causal : {false, true}) {
    for (auto [queries, keys] : lengths) {
      for (bool use_dlse : {false, true}) {
        Sizes s{.queries = queries, .keys = keys, .causal = causal};
        SCOPED_TRACE(describe(s));
        Inputs x(s);
        expect_close(run(x, {.causal = causal}, use_dlse), run_dense(x, {.causal = causal}, use_dlse));
      }
    }
  }
}

TEST(Attention, head_sizes_and_groups) {
  const Sizes cases[] = {
      {.heads = 4, .kv_heads = 2, .queries = 70, .keys = 70},  // grouped queries
      {.heads = 6, .kv_heads = 1, .queries = 35, .keys = 67},  // one kv head
      {.queries = 40, .keys = 40, .dim = 1, .value_dim = 1},   //
      {.queries = 40, .keys = 50, .dim = 16, .value_dim = 5},  // Dv < D
      {.queries = 66, .keys = 50, .dim = 7, .value_dim = 70},  // Dv > D
      {.batch = 1, .heads = 3, .kv_heads = 3, .queries = 70, .keys = 130, .dim = 130, .value_dim = 64},  //
  };
  for (Sizes s : cases) {
    for (bool causal : {false, true}) {
      s.causal = causal;
      SCOPED_TRACE(describe(s));
      Inputs x(s);
      expect_close(run(x, {.causal = causal}, true), run_dense(x, {.causal = causal}, true));
    }
  }
}

TEST(Attention, scale) {
  Inputs x({.queries = 20, .keys = 30, .dim = 16});
  expect_close(run(x, {.scale = Real(0.7)}, true), run_dense(x, {.scale = Real(0.7)}, true));
  expect_same_bits(run(x, {}, true), run(x, {.scale = Real(0.25)}, true));  // 1/√16
}

// q, k, v and dq, dk, dv as parts of one projection (B, N, 3, H, D).
TEST(Attention, packed_projection) {
  int64_t batch = 2, heads = 3, length = 70, dim = 8;
  Sizes s{batch, heads, heads, length, length, dim, dim, true};
  Inputs x(s);
  auto part = [&](const Tensor& packed, int64_t i) { return view::transpose(view::select(packed, 2, i), 1, 2); };
  Tensor packed = empty({batch, length, 3, heads, dim}), dpacked = full(packed.shape, kNan);
  Tensor q = part(packed, 0), k = part(packed, 1), v = part(packed, 2);
  Tensor dq = part(dpacked, 0), dk = part(dpacked, 1), dv = part(dpacked, 2);
  copy_into(q, x.q);
  copy_into(k, x.k);
  copy_into(v, x.v);
  Tensor out = heads_view(batch, heads, length, dim), lse = empty({batch, heads, length});
  attention_forward(q, k, v, {.causal = true}, out, lse);
  attention_backward(q, k, v, out, lse, x.dout, nullptr, {.causal = true}, dq, dk, dv);
  expect_close({out, lse, dq, dk, dv}, run_dense(x, {.causal = true}, false));
}

// Any strides of the inputs: the last axis apart, and a row repeated by stride 0.
TEST(Attention, inputs_without_dense_rows) {
  Sizes s{.queries = 9, .keys = 70, .dim = 6, .value_dim = 6};
  Inputs x(s), y(s);
  auto apart = [](const Tensor& t) {
    Tensor turned = contiguous(view::transpose(t, 2, 3));
    return view::transpose(turned, 2, 3);
  };
  y.q = apart(x.q);
  y.k = apart(x.k);
  y.v = apart(x.v);
  y.dout = view::expand(full({1, 1, 1, 1}, 1), x.dout.shape);
  x.dout = ones(x.dout.shape);
  expect_same_bits(run(y, {}, true), run(x, {}, true));
}

TEST(Attention, rows_without_keys) {
  for (int64_t queries : {10, 100, 200}) {
    Sizes s{.queries = queries, .keys = 7, .causal = true};
    SCOPED_TRACE(describe(s));
    Inputs x(s);
    int64_t masked = queries - 7;
    for (int64_t i = 0; i < masked; ++i) x.dlse.set({0, 0, i}, kNan);  // gradients of −∞ mean nothing
    Results r = run(x, {.causal = true}, true);
    for (int64_t i = 0; i < queries; ++i) {
      EXPECT_EQ(r.lse.at({1, 1, i}) == -kInf, i < masked);
      if (i >= masked) continue;
      for (int64_t c = 0; c < s.dim; ++c) {
        EXPECT_EQ(r.out.at({1, 1, i, c}), 0);
        EXPECT_EQ(r.dq.at({1, 1, i, c}), 0);
      }
    }
    expect_close(r, run_dense(x, {.causal = true}, true));
  }
  // no keys at all
  Inputs x({.queries = 3, .keys = 0});
  Results r = run(x, {}, true);
  for (Real value : r.out.to_vector()) EXPECT_EQ(value, 0);
  for (Real value : r.lse.to_vector()) EXPECT_EQ(value, -kInf);
  for (Real value : r.dq.to_vector()) EXPECT_EQ(value, 0);
}

TEST(Attention, extreme_scores) {
  for (Real size : {Real(30), Real(100)}) {  // scores of 1e3 to 1e5
    Inputs x({.queries = 70, .keys = 90, .dim = 16, .value_dim = 4}, size);
    Results r = run(x, {}, false), expected = run_dense(x, {}, false);
    EXPECT_LE(difference(r.out, expected.out), 2000 * kTolerance);
    EXPECT_LE(difference(r.lse, expected.lse), kTolerance);
    for (const Tensor* t : {&r.dq, &r.dk, &r.dv}) {
      for (Real value : t->to_vector()) ASSERT_TRUE(std::isfinite(value));
    }
  }
  Inputs same({.queries = 70, .keys = 90});  // identical scores: the mean of the values
  fill(same.k, Real(0.5));
  expect_close(run(same, {}, true), run_dense(same, {}, true));
}

TEST(Attention, finite_differences) {
  if (!std::is_same_v<Real, double>) GTEST_SKIP() << "needs double";
  for (bool causal : {false, true}) {
    Sizes s{.batch = 1, .heads = 4, .kv_heads = 2, .queries = 7, .keys = 9, .dim = 5, .value_dim = 3, .causal = causal};
    if (causal) s.queries = 11;  // with rows that have no keys
    Inputs x(s);
    Results r = run(x, {.causal = causal}, true);
    // Σ dout · out + Σ dlse · lse over the rows that have keys
    auto objective = [&] {
      Tensor out = empty(x.dout.shape), lse = empty(x.dlse.shape);
      attention_dense_forward(x.q, x.k, x.v, {.causal = causal}, out, lse);
      std::vector<Real> o = out.to_vector(), l = lse.to_vector(), d = x.dout.to_vector(), e = x.dlse.to_vector();
      Real sum = 0;
      for (size_t i = 0; i < o.size(); ++i) sum += o[i] * d[i];
      for (size_t i = 0; i < l.size(); ++i) sum += l[i] == -kInf ? 0 : l[i] * e[i];
      return sum;
    };
    struct {
      const char* name;
      Tensor* x;
      Tensor* gradient;
    } pairs[] = {{"q", &x.q, &r.dq}, {"k", &x.k, &r.dk}, {"v", &x.v, &r.dv}};
    for (auto& pair : pairs) {  // along a random direction
      Tensor direction = normal(pair.x->shape), start = clone(*pair.x);
      std::vector<Real> u = direction.to_vector(), g = pair.gradient->to_vector(), x0 = start.to_vector();
      Real expected = 0, step = Real(1e-6);
      for (size_t i = 0; i < u.size(); ++i) expected += u[i] * g[i];
      auto at = [&](Real t) {
        std::vector<Real> moved(u.size());
        for (size_t i = 0; i < u.size(); ++i) moved[i] = x0[i] + t * u[i];
        *pair.x = from_values(start.shape, moved);
        return objective();
      };
      Real quotient = (at(step) - at(-step)) / (2 * step);
      *pair.x = start;
      EXPECT_NEAR(quotient, expected, 1e-8 * (1 + std::fabs(expected))) << pair.name;
    }
  }
}

TEST(Attention, same_bits_for_any_number_of_threads) {
  int saved = threads();
  for (Sizes s : {Sizes{.queries = 150, .keys = 150, .causal = true}, Sizes{.queries = 65, .keys = 200},
                  Sizes{.batch = 1, .heads = 4, .kv_heads = 1, .queries = 130, .keys = 300, .causal = true},
                  Sizes{.batch = 5, .heads = 4, .kv_heads = 4, .queries = 70, .keys = 70}}) {
    SCOPED_TRACE(describe(s));
    Inputs x(s);
    set_threads(1);
    Results one = run(x, {.causal = s.causal}, true);
    for (int count : {2, 3, 8}) {
      set_threads(count);
      expect_same_bits(run(x, {.causal = s.causal}, true), one);
    }
  }
  set_threads(saved);
}

// What comes later in the sequence must not touch a bit of what came before, and gradients of a key only come from
// queries at or behind it.
TEST(Attention, causal_prefix) {
  Sizes s{.queries = 150, .keys = 150, .causal = true};
  for (int64_t cut : {1, 63, 64, 65, 100, 149}) {
    Inputs x(s), y(s);
    for (Tensor* t : {&y.q, &y.k, &y.v}) {
      Tensor later = view::slice(*t, 2, cut, s.queries);
      copy_into(later, normal(later.shape, 0, 3));
    }
    Results a = run(x, {.causal = true}, true), b = run(y, {.causal = true}, true);
    EXPECT_EQ(view::slice(a.out, 2, 0, cut).to_vector(), view::slice(b.out, 2, 0, cut).to_vector());
    EXPECT_EQ(view::slice(a.lse, 2, 0, cut).to_vector(), view::slice(b.lse, 2, 0, cut).to_vector());
    EXPECT_NE(view::slice(a.out, 2, cut, s.queries).to_vector(), view::slice(b.out, 2, cut, s.queries).to_vector());

    Inputs z(s);
    Tensor earlier = view::slice(z.dout, 2, 0, cut);
    copy_into(earlier, normal(earlier.shape));
    Results c = run(z, {.causal = true}, true);
    EXPECT_EQ(view::slice(a.dk, 2, cut, s.keys).to_vector(), view::slice(c.dk, 2, cut, s.keys).to_vector());
    EXPECT_EQ(view::slice(a.dv, 2, cut, s.keys).to_vector(), view::slice(c.dv, 2, cut, s.keys).to_vector());
    EXPECT_NE(view::slice(a.dv, 2, 0, cut).to_vector(), view::slice(c.dv, 2, 0, cut).to_vector());
  }
}

// Keys that no query may read don't reach the results, whatever they hold; a NaN that is read does.
TEST(Attention, nan) {
  Sizes s{.queries = 70, .keys = 70, .causal = true};
  Inputs x(s), y(s);
  y.v.set({0, 0, 66, 0}, kNan);
  y.k.set({0, 0, 66, 0}, kNan);
  Results a = run(x, {.causal = true}, false), b = run(y, {.causal = true}, false);
  auto before = [](const Tensor& t) { return view::slice(t, 2, 0, 64).to_vector(); };
  EXPECT_EQ(before(a.out), before(b.out));
  EXPECT_EQ(before(a.lse), before(b.lse));
  EXPECT_EQ(before(a.dq), before(b.dq));
  EXPECT_TRUE(std::isnan(b.out.at({0, 0, 66, 0})));
  EXPECT_TRUE(std::isnan(b.lse.at({0, 0, 66})));
}

TEST(Attention, refuses_shapes_that_do_not_fit) {
  Sizes s;
  Inputs x(s);
  Tensor out = empty(x.dout.shape), lse = empty(x.dlse.shape), dq = empty(x.q.shape), dk = empty(x.k.shape),
         dv = empty(x.v.shape);
  auto forward = [&](Tensor q, Tensor k, Tensor v, Tensor o, Tensor l) { attention_forward(q, k, v, {}, o, l); };
  forward(x.q, x.k, x.v, out, lse);
  EXPECT_THROW(forward(view::select(x.q, 0, 0), x.k, x.v, out, lse), Error);
  EXPECT_THROW(forward(x.q, view::slice(x.k, 2, 0, 3), x.v, out, lse), Error);  // fewer keys than values
  EXPECT_THROW(forward(x.q, view::slice(x.k, 3, 0, 3), x.v, out, lse), Error);  // narrower keys than queries
  EXPECT_THROW(forward(view::slice(x.q, 1, 0, 1), x.k, x.v, out, lse), Error);  // one head on two kv heads
  EXPECT_THROW(forward(x.q, x.k, x.v, view::slice(out, 2, 0, 3), lse), Error);
  EXPECT_THROW(forward(x.q, x.k, x.v, out, view::slice(lse, 2, 0, 3)), Error);
  EXPECT_THROW(forward(x.q, x.k, x.v, view::transpose(empty({2, 2, 8, 5}), 2, 3), lse), Error);  // columns apart
  auto backward = [&](Tensor dout, Tensor dlse, Tensor to_q, Tensor to_k, Tensor to_v) {
    attention_backward(x.q, x.k, x.v, out, lse, dout, &dlse, {}, to_q, to_k, to_v);
  };
  backward(x.dout, x.dlse, dq, dk, dv);
  EXPECT_THROW(backward(view::slice(x.dout, 2, 0, 3), x.dlse, dq, dk, dv), Error);
  EXPECT_THROW(backward(x.dout, view::slice(x.dlse, 2, 0, 3), dq, dk, dv), Error);
  EXPECT_THROW(backward(x.dout, x.dlse, view::slice(dq, 2, 0, 3), dk, dv), Error);
  EXPECT_THROW(backward(x.dout, x.dlse, dq, view::slice(dk, 2, 0, 3), dv), Error);
  EXPECT_THROW(backward(x.dout, x.dlse, dq, dk, view::slice(dv, 2, 0, 3)), Error);
}

}  // namespace
}  // namespace rapt

#include <limits>
#include <vector>

#include "../vector_math.h"
#include "problem.h"

namespace rapt::inline RAPT_ABI {

namespace {

constexpr Real kInf = std::numeric_limits<Real>::infinity();

Real dot(const Real* a, const Real* b, int64_t n) {
  Real sum = 0;
  for (int64_t c = 0; c < n; ++c) sum += a[c] * b[c];
  return sum;
}

// The (N, M) scores of one head, −∞ where masked.
std::vector<Real> head_scores(const AttentionProblem& p, Heads<const Real> q, Heads<const Real> k, int64_t b,
                              int64_t h) {
  std::vector<Real> scores(p.queries * p.keys);
  for (int64_t i = 0; i < p.queries; ++i) {
    for (int64_t j = 0; j < p.keys; ++j) {
      bool masked = p.causal && j > i + p.offset();
      scores[i * p.keys + j] = masked ? -kInf : p.scale * dot(q(b, h, i), k(b, h / p.group(), j), p.dim);
    }
  }
  return scores;
}

}  // namespace

void attention_dense_forward(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options,
                             Tensor& out, Tensor& lse) {
  constexpr const char* op = "attention_dense_forward";
  AttentionProblem p = attention_problem(op, q, k, v, options);
  check_shape(op, "lse", lse, {p.batch, p.heads, p.queries});
  Tensor q_rows = with_dense_rows(q), k_rows = with_dense_rows(k), v_rows = with_dense_rows(v);
  Heads<const Real> qs = read_heads(q_rows), ks = read_heads(k_rows), vs = read_heads(v_rows);
  Heads<Real> outs = write_heads(op, "out", out, {p.batch, p.heads, p.queries, p.value_dim});

  for (int64_t b = 0; b < p.batch; ++b) {
    for (int64_t h = 0; h < p.heads; ++h) {
      std::vector<Real> scores = head_scores(p, qs, ks, b, h);
      for (int64_t i = 0; i < p.queries; ++i) {
        const Real* row = scores.data() + i * p.keys;
        Real *o = outs(b, h, i), max = -kInf, sum = 0;
        std::fill_n(o, p.value_dim, Real(0));
        for (int64_t j = 0; j < p.keys; ++j) max = std::max(max, row[j]);
        if (max > -kInf) {
          for (int64_t j = 0; j < p.keys; ++j) {
            Real weight = math::exp(row[j] - max);
            sum += weight;
            for (int64_t c = 0; c < p.value_dim; ++c) o[c] += weight * vs(b, h / p.group(), j)[c];
          }
          for (int64_t c = 0; c < p.value_dim; ++c) o[c] /= sum;
        }
        lse.set({b, h, i}, max > -kInf ? max + std::log(sum) : -kInf);
      }
    }
  }
}

void attention_dense_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
                              const Tensor& dout, const Tensor* dlse, const AttentionOptions& options, Tensor& dq,
                              Tensor& dk, Tensor& dv) {
  constexpr const char* op = "attention_dense_backward";
  AttentionProblem p = attention_problem(op, q, k, v, options);
  check_shape(op, "out", out, {p.batch, p.heads, p.queries, p.value_dim});
  check_shape(op, "dout", dout, out.shape);
  check_shape(op, "lse", lse, {p.batch, p.heads, p.queries});
  if (dlse) check_shape(op, "dlse", *dlse, lse.shape);
  Tensor q_rows = with_dense_rows(q), k_rows = with_dense_rows(k), v_rows = with_dense_rows(v),
         out_rows = with_dense_rows(out), dout_rows = with_dense_rows(dout);
  Heads<const Real> qs = read_heads(q_rows), ks = read_heads(k_rows), vs = read_heads(v_rows),
                    outs = read_heads(out_rows), douts = read_heads(dout_rows);
  fill(dq, 0);
  fill(dk, 0);
  fill(dv, 0);
  Heads<Real> dqs = write_heads(op, "dq", dq, q.shape), dks = write_heads(op, "dk", dk, k.shape),
              dvs = write_heads(op, "dv", dv, v.shape);

  for (int64_t b = 0; b < p.batch; ++b) {
    for (int64_t h = 0; h < p.heads; ++h) {
      int64_t kv = h / p.group();
      std::vector<Real> scores = head_scores(p, qs, ks, b, h);
      for (int64_t i = 0; i < p.queries; ++i) {
        Real log_sum = lse.at({b, h, i});
        if (log_sum == -kInf) continue;  // no keys
        Real delta = dot(outs(b, h, i), douts(b, h, i), p.value_dim) - (dlse ? dlse->at({b, h, i}) : 0);
        for (int64_t j = 0; j < p.keys; ++j) {
          Real score = scores[i * p.keys + j];
          if (score == -kInf) continue;  // masked
          Real weight = math::exp(score - log_sum);
          Real dweight = dot(douts(b, h, i), vs(b, kv, j), p.value_dim);
          Real dscore = p.scale * weight * (dweight - delta);
          for (int64_t c = 0; c < p.value_dim; ++c) dvs(b, kv, j)[c] += weight * douts(b, h, i)[c];
          for (int64_t c = 0; c < p.dim; ++c) dqs(b, h, i)[c] += dscore * ks(b, kv, j)[c];
          for (int64_t c = 0; c < p.dim; ++c) dks(b, kv, j)[c] += dscore * qs(b, h, i)[c];
        }
      }
    }
  }
}

}  // namespace rapt::inline RAPT_ABI

#include "problem.h"

namespace rapt::inline RAPT_ABI {

namespace {

void check_inputs(const char* op, const Shape& q, const Shape& k, const Shape& v) {
  check(q.rank == 4, "{}: q must be (B, H, N, D), but is {}", op, q);
  check(k.rank == 4, "{}: k must be (B, Hkv, M, D), but is {}", op, k);
  check(v.rank == 4, "{}: v must be (B, Hkv, M, Dv), but is {}", op, v);
  check(q[0] == k[0], "{}: q and k must have the same B, got q {} and k {}", op, q, k);
  check(k[0] == v[0], "{}: k and v must have the same B, got k {} and v {}", op, k, v);
  check(k[1] == v[1], "{}: k and v must have the same Hkv, got k {} and v {}", op, k, v);
  check(k[1] > 0 && q[1] > 0 && q[1] % k[1] == 0,
        "{}: H must be a multiple of Hkv, both at least 1, got q (B, H, N, D) = {} and k (B, Hkv, M, D) = {}", op, q,
        k);
  check(k[2] == v[2], "{}: k and v must have the same M, got k {} and v {}", op, k, v);
  check(q[3] == k[3], "{}: q and k must have the same D, got q {} and k {}", op, q, k);
  check(q[3] > 0, "{}: D must be at least 1, got q (B, H, N, D) = {}", op, q);
  check(v[3] > 0, "{}: Dv must be at least 1, got v (B, Hkv, M, Dv) = {}", op, v);
}

void check_options(const char* op, const AttentionOptions& o, const AttentionProblem& p) {
  check(o.dropout >= 0 && o.dropout <= 1, "{}: dropout is a probability in [0, 1], got {}", op, o.dropout);
  check(std::isfinite(o.scale), "{}: the scale must be finite, got {}", op, o.scale);
  ScoreShape s = p.scores();
  if (!o.mask.everything()) o.mask.rule().check_shape(s);
  for (const auto& rule : o.score.rules()) rule->check_shape(s);
  if (o.normalizer.rows) o.normalizer.rows->check_shape(s);
  if (o.normalizer.sink) {
    const Tensor& sink = o.normalizer.sink;
    bool exponential =
        o.normalizer.kind == Normalizer::Kind::softmax || o.normalizer.kind == Normalizer::Kind::signed_softmax;
    check(exponential, "{}: the normaliser {} has no place for a sink; a softmax and a signed softmax have", op,
          o.normalizer.name());
    check(sink.shape == Shape{p.heads}, "{}: expected sink (H) = ({}), got {}", op, p.heads, sink.shape);
  }
  if (o.relative_queries || o.relative_keys) {
    check(bool(o.relative_queries) && bool(o.relative_keys),
          "{}: relative_queries and relative_keys go together, but one is missing", op);
    const Shape &q = o.relative_queries.shape, &k = o.relative_keys.shape;
    int64_t distances = std::max<int64_t>(0, p.queries + p.keys - 1);
    check(
        q.rank == 4 && q[0] == p.batch && q[1] == p.heads && q[2] == p.queries && k.rank == 3 &&
            (k[0] == p.heads || k[0] == 1) && k[1] == distances && k[2] == q[3],
        "{}: expected relative_queries (B, H, N, D) = ({}, {}, {}, D) and relative_keys (H or 1, N + M − 1, D) = ({}, "
        "{}, D), got {} and {}",
        op, p.batch, p.heads, p.queries, p.heads, distances, q, k);
  }
  if (o.relative_values) {
    const Shape& v = o.relative_values.shape;
    check(v.rank == 2 && v[0] % 2 == 1 && v[1] == p.value_dim,
          "{}: expected relative_values (2C + 1, Dv) with Dv {}, got {}", op, p.value_dim, v);
  }
}

}  // namespace

void check_tiles_carry(const char* op, const AttentionOptions& o) {
  check(!o.normalizer.rows || (!o.relative_queries && !o.relative_values),
        "{}: the normaliser {} needs whole rows, which has no relative terms; use attention_dense", op,
        o.normalizer.name());
}

std::vector<Tensor> AttentionOptions::tables() const {
  std::vector<Tensor> all;
  for (const auto& rule : score.rules()) all.insert(all.end(), rule->tables.begin(), rule->tables.end());
  if (normalizer.sink) all.push_back(normalizer.sink);
  if (normalizer.rows) all.insert(all.end(), normalizer.rows->tables.begin(), normalizer.rows->tables.end());
  if (relative_queries) all.push_back(relative_queries);
  if (relative_keys) all.push_back(relative_keys);
  if (relative_values) all.push_back(relative_values);
  return all;
}

AttentionProblem attention_problem(const char* op, const AttentionCall& call) {
  const Tensor &q = call.q, &k = call.k, &v = call.v;
  check_inputs(op, q.shape, k.shape, v.shape);
  AttentionProblem p{q.shape[0], q.shape[1], k.shape[1], q.shape[2],
                     k.shape[2], q.shape[3], v.shape[3], Real(call.options.scale),
                     {},         call};
  if (p.scale == 0) p.scale = Real(1 / std::sqrt(double(p.dim)));
  check_options(op, call.options, p);
  if (!call.options.mask.everything()) p.band = call.options.mask.rule().band(p.scores());
  return p;
}

BoundTables::BoundTables(const AttentionProblem& p) {
  const AttentionOptions& o = p.options();
  const std::vector<Tensor>& given = p.call.tables;
  for (const Tensor& t : given) dense.push_back(contiguous(t));
  for (const Tensor& t : dense) tables.push_back(bind_table(t.data(), t.shape, p.scores()));
  size_t at = 0;
  for (const auto& rule : o.score.rules()) {
    score_first.push_back(at);
    for (size_t t = at; t < at + rule->tables.size() && t < tables.size(); ++t) {
      tables[t].in_place = rule->reads_in_place();
      tables[t].told = rule->tells_places();
    }
    at += rule->tables.size();
  }
  auto next = [&](bool there) {
    if (!there) return given.size();
    return at++;
  };
  sink = next(bool(o.normalizer.sink));
  rows = at;
  if (o.normalizer.rows) at += o.normalizer.rows->tables.size();
  relative_queries = next(bool(o.relative_queries));
  relative_keys = next(bool(o.relative_keys));
  relative_values = next(bool(o.relative_values));
  check(at == given.size(), "attention: {} tables for options with {}", given.size(), at);
}

void apply_scores(const AttentionOptions& options, const BoundTables& bound, const Strip& strip, Real* scores) {
  const auto& rules = options.score.rules();
  for (size_t r = 0; r < rules.size(); ++r) rules[r]->apply(strip, bound.tables.data() + bound.score_first[r], scores);
}

void ScoreStages::apply(const AttentionOptions& options, const BoundTables& bound, const Strip& strip, Real* scores) {
  const auto& rules = options.score.rules();
  for (size_t r = 0; r < rules.size(); ++r) {
    std::copy_n(scores, strip.count, inputs.data() + r * kTile);
    rules[r]->apply(strip, bound.tables.data() + bound.score_first[r], scores);
  }
}

void ScoreStages::pull_back(const AttentionOptions& options, const BoundTables& bound, const Table* tables,
                            const Strip& strip, Real* gradient) const {
  const auto& rules = options.score.rules();
  for (size_t r = rules.size(); r-- > 0;)
    rules[r]->pull_back(strip, tables + bound.score_first[r], inputs.data() + r * kTile, gradient);
}

}  // namespace rapt::inline RAPT_ABI

#include "score.h"

#include <fmt/format.h>

#include "../lanes.h"

namespace rapt::inline RAPT_ABI {

std::string Score::name() const {
  std::string all;
  for (const auto& rule : rules_) all += (all.empty() ? "" : " | ") + rule->name();
  return all.empty() ? "plain" : all;
}

Table bind_table(const Real* data, const Shape& shape, const ScoreShape& s) {
  Table t;
  t.data = data;
  t.shape = shape;
  t.size = shape.numel();
  const int64_t sizes[] = {s.batch, s.heads, s.queries, s.keys};
  Shape strides = row_major(shape);
  t.broadcasts = shape.rank <= 4;
  for (int d = 0; t.broadcasts && d < shape.rank; ++d) {
    int from = shape.rank - 1 - d;
    t.broadcasts = shape[from] == 1 || shape[from] == sizes[3 - d];
    t.strides[3 - d] = shape[from] == 1 ? 0 : strides[from];
  }
  return t;
}

bool Table::at_its_place(const Strip& s, const int64_t* index) const {
  const int64_t first = s.batch * strides[0] + s.head * strides[1] + s.row * strides[2] + s.key * strides[3];
  bool all = true;
  for (int64_t i = 0; i < s.count; ++i) all &= index[i] == first + i * strides[2] || index[i] < 0;
  return all;
}

void scatter_add(int64_t count, const int64_t* index, const Real* value, Real* gradient) {
  if (count == 0) return;
  int64_t first = index[0], equal = 0, rising = 0, falling = 0;
  for (int64_t i = 0; i < count; ++i) {
    equal += index[i] == first;
    rising += index[i] == first + i;
    falling += index[i] == first - i;
  }
  if (first >= 0 && equal == count) {
    gradient[first] += lane_sum(count, [=](int64_t i) { return value[i]; });
  } else if (first >= 0 && rising == count) {
    for (int64_t i = 0; i < count; ++i) gradient[first + i] += value[i];
  } else if (first >= 0 && falling == count) {
    for (int64_t i = 0; i < count; ++i) gradient[first - i] += value[i];
  } else {
    for (int64_t i = 0; i < count; ++i) {
      if (index[i] >= 0) gradient[index[i]] += value[i];  // −1: a branch left the read out
    }
  }
}

void bad_table_read(const std::string& name, const Strip& strip, std::span<const Tensor> tables) {
  std::string shapes;
  for (const Tensor& t : tables) shapes += fmt::format("{}{}", shapes.empty() ? "" : ", ", t.shape);
  throw Error(fmt::format(
      "score modifier \"{}\": a captured tensor was read outside of its shape, with the wrong number of indices, or "
      "twice in one call (batch {}, head {}, key {}, queries {} to {}; captured: {}); capture a tensor twice to read "
      "it "
      "twice",
      name, strip.batch, strip.head, strip.key, strip.row, strip.row + strip.count - 1, shapes));
}

namespace {

// Entry (i, j) is entry (j, i) of the modifier within, one by one.
struct TransposedRule final : ScoreRule {
  std::shared_ptr<const ScoreRule> rule;
  explicit TransposedRule(std::shared_ptr<const ScoreRule> r) : rule(std::move(r)) { tables = rule->tables; }
  std::string name() const override { return "transposed " + rule->name(); }
  static Strip turned(const Strip& s, int64_t i) { return {s.batch, s.head, s.row + i, s.key, 1, s.keys, s.queries}; }
  static ScoreShape turned(const ScoreShape& s) { return {s.batch, s.heads, s.keys, s.queries}; }
  // The tables were bound to the turned problem.
  std::vector<Table> bound(const Strip& s, const Table* t) const {
    std::vector<Table> all;
    for (size_t n = 0; n < tables.size(); ++n) {
      const Shape& shape = t[n].shape;
      auto size = [&](int d) { return shape.rank >= d ? shape[-d] : 1; };
      all.push_back(bind_table(t[n].data, shape, {size(4), size(3), s.keys, s.queries}));
      all.back().gradient = t[n].gradient;
      all.back().elsewhere = t[n].elsewhere;
    }
    return all;
  }
  void apply(const Strip& s, const Table* t, Real* scores) const override {
    std::vector<Table> own = bound(s, t);
    for (int64_t i = 0; i < s.count; ++i) rule->apply(turned(s, i), own.data(), scores + i);
  }
  void pull_back(const Strip& s, const Table* t, const Real* scores, Real* gradient) const override {
    std::vector<Table> own = bound(s, t);
    for (int64_t i = 0; i < s.count; ++i) rule->pull_back(turned(s, i), own.data(), scores + i, gradient + i);
  }
  void check_shape(const ScoreShape& s) const override { rule->check_shape(turned(s)); }
  // its own place turned, which has one (row, key) as well
  bool reads_in_place() const override { return rule->reads_in_place(); }
  bool tells_places() const override { return rule->tells_places(); }
};

}  // namespace

Score transposed(const Score& score) {
  Score all;
  for (const auto& rule : score.rules()) all = all | Score(std::make_shared<TransposedRule>(rule));
  return all;
}

}  // namespace rapt::inline RAPT_ABI

// A score modifier of one's own: a lambda and a captured table. Its derivative comes from running the same lambda on
// dual numbers. The table learns from which distance back to copy.
#include <rapt/rapt.h>

#include <cmath>
using namespace rapt;

constexpr int64_t kDistances = 12, kCopyFrom = 5, kLength = 96;

// s + table[query − key]. The lambda also runs on masked entries of a tile that has others, so every index must be
// inside the table: hence the clamp.
Score by_distance(const Tensor& table) {
  return score_modifier(
      "by distance",
      [](auto s, At at, auto t) { return s + t[std::clamp<int64_t>(at.query - at.key, 0, kDistances - 1)]; }, table);
}

// Reads by position alone: q and k are 0, so a score is what the table says.
Tensor read(const Tensor& values, const Tensor& table) {
  Tensor nothing = zeros({values.shape[0], 1, kLength, 1});
  return attention(nothing, nothing, values, {.mask = causal() & window(kDistances - 1), .score = by_distance(table)});
}

int main() {
  manual_seed(1);
  // the gradient against differences, first of all inputs, then by hand for one entry of the table
  Tensor q = normal({2, 2, 70, 8}), k = normal({2, 2, 70, 8}), v = normal({2, 2, 70, 4}), start = normal({kDistances});
  auto output = [](const std::vector<Tensor>& x) {
    return attention(x[0], x[1], x[2], {.mask = causal(), .score = by_distance(x[3])});
  };
  GradCheckResult check = grad_check(output, {q, k, v, start}, {.directional = true});
  Tensor table = requires_grad(clone(start)), weights = normal({2, 2, 70, 4});
  backward(sum(output({q, k, v, table}) * weights));
  auto moved = [&](double by) {
    Tensor other = clone(start);
    other.set({kCopyFrom}, Real(other.at({kCopyFrom}) + by));
    return double(sum(output({q, k, v, other}) * weights).item());
  };
  const double analytic = double(gradient(table).at({kCopyFrom})), numeric = (moved(0.02) - moved(-0.02)) / 0.04;
  fmt::print("gradient by table[{}]: {:.5f} from dual numbers, {:.5f} from a difference\n", kCopyFrom, analytic,
             numeric);
  fmt::print("grad_check of q, k, v and the table: {}, largest error {:.1e}\n\n", check.ok ? "right" : "wrong",
             check.error);

  // the task: output[i] = input[i − 5]
  table = requires_grad(zeros({kDistances}));
  AdamW optimizer({{"table", table}}, {.learning_rate = 0.1});
  Real last = 0;
  for (int step = 1; step <= 200; ++step) {
    Tensor x = normal({4, 1, kLength, 8});
    Tensor error = slice(read(x, table), 2, kCopyFrom, kLength) - slice(x, 2, 0, kLength - kCopyFrom);
    Tensor loss = mean(error * error);
    backward(loss);
    optimizer.step();
    optimizer.zero_gradients();
    last = loss.item();
    if (step == 1 || step % 50 == 0) fmt::print("step {:>3}: loss {:.5f}\n", step, last);
  }
  fmt::print("\nthe weight of each distance back, e^table over its sum:\n");
  Tensor share = softmax(table.detach());
  for (int64_t d = 0; d < kDistances; ++d)
    fmt::print("{:>3} {:5.3f} {}\n", d, share.at({d}), std::string(size_t(std::lround(60 * share.at({d}))), '#'));
  const bool same = std::abs(analytic - numeric) < 0.02 * std::max(1.0, std::abs(analytic));
  return check && same && last < 0.01 && share.at({kCopyFrom}) > 0.9 ? 0 : 1;
}

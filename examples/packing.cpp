// Documents of different lengths, one after the other in one sequence, read as if each were alone: without padding, and
// without work for tiles in which no query may read a key.
#include <rapt/rapt.h>

#include <cmath>
using namespace rapt;

constexpr int64_t kHeads = 2, kDim = 32;

double largest_difference(const Tensor& a, const Tensor& b) {
  double most = 0;
  Tensor apart = a.detach() - b.detach();
  for (Real value : apart.to_vector()) most = std::isnan(value) ? value : std::max(most, std::abs(double(value)));
  return most;
}

int main() {
  manual_seed(5);
  const std::vector<int64_t> lengths{300, 40, 520, 7, 210, 90, 369};
  std::vector<int32_t> of_position;
  for (size_t d = 0; d < lengths.size(); ++d) of_position.insert(of_position.end(), size_t(lengths[d]), int32_t(d));
  const int64_t total = int64_t(of_position.size());
  const Tokens ids({1, total}, of_position);
  const AttentionOptions packed{.mask = document(ids) & causal()};

  const Shape shape{1, kHeads, total, kDim};
  Tensor q = requires_grad(normal(shape)), k = requires_grad(normal(shape)), v = requires_grad(normal(shape));
  const Tensor dy = normal(shape);
  Tensor y = attention(q, k, v, packed);
  backward(y, dy);
  const std::vector<Tensor> together{y.detach(), gradient(q), gradient(k), gradient(v)};

  fmt::print("| document | length | output alone − packed | dq, dk, dv alone − packed |\n");
  fmt::print("|---------:|-------:|----------------------:|--------------------------:|\n");
  int64_t begin = 0;
  double worst = 0;
  for (size_t d = 0; d < lengths.size(); ++d) {
    const int64_t end = begin + lengths[d];
    auto own = [&](const Tensor& x) { return slice(x.detach(), 2, begin, end); };
    Tensor dq = requires_grad(own(q)), dk = requires_grad(own(k)), dv = requires_grad(own(v));
    Tensor alone = attention(dq, dk, dv, {.mask = causal()});
    backward(alone, own(dy));
    const double output = largest_difference(alone, own(together[0]));
    const double gradients = std::max({largest_difference(gradient(dq), own(together[1])),
                                       largest_difference(gradient(dk), own(together[2])),
                                       largest_difference(gradient(dv), own(together[3]))});
    fmt::print("| {:>8} | {:>6} | {:>21.1e} | {:>25.1e} |\n", d, lengths[d], output, gradients);
    worst = std::max({worst, output, gradients});
    begin = end;
  }

  const AttentionPlan plan = explain(shape, shape, shape, packed);
  fmt::print("\n{}\n\ntiles of one head, queries down, keys across; #: full, +: partial, .: skipped\n",
             to_string(plan));
  for (int64_t q0 = 0; q0 < total; q0 += kTile) {
    std::string line;
    for (int64_t k0 = 0; k0 < total; k0 += kTile) {
      const Box tile{0, 0, q0, std::min(total, q0 + kTile), k0, std::min(total, k0 + kTile)};
      const Cover cover = packed.mask.rule().classify(tile, {1, kHeads, total, total});
      line += cover == Cover::empty ? " ." : cover == Cover::full ? " #" : " +";
    }
    fmt::print("{}\n", line);
  }
  const double without_documents = explain(shape, shape, shape, {.mask = causal()}).forward_operations;
  fmt::print("\nworst difference {:.1e}; {} of {} tiles skipped; {:.0f} % of the work of one causal sequence\n", worst,
             plan.skipped, plan.tiles, 100 * plan.forward_operations / without_documents);
  return worst < 1e-4 && plan.forward_operations < without_documents / 2 ? 0 : 1;
}

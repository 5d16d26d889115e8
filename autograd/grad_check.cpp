#include "grad_check.h"

#include <algorithm>
#include <cmath>

#include "../core/random.h"
#include "node.h"

namespace rapt::inline RAPT_ABI {

namespace {

double dot(const Tensor& a, const Tensor& b) {
  std::vector<Real> x = a.to_vector(), y = b.to_vector();
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += double(x[i]) * double(y[i]);
  return sum;
}

Shape unravel(int64_t flat, const Shape& shape) {
  Shape index = shape;
  for (int d = shape.rank - 1; d >= 0; --d) {
    index[d] = flat % shape[d];
    flat /= shape[d];
  }
  return index;
}

struct Checker {
  const std::function<Tensor(const std::vector<Tensor>&)>& function;
  const GradCheckOptions& options;
  std::vector<Tensor> inputs;  // dense copies, moved about
  std::vector<Tensor> gradients;
  Tensor cotangent;
  GradCheckResult worst;

  Tensor call(const std::vector<Tensor>& x) const {
    manual_seed(options.seed, 1000);
    return function(x);
  }

  // d/dt of <c, f(…)> where input `i` moves along `direction`
  double numeric(const std::vector<Tensor>& direction) {
    NoGrad no_grad;
    double h = options.step;
    auto at = [&](double t) {
      std::vector<Tensor> moved;
      for (size_t i = 0; i < inputs.size(); ++i) {
        Tensor m = clone(inputs[i]);
        if (direction[i]) {
          Real* p = m.mutable_data();
          const Real* u = direction[i].data();
          for (int64_t j = 0; j < m.numel(); ++j) p[j] += Real(t) * u[j];
        }
        moved.push_back(m);
      }
      return dot(call(moved), cotangent);
    };
    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
  }

  void compare(double analytic, double number, int input, const Shape& index) {
    double error = std::abs(analytic - number) / std::max({1.0, std::abs(analytic), std::abs(number)});
    if (!std::isfinite(error)) error = INFINITY;
    if (worst.input >= 0 && error <= worst.error) return;
    worst = {error <= options.tolerance, error, input, index, analytic, number, {}};
  }
};

GradCheckResult refuse(std::string message) {
  GradCheckResult result;
  result.error = INFINITY;
  result.message = std::move(message);
  return result;
}

}  // namespace

GradCheckResult grad_check(const std::function<Tensor(const std::vector<Tensor>&)>& function,
                           const std::vector<Tensor>& inputs, GradCheckOptions options) {
  Checker checker{function, options, {}, {}, {}, {}};
  std::vector<Tensor> leaves;
  for (const Tensor& x : inputs) {
    checker.inputs.push_back(clone(x));
    // the function sees the strides of the caller's tensor
    leaves.push_back(requires_grad(x.detach()));
  }
  Tensor y = checker.call(leaves);
  if (!y.node) return refuse("grad_check: the result does not depend on any input");
  manual_seed(options.seed, 1);
  checker.cotangent = normal(y.shape);
  if (!same_bits(checker.call(leaves), y)) {
    return refuse("grad_check: the function is not deterministic: two calls on the same inputs differ");
  }
  backward(y, checker.cotangent);

  std::vector<Tensor> none(inputs.size());
  manual_seed(options.seed, 2);
  std::vector<Tensor> directions;
  double along = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    Tensor g = gradient(leaves[i]) ? gradient(leaves[i]) : zeros(inputs[i].shape);
    std::vector<Real> values = g.to_vector();
    bool zero = std::all_of(values.begin(), values.end(), [](Real v) { return v == 0; });
    if (zero && g.numel() > 0 && !options.allow_zero) {
      return refuse(fmt::format("grad_check: the gradient of input {} is zero everywhere, so nothing is tested", i));
    }
    directions.push_back(normal(inputs[i].shape));
    along += dot(g, directions.back());
    checker.gradients.push_back(contiguous(g));
  }
  if (options.directional) {
    checker.compare(along, checker.numeric(directions), 0, {});
  } else {
    for (size_t i = 0; i < inputs.size(); ++i) {
      for (int64_t j = 0; j < inputs[i].numel(); ++j) {
        std::vector<Tensor> direction = none;
        direction[i] = zeros(inputs[i].shape);
        direction[i].mutable_data()[j] = 1;
        checker.compare(checker.gradients[i].data()[j], checker.numeric(direction), int(i),
                        unravel(j, inputs[i].shape));
      }
    }
    if (checker.worst.input < 0) checker.worst.ok = true;  // nothing but empty tensors
  }
  GradCheckResult result = checker.worst;
  result.message = fmt::format(
      "grad_check: {}: worst error {:.2e} (tolerance {:.0e}), input {} at {}: analytic {:.12g}, numeric {:.12g}",
      result.ok ? "ok" : "FAILED", result.error, options.tolerance, result.input, result.index, result.analytic,
      result.numeric);
  return result;
}

}  // namespace rapt::inline RAPT_ABI

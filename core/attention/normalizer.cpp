#include "normalizer.h"

#include "../check.h"

namespace rapt::inline RAPT_ABI {

std::string Normalizer::name() const {
  switch (kind) {
    case Kind::softmax: return sink ? "softmax with sink" : "softmax";
    case Kind::signed_softmax: return sink ? "signed softmax with sink" : "signed softmax";
    case Kind::elementwise: return weight->name();
    case Kind::ratio: return weight->name() + " / sum";
    case Kind::rows:
      return rows->parameter() == 0 ? rows->name() : fmt::format("{} {}", rows->name(), rows->parameter());
    case Kind::inverted: return "inverted softmax";
  }
  return "";
}

Normalizer softmax_plus_one(int64_t heads) { return {.sink = zeros({heads})}; }

namespace {

std::shared_ptr<const WeightRule> relu_rule(double power) {
  check(power >= 0 && std::isfinite(power), "relu weights: the power must be at least 0, got {}", power);
  // what is neither above 0 nor below is NaN, and stays
  if (power == 0) {
    return weight_rule("boxcar", [](auto s) {
      using D = decltype(s);
      return s > 0 ? D(1) : s <= 0 ? D(0) : s;
    });
  }
  if (power == 1) return weight_rule("relu", [](auto s) { return s <= 0 ? decltype(s)(0) : s; });
  return weight_rule(fmt::format("relu^{}", power),
                     [power](auto s) { return s <= 0 ? decltype(s)(0) : pow(s, power); });
}

}  // namespace

Normalizer sigmoid_weights() {
  return {.kind = Normalizer::Kind::elementwise, .weight = weight_rule("sigmoid", [](auto s) { return sigmoid(s); })};
}

Normalizer exp_weights() {
  return {.kind = Normalizer::Kind::elementwise, .weight = weight_rule("exp", [](auto s) { return exp(s); })};
}

Normalizer relu_weights(double power) { return {.kind = Normalizer::Kind::elementwise, .weight = relu_rule(power)}; }
Normalizer relu_ratio(double power) { return {.kind = Normalizer::Kind::ratio, .weight = relu_rule(power)}; }

}  // namespace rapt::inline RAPT_ABI

#include "check_finite.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <string_view>

namespace rapt::inline RAPT_ABI {

namespace {

// By their bits, so that looking at NaN raises no floating-point exception.
using Bits = std::conditional_t<sizeof(Real) == 4, uint32_t, uint64_t>;
constexpr Bits kExponent = std::bit_cast<Bits>(kInf);
constexpr Bits kMinusInfinity = std::bit_cast<Bits>(-kInf);

struct Census {
  int64_t nan = 0, positive = 0, negative = 0;
  int64_t first = -1;  // row-major index of the first that is not finite
  bool any() const { return first >= 0; }
};

Census census(const Tensor& x) {
  Census c;
  if (!x) return c;
  Tensor dense = contiguous(x);
  if (all_finite(dense)) return c;
  for (int64_t i = 0; i < dense.numel(); ++i) {
    Bits bits = std::bit_cast<Bits>(dense.data()[i]);
    if ((bits & kExponent) != kExponent) continue;
    if (c.first < 0) c.first = i;
    ++(bits == kExponent ? c.positive : bits == kMinusInfinity ? c.negative : c.nan);
  }
  return c;
}

std::string place(const Shape& shape, int64_t index) {
  std::string text;
  for (int d = shape.rank - 1; d >= 0; --d) {
    text = fmt::format("{}{}{}", index % shape[d], text.empty() ? "" : ", ", text);
    index /= shape[d];
  }
  return "[" + text + "]";
}

std::string say(const Census& c, const Tensor& x) {
  std::string text;
  auto part = [&](int64_t n, const char* what) {
    if (n > 0) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", n, what);
  };
  part(c.nan, "NaN"), part(c.positive, "Inf"), part(c.negative, "−Inf");
  return fmt::format("{} among its {} numbers {}, the first at {}", text, x.numel(), x.shape, place(x.shape, c.first));
}

bool places_minus_infinity(std::string_view name) {
  return name == "where" || name == "pad" || name == "attention_lse";
}

}  // namespace

void CheckFinite::end(const Operation& o) {
  for (size_t i = 0; i < o.results.size(); ++i) {
    Census result = census(o.results[i]);
    if (!result.any()) continue;
    std::string inputs;
    bool minus_infinity_before = places_minus_infinity(o.name);
    for (size_t k = 0; k < o.inputs.size(); ++k) {
      Census input = census(o.inputs[k]);
      minus_infinity_before |= input.negative > 0;
      if (!input.any()) continue;
      std::string what = o.backward ? "the gradient that reached it" : fmt::format("its input {}", k);
      inputs += fmt::format("\n  {} was bad already: {}", what, say(input, o.inputs[k]));
    }
    if (!o.backward && result.nan == 0 && result.positive == 0 && minus_infinity_before) continue;
    if (inputs.empty())
      inputs = fmt::format("\n  {} finite", o.backward ? "the gradient that reached it is" : "its inputs are all");
    const char* which = o.backward ? "gradient" : "result";
    std::string number = o.backward && o.results.size() > 1 ? fmt::format(" {}", i) : "";
    throw NotFiniteError(fmt::format("{}: its {}{} is not finite: {}{}", o.describe(), which, number,
                                     say(result, o.results[i]), inputs));
  }
}

}  // namespace rapt::inline RAPT_ABI

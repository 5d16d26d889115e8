#include <cmath>
#include <numbers>
#include <utility>

#include "../../core/kernels/elementwise.h"
#include "../../core/vector_math.h"
#include "../ops.h"

namespace rapt::inline RAPT_ABI {

namespace {

using kernels::map;

struct Exp {
  static constexpr auto name = "exp";
  Saved y;
  Tensor forward(std::span<const Tensor> x) {
    Tensor value = map([](Real a) { return math::exp(a); }, x[0]);
    y = value;
    return value;
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    return {map([](Real d, Real v) { return d * v; }, dy, y.get())};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach at) const { return {dy * at.output(y)}; }
};

struct Log {
  static constexpr auto name = "log";
  Saved x;
  Tensor forward(std::span<const Tensor> in) {
    x = in[0];
    return map([](Real a) { return math::log(a); }, in[0]);
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    return {map([](Real d, Real a) { return d / a; }, dy, x.get())};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach at) const { return {dy / at.input(0, x)}; }
};

struct Sqrt {
  static constexpr auto name = "sqrt";
  Saved y;
  Tensor forward(std::span<const Tensor> x) {
    Tensor value = map([](Real a) { return std::sqrt(a); }, x[0]);
    y = value;
    return value;
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    return {map([](Real d, Real v) { return d / (2 * v); }, dy, y.get())};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach at) const { return {dy / (2 * at.output(y))}; }
};

struct Sigmoid {
  static constexpr auto name = "sigmoid";
  Tensor known{};  // the result, where it was computed before
  Saved y{};
  Tensor forward(std::span<const Tensor> x) {
    Tensor value = known ? std::exchange(known, {}) : map([](Real a) { return math::sigmoid(a); }, x[0]);
    y = value;
    return value;
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    return {map([](Real d, Real v) { return d * v * (1 - v); }, dy, y.get())};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach at) const {
    const Tensor s = at.output(y);
    return {dy * s * (1 - s)};
  }
};

struct Tanh {
  static constexpr auto name = "tanh";
  Saved y;
  Tensor forward(std::span<const Tensor> x) {
    Tensor value = map([](Real a) { return math::tanh(a); }, x[0]);
    y = value;
    return value;
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    return {map([](Real d, Real v) { return d * (1 - v * v); }, dy, y.get())};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach at) const {
    const Tensor t = at.output(y);
    return {dy * (1 - t * t)};
  }
};

struct Relu {
  static constexpr auto name = "relu";
  Saved y;
  Tensor forward(std::span<const Tensor> x) {
    Tensor value = map([](Real a) { return a < 0 ? 0 : a; }, x[0]);  // NaN stays NaN
    y = value;
    return value;
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    return {map([](Real d, Real v) { return v > 0 ? d : 0; }, dy, y.get())};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const {
    return {dy * map([](Real v) { return Real(v > 0 ? 1 : 0); }, y.get())};
  }
};

// Functions whose slope shares most of its work with the value. Where the input wants a gradient, both are computed in
// one pass and only the slope is kept. F: at(x, y, slope).
template <class F>
struct Sloped {
  static constexpr auto name = F::name;
  Saved slope;
  Tensor forward(std::span<const Tensor> x, Needs needs) {
    if (!needs.any()) {
      auto value_at = [](Real a) {
        Real value, unused;
        F::at(a, value, unused);
        return value;
      };
      return map(value_at, x[0]);
    }
    Tensor derivative;
    Tensor y = kernels::map_with_slope([](Real a, Real& v, Real& d) { F::at(a, v, d); }, x[0], derivative);
    slope = derivative;
    return y;
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    return {map([](Real d, Real s) { return d * s; }, dy, slope.get())};
  }
  // The slope of softplus is the sigmoid, which can be differentiated from what it is. Those of the others can't.
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach at) const requires requires {
    F::sigmoid_slope;
  }
  { return {dy * record(Sigmoid{slope.get()}, {at.input(0, slope)})}; }
};

struct GeluErf {  // x Φ(x);  Φ(x) + x φ(x)
  static constexpr auto name = "gelu";
  [[gnu::always_inline]] static void at(Real x, Real& y, Real& slope) {
    constexpr Real kInverseSqrt2 = Real(1 / std::numbers::sqrt2);
    constexpr Real kInverseSqrt2Pi = Real(std::numbers::inv_sqrtpi / std::numbers::sqrt2);
    Real phi = Real(0.5) + Real(0.5) * math::erf(x * kInverseSqrt2);
    y = x * phi;
    slope = phi + x * (kInverseSqrt2Pi * math::exp(Real(-0.5) * x * x));
  }
};

struct GeluTanh {  // x (1 + tanh u) / 2,  u = √(2/π) (x + 0.044715 x³)
  static constexpr auto name = "gelu_tanh";
  [[gnu::always_inline]] static void at(Real x, Real& y, Real& slope) {
    constexpr Real kScale = Real(std::numbers::sqrt2 * std::numbers::inv_sqrtpi), kCubic = Real(0.044715);
    Real square = x * x;
    Real t = math::tanh(kScale * x * (1 + kCubic * square));
    Real half = Real(0.5) + Real(0.5) * t;
    y = x * half;
    slope = half + Real(0.5) * x * (1 - t * t) * kScale * (1 + 3 * kCubic * square);
  }
};

struct Silu {  // x σ(x);  σ(x) + x σ(x) (1 − σ(x))
  static constexpr auto name = "silu";
  [[gnu::always_inline]] static void at(Real x, Real& y, Real& slope) {
    Real s = math::sigmoid(x);
    y = x * s;
    slope = s + y * (1 - s);
  }
};

struct Softplus {  // log(1 + eˣ);  σ(x)
  static constexpr auto name = "softplus";
  static constexpr bool sigmoid_slope = true;
  [[gnu::always_inline]] static void at(Real x, Real& y, Real& slope) {
    y = math::softplus(x);
    slope = math::sigmoid(x);
  }
};

}  // namespace

Tensor exp(const Tensor& x, Where where) { return record(Exp{}, {x}, where); }
Tensor log(const Tensor& x, Where where) { return record(Log{}, {x}, where); }
Tensor sqrt(const Tensor& x, Where where) { return record(Sqrt{}, {x}, where); }
Tensor sigmoid(const Tensor& x, Where where) { return record(Sigmoid{}, {x}, where); }
Tensor tanh(const Tensor& x, Where where) { return record(Tanh{}, {x}, where); }
Tensor relu(const Tensor& x, Where where) { return record(Relu{}, {x}, where); }

Tensor gelu(const Tensor& x, Gelu form, Where where) {
  return form == Gelu::erf ? record(Sloped<GeluErf>{}, {x}, where) : record(Sloped<GeluTanh>{}, {x}, where);
}

Tensor silu(const Tensor& x, Where where) { return record(Sloped<Silu>{}, {x}, where); }
Tensor softplus(const Tensor& x, Where where) { return record(Sloped<Softplus>{}, {x}, where); }

}  // namespace rapt::inline RAPT_ABI

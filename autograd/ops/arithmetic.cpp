#include <cmath>

#include "../../core/kernels/elementwise.h"
#include "../ops.h"

namespace rapt::inline RAPT_ABI {

namespace {

using kernels::map;

struct Add {
  static constexpr auto name = "add";
  Tensor forward(std::span<const Tensor> x) {
    broadcast(name, x[0].shape, x[1].shape);
    return map([](Real a, Real b) { return a + b; }, x[0], x[1]);
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const { return {dy, dy}; }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const { return {dy, dy}; }
};

struct Sub {
  static constexpr auto name = "sub";
  Tensor forward(std::span<const Tensor> x) {
    broadcast(name, x[0].shape, x[1].shape);
    return map([](Real a, Real b) { return a - b; }, x[0], x[1]);
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs needs) const { return {dy, needs[1] ? -dy : Tensor()}; }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs needs, Attach) const {
    return {dy, needs[1] ? -dy : Tensor()};
  }
};

struct Mul {
  static constexpr auto name = "mul";
  Saved a, b;
  Tensor forward(std::span<const Tensor> x, Needs needs) {
    broadcast(name, x[0].shape, x[1].shape);
    if (needs[1]) a = x[0];
    if (needs[0]) b = x[1];
    return map([](Real u, Real v) { return u * v; }, x[0], x[1]);
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs needs) const {
    return {needs[0] ? dy * b.get() : Tensor(), needs[1] ? dy * a.get() : Tensor()};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs needs, Attach at) const {
    return {needs[0] ? dy * at.input(1, b) : Tensor(), needs[1] ? dy * at.input(0, a) : Tensor()};
  }
};

struct Div {
  static constexpr auto name = "div";
  Saved b, y;
  Tensor forward(std::span<const Tensor> x) {
    broadcast(name, x[0].shape, x[1].shape);
    b = x[1];
    Tensor quotient = map([](Real u, Real v) { return u / v; }, x[0], x[1]);
    y = quotient;
    return quotient;
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs needs) const {
    Tensor da = dy / b.get();
    return {da, needs[1] ? -(da * y.get()) : Tensor()};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs needs, Attach at) const {
    Tensor da = dy / at.input(1, b);
    return {da, needs[1] ? -(da * at.output(y)) : Tensor()};
  }
};

struct Neg {
  static constexpr auto name = "neg";
  Tensor forward(std::span<const Tensor> x) {
    return map([](Real a) { return -a; }, x[0]);
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const { return {-dy}; }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const { return {-dy}; }
};

struct Abs {
  static constexpr auto name = "abs";
  Saved x;
  Tensor forward(std::span<const Tensor> in) {
    x = in[0];
    return map([](Real a) { return std::abs(a); }, in[0]);
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    return {map([](Real d, Real a) { return a > 0 ? d : a < 0 ? -d : a == 0 ? 0 : a; }, dy, x.get())};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const {
    return {dy * map([](Real a) { return a > 0 ? 1 : a < 0 ? -1 : a == 0 ? 0 : a; }, x.get())};
  }
};

struct PowNumber {  // x^p, p a number
  static constexpr auto name = "pow";
  double exponent = 1;
  Saved x{};
  Tensor forward(std::span<const Tensor> in) {
    x = in[0];
    return power(in[0], Real(exponent));
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    const Real p = Real(exponent);
    if (p == 0) return {zeros(dy.shape)};  // where x is 0 too
    return {map([p](Real d, Real slope) { return d * p * slope; }, dy, power(x, p - 1))};
  }
  static Tensor power(const Tensor& x, Real p) {
    if (p == 1) return x;
    if (p == 2) return map([](Real a) { return a * a; }, x);
    return map([p](Real a) { return std::pow(a, p); }, x);
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach at) const {
    if (exponent == 0) return {dy * 0};
    return {dy * exponent * pow(at.input(0, x), exponent - 1)};
  }
};

struct Pow {  // x^p, p a tensor
  static constexpr auto name = "pow";
  Saved x, p, y;
  Tensor forward(std::span<const Tensor> in, Needs needs) {
    broadcast(name, in[0].shape, in[1].shape);
    x = in[0];
    p = in[1];
    Tensor power = map([](Real a, Real e) { return std::pow(a, e); }, in[0], in[1]);
    if (needs[1]) y = power;
    return power;
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs needs) const {
    Tensor dx, dp;
    if (needs[0]) {
      auto slope = [](Real d, Real a, Real e) { return e == 0 ? 0 : d * e * std::pow(a, e - 1); };
      dx = map(slope, dy, x.get(), p.get());
    }
    if (needs[1]) {  // d/dp x^p = x^p ln x, which is 0 where x^p is
      auto slope = [](Real d, Real a, Real power) { return power == 0 ? 0 : d * power * std::log(a); };
      dp = map(slope, dy, x.get(), y.get());
    }
    return {dx, dp};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs needs, Attach at) const {
    Tensor dx, dp;
    if (needs[0]) {
      const Tensor e = at.input(1, p);
      dx = where(p, dy * e * pow(at.input(0, x), e - 1), 0);
    }
    if (needs[1]) dp = dy * at.output(y) * log(at.input(0, x));
    return {dx, dp};
  }
};

struct Clamp {
  static constexpr auto name = "clamp";
  Real low = 0, high = 0;
  Saved x{};
  Tensor forward(std::span<const Tensor> in) {
    x = in[0];
    return map([l = low, h = high](Real a) { return a < l ? l : a > h ? h : a; }, in[0]);
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    auto pass = [l = low, h = high](Real d, Real a) { return a < l || a > h ? 0 : d; };
    return {map(pass, dy, x.get())};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const {
    auto inside = [l = low, h = high](Real a) { return Real(a < l || a > h ? 0 : 1); };
    return {dy * map(inside, x.get())};
  }
};

struct Maximum {
  static constexpr auto name = "maximum";
  Saved a, b;
  Tensor forward(std::span<const Tensor> x) {
    broadcast(name, x[0].shape, x[1].shape);
    a = x[0];
    b = x[1];
    return map([](Real u, Real v) { return u > v || u != u ? u : v; }, x[0], x[1]);  // NaN in, NaN out
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs needs) const {
    auto share = [](Real d, Real mine, Real other) { return mine > other ? d : mine == other ? d / 2 : 0; };
    return {needs[0] ? map(share, dy, a.get(), b.get()) : Tensor(),
            needs[1] ? map(share, dy, b.get(), a.get()) : Tensor()};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs needs, Attach) const {
    auto share = [](Real mine, Real other) { return Real(mine > other ? 1 : mine == other ? 0.5 : 0); };
    return {needs[0] ? dy * map(share, a.get(), b.get()) : Tensor(),
            needs[1] ? dy * map(share, b.get(), a.get()) : Tensor()};
  }
};

struct WhereOp {
  static constexpr auto name = "where";
  Saved condition;
  Tensor forward(std::span<const Tensor> x) {
    broadcast(name, broadcast(name, x[0].shape, x[1].shape), x[2].shape);
    condition = x[0];
    return map([](Real c, Real a, Real b) { return c != 0 ? a : b; }, x[0], x[1], x[2]);
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs needs) const {
    auto where_true = [](Real d, Real c) { return c != 0 ? d : 0; };
    auto where_false = [](Real d, Real c) { return c != 0 ? 0 : d; };
    return {Tensor(), needs[1] ? map(where_true, dy, condition.get()) : Tensor(),
            needs[2] ? map(where_false, dy, condition.get()) : Tensor()};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs needs, Attach) const {
    return {Tensor(), needs[1] ? where(condition, dy, 0) : Tensor(), needs[2] ? where(condition, 0, dy) : Tensor()};
  }
};

}  // namespace

Tensor operator+(const Operand& a, const Operand& b) { return record(Add{}, {a.tensor, b.tensor}, a.where); }
Tensor operator-(const Operand& a, const Operand& b) { return record(Sub{}, {a.tensor, b.tensor}, a.where); }
Tensor operator*(const Operand& a, const Operand& b) { return record(Mul{}, {a.tensor, b.tensor}, a.where); }
Tensor operator/(const Operand& a, const Operand& b) { return record(Div{}, {a.tensor, b.tensor}, a.where); }
Tensor operator-(const Operand& x) { return record(Neg{}, {x.tensor}, x.where); }

Tensor abs(const Tensor& x, Where where) { return record(Abs{}, {x}, where); }

Tensor pow(const Tensor& x, double exponent, Where where) { return record(PowNumber{exponent}, {x}, where); }
Tensor pow(const Tensor& x, const Tensor& exponent, Where where) { return record(Pow{}, {x, exponent}, where); }

Tensor clamp(const Tensor& x, double low, double high, Where where) {
  check(low <= high, "clamp: low is {}, above high, which is {}", low, high);
  return record(Clamp{Real(low), Real(high)}, {x}, where);
}

Tensor maximum(const Operand& a, const Operand& b, Where where) {
  return record(Maximum{}, {a.tensor, b.tensor}, where);
}

Tensor where(const Tensor& condition, const Operand& a, const Operand& b, Where at) {
  return record(WhereOp{}, {condition.detach(), a.tensor, b.tensor}, at);
}

}  // namespace rapt::inline RAPT_ABI

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
};

struct Sub {
  static constexpr auto name = "sub";
  Tensor forward(std::span<const Tensor> x) {
    broadcast(name, x[0].shape, x[1].shape);
    return map([](Real a, Real b) { return a - b; }, x[0], x[1]);
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs needs) const { return {dy, needs[1] ? -dy : Tensor()}; }
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
};

struct Neg {
  static constexpr auto name = "neg";
  Tensor forward(std::span<const Tensor> x) {
    return map([](Real a) { return -a; }, x[0]);
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const { return {-dy}; }
};

}  // namespace

Tensor operator+(const Operand& a, const Operand& b) { return record(Add{}, {a.tensor, b.tensor}, a.where); }
Tensor operator-(const Operand& a, const Operand& b) { return record(Sub{}, {a.tensor, b.tensor}, a.where); }
Tensor operator*(const Operand& a, const Operand& b) { return record(Mul{}, {a.tensor, b.tensor}, a.where); }
Tensor operator/(const Operand& a, const Operand& b) { return record(Div{}, {a.tensor, b.tensor}, a.where); }
Tensor operator-(const Operand& x) { return record(Neg{}, {x.tensor}, x.where); }

}  // namespace rapt::inline RAPT_ABI

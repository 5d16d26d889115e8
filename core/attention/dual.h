#pragma once
#include <array>
#include <cmath>
#include <type_traits>

#include "../vector_math.h"

/// Forward-mode differentiation: a number with K partial derivatives. A score modifier that is written once for any K
/// runs with none forward and with as many as it has inputs backward, and so needs no derivative of its own.
namespace rapt::inline RAPT_ABI {

template <int K>
struct Dual {
  Real value = 0;
  std::array<Real, K> partial{};

  Dual() = default;
  Dual(Real v) : value(v) {}
  template <class T>
  requires std::is_arithmetic_v<T> Dual(T v) : value(Real(v)) {}
  /// An input: its derivative by itself is 1.
  static Dual variable(Real v, int k) {
    Dual x(v);
    x.partial[size_t(k)] = 1;
    return x;
  }
};

namespace detail {
template <class T>
inline constexpr bool is_dual = false;
template <int K>
inline constexpr bool is_dual<Dual<K>> = true;

template <class A, class B>
struct DualOf;
template <int K, class B>
struct DualOf<Dual<K>, B> {
  using type = Dual<K>;
};
template <class A, int K>
requires(!is_dual<A>) struct DualOf<A, Dual<K>> {
  using type = Dual<K>;
};

template <class T>
concept Number = std::is_arithmetic_v<T> || is_dual<T>;
}  // namespace detail

/// Two operands of which at least one is a dual and the other a dual or a plain number.
template <class A, class B>
concept DualPair = (detail::is_dual<A> || detail::is_dual<B>)&&detail::Number<A>&& detail::Number<B>;

/// f(x) where f has `value` and `slope` at x.
template <int K>
Dual<K> chain_rule(const Dual<K>& x, Real value, Real slope) {
  Dual<K> y(value);
  for (size_t k = 0; k < K; ++k) y.partial[k] = slope * x.partial[k];
  return y;
}

/// f(a, b) where f has `value`, and slopes da and db.
template <int K>
Dual<K> chain_rule(const Dual<K>& a, const Dual<K>& b, Real value, Real da, Real db) {
  Dual<K> y(value);
  for (size_t k = 0; k < K; ++k) y.partial[k] = da * a.partial[k] + db * b.partial[k];
  return y;
}

template <class A, class B>
requires DualPair<A, B>
auto operator+(const A& a, const B& b) {
  using D = typename detail::DualOf<A, B>::type;
  D x(a), y(b);
  return chain_rule(x, y, x.value + y.value, Real(1), Real(1));
}
template <class A, class B>
requires DualPair<A, B>
auto operator-(const A& a, const B& b) {
  using D = typename detail::DualOf<A, B>::type;
  D x(a), y(b);
  return chain_rule(x, y, x.value - y.value, Real(1), Real(-1));
}
template <class A, class B>
requires DualPair<A, B>
auto operator*(const A& a, const B& b) {
  using D = typename detail::DualOf<A, B>::type;
  D x(a), y(b);
  return chain_rule(x, y, x.value * y.value, y.value, x.value);
}
template <class A, class B>
requires DualPair<A, B>
auto operator/(const A& a, const B& b) {
  using D = typename detail::DualOf<A, B>::type;
  D x(a), y(b);
  Real inverse = 1 / y.value;
  return chain_rule(x, y, x.value * inverse, inverse, -x.value * inverse * inverse);
}
template <int K>
Dual<K> operator-(const Dual<K>& x) {
  return chain_rule(x, -x.value, Real(-1));
}
template <int K, detail::Number B>
Dual<K>& operator+=(Dual<K>& a, const B& b) {
  return a = a + b;
}
template <int K, detail::Number B>
Dual<K>& operator-=(Dual<K>& a, const B& b) {
  return a = a - b;
}
template <int K, detail::Number B>
Dual<K>& operator*=(Dual<K>& a, const B& b) {
  return a = a * b;
}

// Comparisons look at values alone.
#define RAPT_COMPARE(op)                           \
  template <class A, class B>                      \
  requires DualPair<A, B>                          \
  bool operator op(const A& a, const B& b) {       \
    using D = typename detail::DualOf<A, B>::type; \
    return D(a).value op D(b).value;               \
  }
RAPT_COMPARE(<)
RAPT_COMPARE(>)
RAPT_COMPARE(<=)
RAPT_COMPARE(>=)
RAPT_COMPARE(==)
#undef RAPT_COMPARE

// The functions that a score modifier may use, found by an unqualified call. At a kink (abs, min, max) one side is
// chosen: the second of equals, slope 0 for abs at 0. sqrt has slope 0 at 0.
template <int K>
Dual<K> exp(const Dual<K>& x) {
  Real y = math::exp(x.value);
  return chain_rule(x, y, y);
}
template <int K>
Dual<K> log(const Dual<K>& x) {
  return chain_rule(x, math::log(x.value), 1 / x.value);
}
template <int K>
Dual<K> tanh(const Dual<K>& x) {
  Real y = math::tanh(x.value);
  return chain_rule(x, y, 1 - y * y);
}
template <int K>
Dual<K> sigmoid(const Dual<K>& x) {
  Real y = math::sigmoid(x.value);
  return chain_rule(x, y, y * (1 - y));
}
template <int K>
Dual<K> softplus(const Dual<K>& x) {
  return chain_rule(x, math::softplus(x.value), math::sigmoid(x.value));
}
template <int K>
Dual<K> sqrt(const Dual<K>& x) {
  Real y = std::sqrt(x.value);
  return chain_rule(x, y, y > 0 ? Real(0.5) / std::max(y, std::numeric_limits<Real>::min()) : Real(0));
}
template <int K>
Dual<K> abs(const Dual<K>& x) {
  return chain_rule(x, std::fabs(x.value), Real(x.value > 0) - Real(x.value < 0));
}
template <int K, class T>
requires std::is_arithmetic_v<T> Dual<K> pow(const Dual<K>& x, T exponent) {
  Real n = Real(exponent);
  return chain_rule(x, std::pow(x.value, n), n * std::pow(x.value, n - 1));
}
/// x > 0.
template <int K>
Dual<K> pow(const Dual<K>& x, const Dual<K>& exponent) {
  Real y = std::pow(x.value, exponent.value);
  return chain_rule(x, exponent, y, exponent.value * std::pow(x.value, exponent.value - 1), y * std::log(x.value));
}
template <class A, class B>
requires DualPair<A, B>
auto min(const A& a, const B& b) {
  using D = typename detail::DualOf<A, B>::type;
  return D(a).value < D(b).value ? D(a) : D(b);
}
template <class A, class B>
requires DualPair<A, B>
auto max(const A& a, const B& b) {
  using D = typename detail::DualOf<A, B>::type;
  return D(a).value > D(b).value ? D(a) : D(b);
}

}  // namespace rapt::inline RAPT_ABI

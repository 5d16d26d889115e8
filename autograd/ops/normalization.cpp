#include "../../core/kernels/normalization.h"

#include <utility>

#include "../ops.h"

namespace rapt::inline RAPT_ABI {

namespace {

// x (…, C) as rows of its last dimension.
struct Rows {
  int64_t rows, C;
};
Rows rows_of(const char* name, const Tensor& x) {
  check(bool(x) && x.rank() >= 1, "{}: x must have at least one dimension, got the shape {}", name, x.shape);
  int64_t C = x.shape[-1];
  return {C == 0 ? 0 : x.numel() / C, C};
}

// A parameter (C), dense; `value` everywhere where it was not given.
Tensor parameter(const char* name, const char* what, const Tensor& p, int64_t C, Real value) {
  if (!p) return full({C}, value);
  check(p.shape == Shape{C}, "{}: the {} is {}, but the last dimension of x is {}", name, what, p.shape, C);
  return contiguous(p);
}

struct LayerNorm {
  static constexpr auto name = "layer_norm";
  static constexpr size_t required_inputs = 1;  // without weight or bias
  double epsilon = 1e-5;
  Saved x, weight, mean, rstd;

  Tensor forward(std::span<const Tensor> in) {
    auto [rows, C] = rows_of(name, in[0]);
    Tensor dense = contiguous(in[0]), w = parameter(name, "weight", in[1], C, 1);
    Tensor bias = parameter(name, "bias", in[2], C, 0);
    Tensor y = empty(dense.shape), m = empty({rows}), s = empty({rows});
    kernels::layer_norm_forward(dense.data(), w.data(), bias.data(), epsilon, rows, C, y.mutable_data(),
                                m.mutable_data(), s.mutable_data());
    x = dense, weight = w, mean = m, rstd = s;
    return y;
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    auto [rows, C] = rows_of(name, x.get());
    Tensor dx = empty(dy.shape), dweight = empty({C}), dbias = empty({C});
    kernels::layer_norm_backward(contiguous(dy).data(), x.get().data(), weight.get().data(), mean.get().data(),
                                 rstd.get().data(), rows, C, dx.mutable_data(), dweight.mutable_data(),
                                 dbias.mutable_data());
    return {dx, dweight, dbias};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs needs, Attach at) const {
    const Tensor v = at.input(0, x), w = at.input(1, weight);
    const Tensor centred = v - rapt::mean(v, {-1}, true);
    const Tensor scale = pow(rapt::mean(centred * centred, {-1}, true) + epsilon, -0.5), unit = centred * scale;
    const Tensor g = dy * w;
    const Tensor dx = scale * (g - rapt::mean(g, {-1}, true) - unit * rapt::mean(g * unit, {-1}, true));
    return {dx, needs[1] ? dy * unit : Tensor(), needs[2] ? dy : Tensor()};
  }
};

struct RmsNorm {
  static constexpr auto name = "rms_norm";
  static constexpr size_t required_inputs = 1;
  double epsilon = 1e-6;
  Saved x, weight, rstd;

  Tensor forward(std::span<const Tensor> in) {
    auto [rows, C] = rows_of(name, in[0]);
    Tensor dense = contiguous(in[0]), w = parameter(name, "weight", in[1], C, 1);
    Tensor y = empty(dense.shape), s = empty({rows});
    kernels::rms_norm_forward(dense.data(), w.data(), epsilon, rows, C, y.mutable_data(), s.mutable_data());
    x = dense, weight = w, rstd = s;
    return y;
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    auto [rows, C] = rows_of(name, x.get());
    Tensor dx = empty(dy.shape), dweight = empty({C});
    kernels::rms_norm_backward(contiguous(dy).data(), x.get().data(), weight.get().data(), rstd.get().data(), rows, C,
                               dx.mutable_data(), dweight.mutable_data());
    return {dx, dweight};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs needs, Attach at) const {
    const Tensor v = at.input(0, x), w = at.input(1, weight);
    const Tensor scale = pow(mean(v * v, {-1}, true) + epsilon, -0.5), unit = v * scale, g = dy * w;
    return {scale * (g - unit * mean(g * unit, {-1}, true)), needs[1] ? dy * unit : Tensor()};
  }
};

// A shape around dimension `axis`: (outer, n, inner).
struct Around {
  int64_t outer = 1, n, inner = 1;
  Around(const Shape& shape, int axis) : n(shape[axis]) {
    for (int d = 0; d < axis; ++d) outer *= shape[d];
    for (int d = axis + 1; d < shape.rank; ++d) inner *= shape[d];
  }
};

// The two differ in their kernels alone.
template <bool kLog>
struct Softmax {
  static constexpr auto name = kLog ? "log_softmax" : "softmax";
  int dim = -1;
  Saved y;

  Tensor forward(std::span<const Tensor> in) {
    Tensor x = contiguous(in[0]), out = empty(x.shape);
    Around a(x.shape, x.shape.axis(dim));
    constexpr auto kernel = kLog ? kernels::log_softmax_forward : kernels::softmax_forward;
    if (x.numel() > 0) kernel(x.data(), a.outer, a.n, a.inner, out.mutable_data());
    y = out;
    return out;
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    Tensor dx = empty(dy.shape);
    Around a(dy.shape, dy.shape.axis(dim));
    constexpr auto kernel = kLog ? kernels::log_softmax_backward : kernels::softmax_backward;
    if (dy.numel() > 0) kernel(contiguous(dy).data(), y.get().data(), a.outer, a.n, a.inner, dx.mutable_data());
    return {dx};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach at) const {
    const Tensor p = at.output(y);
    if (kLog) return {dy - exp(p) * sum(dy, {dim}, true)};
    return {p * (dy - sum(dy * p, {dim}, true))};
  }
};

}  // namespace

Tensor softmax(const Tensor& x, int dim, Where where) { return record(Softmax<false>{dim, {}}, {x}, where); }
Tensor log_softmax(const Tensor& x, int dim, Where where) { return record(Softmax<true>{dim, {}}, {x}, where); }

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double epsilon, Where where) {
  return record(LayerNorm{epsilon, {}, {}, {}, {}}, {x, weight, bias}, where);
}
Tensor rms_norm(const Tensor& x, const Tensor& weight, double epsilon, Where where) {
  return record(RmsNorm{epsilon, {}, {}, {}}, {x, weight}, where);
}

}  // namespace rapt::inline RAPT_ABI

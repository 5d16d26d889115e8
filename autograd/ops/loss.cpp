#include <algorithm>

#include "../../core/gemm.h"
#include "../../core/kernels/cross_entropy.h"
#include "../../core/parallel.h"
#include "../ops.h"
#include "ids.h"

namespace rapt::inline RAPT_ABI {

namespace {

// The sizes and settings of a call, checked: x (…, last), targets (…), V classes.
kernels::CrossEntropy checked(const char* name, const Tensor& x, int64_t V, const Tokens& targets,
                              const CrossEntropyOptions& options) {
  Shape leading = x.shape;
  check(leading.rank >= 1, "{}: a scalar has no classes", name);
  leading.erase(-1);
  check(targets.shape == leading, "{}: targets are {}, but {} needs {}", name, targets.shape, x.shape, leading);
  check(options.label_smoothing >= 0 && options.label_smoothing < 1, "{}: label smoothing must be in [0, 1), got {}",
        name, options.label_smoothing);
  check_ids(name, "target", targets, V, options.ignore_index);
  return {V, options.ignore_index, options.label_smoothing};
}

// 1 / number of targets that count; 0 when none does.
double mean_scale(const Tokens& targets, int32_t ignore_index) {
  int64_t ignored = std::count(targets.ids.begin(), targets.ids.end(), ignore_index);
  return ignored == targets.numel() ? 0 : 1 / double(targets.numel() - ignored);
}

Tensor mean_loss(const std::vector<double>& losses, double scale) {
  double sum = 0;
  for (double loss : losses) sum += loss;
  return scalar(Real(sum * scale));
}

struct CrossEntropy {
  static constexpr auto name = "cross_entropy";
  Tokens targets;
  CrossEntropyOptions options{};
  Saved logits{};

  Tensor forward(std::span<const Tensor> in) {
    Tensor x = contiguous(in[0]);
    kernels::CrossEntropy kernel = checked(name, x, x.rank() ? x.shape[-1] : 0, targets, options);
    std::vector<double> losses(targets.ids.size());
    kernels::cross_entropy_forward(kernel, x.data(), targets.ids.data(), targets.numel(), losses.data());
    logits = x;
    return mean_loss(losses, mean_scale(targets, options.ignore_index));
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    const Tensor& x = logits.get();
    Tensor dx = empty(x.shape);
    Real scale = dy.item() * Real(mean_scale(targets, options.ignore_index));
    kernels::cross_entropy_backward({x.shape[-1], options.ignore_index, options.label_smoothing}, x.data(),
                                    targets.ids.data(), targets.numel(), scale, dx.mutable_data());
    return {dx};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach at) const {
    // dx = dy · (counts ⊙ softmax(x) − wanted): wanted is what the kernel's gradient lacks of the softmax
    const Tensor& plain = logits.get();
    const int64_t V = plain.shape[-1];
    const double scale = mean_scale(targets, options.ignore_index);
    Tensor counts = empty(targets.shape), slope = empty(plain.shape);
    Real* c = counts.mutable_data();
    for (int64_t i = 0; i < targets.numel(); ++i) {
      c[i] = targets.ids[size_t(i)] == options.ignore_index ? 0 : Real(scale);
    }
    kernels::cross_entropy_backward({V, options.ignore_index, options.label_smoothing}, plain.data(),
                                    targets.ids.data(), targets.numel(), Real(scale), slope.mutable_data());
    counts = unsqueeze(counts, -1);
    const Tensor wanted = counts * softmax(plain) - slope;
    return {dy * (counts * softmax(at.input(0, plain)) - wanted)};
  }
};

// Rows whose logits are made at once: 2^21 of these numbers (8 MB), or as many as it takes for good products; with
// fewer rows, reading the weight and adding to its gradient takes as long as the products (64 rows: a quarter more).
int64_t chunk_rows(int64_t V) { return std::max<int64_t>(128, (1 << 21) / std::max<int64_t>(V, 1)); }

struct LinearCrossEntropy {
  static constexpr auto name = "linear_cross_entropy";
  Tokens targets;
  CrossEntropyOptions options{};
  Tensor dx{}, dweight{};  // for dy = 1

  Tensor forward(std::span<const Tensor> in, Needs needs) {
    check(in[0].rank() >= 1 && in[1].rank() == 2 && in[0].shape[-1] == in[1].shape[1],
          "linear_cross_entropy: x (…, C) and weight (V, C) are expected, got {} and {}", in[0].shape, in[1].shape);
    Tensor x = contiguous(in[0]), weight = contiguous(in[1]);
    const int64_t V = weight.shape[0], C = weight.shape[1], rows = targets.numel();
    kernels::CrossEntropy kernel = checked(name, x, V, targets, options);
    const double scale = mean_scale(targets, options.ignore_index);
    if (needs[0]) dx = empty(x.shape);
    if (needs[1]) dweight = rows > 0 ? empty(weight.shape) : zeros(weight.shape);

    const int64_t chunk = std::min(chunk_rows(V), rows);
    Tensor logits = empty({chunk, V});
    std::vector<double> losses(size_t(rows), 0);
    for (int64_t begin = 0; begin < rows; begin += chunk) {
      const int64_t n = std::min(chunk, rows - begin);  // rows of this chunk
      const Real *xc = x.data() + begin * C, *w = weight.data();
      const int32_t* t = targets.ids.data() + begin;
      Real* l = logits.mutable_data();
      gemm(false, true, n, V, C, 1, xc, C, w, C, 0, l, V);  // logits (n, V) = xc (n, C) · w (V, C)ᵀ
      if (!needs.any()) {
        kernels::cross_entropy_forward(kernel, l, t, n, losses.data() + begin);
        continue;
      }
      kernels::cross_entropy_in_place(kernel, l, t, n, Real(scale), losses.data() + begin);  // now dlogits
      if (needs[0]) gemm(false, false, n, C, V, 1, l, V, w, C, 0, dx.mutable_data() + begin * C, C);
      if (needs[1]) gemm(true, false, V, C, n, 1, l, V, xc, C, begin > 0 ? 1 : 0, dweight.mutable_data(), C);
    }
    return mean_loss(losses, scale);
  }

  // The gradients are there and belong to nobody else: they are scaled in place, and only if need be.
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    const Real scale = dy.item();
    std::vector<Tensor> gradients{dx, dweight};
    for (Tensor& g : gradients) {
      if (!g || scale == 1) continue;
      Real* p = g.mutable_data();
      parallel_for(g.numel(), 1 << 14, [=](int64_t begin, int64_t end) {
#pragma omp simd
        for (int64_t i = begin; i < end; ++i) p[i] *= scale;
      });
    }
    return gradients;
  }

  Cost cost(std::span<const Tensor> in, Needs needs) const {
    return {2.0 * double(in[0].numel() * in[1].shape[0]) * (1 + needs[0] + needs[1]), 0};
  }
};

}  // namespace

Tensor cross_entropy(const Tensor& logits, const Tokens& targets, CrossEntropyOptions options, Where where) {
  return record(CrossEntropy{targets, options}, {logits}, where);
}

Tensor linear_cross_entropy(const Tensor& x, const Tensor& weight, const Tokens& targets, CrossEntropyOptions options,
                            Where where) {
  return record(LinearCrossEntropy{targets, options}, {x, weight}, where);
}

}  // namespace rapt::inline RAPT_ABI

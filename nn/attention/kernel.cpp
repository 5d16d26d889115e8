#include "kernel.h"

#include <cmath>

namespace rapt::inline RAPT_ABI {

namespace {

struct KernelPart final : AttentionPart {
  SmoothingKernel kernel;
  bool normalize;
  Tensor log_bandwidth;
  KernelPart(const KernelOptions& o, int64_t heads, double bandwidth)
      : kernel(o.kernel),
        normalize(o.normalize),
        log_bandwidth(param("log_bandwidth", full({heads}, Real(std::log(bandwidth))))) {}
  std::string name() const override { return "kernel"; }
  void add_options(AttentionState& s) const override {
    const Mask mask = s.options.mask;
    s.options = kernel_options(kernel, s.q, s.k, exp(log_bandwidth), normalize);
    s.options.mask = mask;
  }
};

double first_bandwidth(const KernelOptions& o, int64_t D) {
  check(o.bandwidth >= 0, "kernel attention: the bandwidth must be above 0, got {}", o.bandwidth);
  if (o.bandwidth > 0) return o.bandwidth;
  const bool bounded = o.kernel == SmoothingKernel::epanechnikov || o.kernel == SmoothingKernel::boxcar;
  return bounded ? 2 * std::sqrt(double(D)) : std::pow(double(D), 0.25);
}

}  // namespace

AttentionOptions kernel_options(SmoothingKernel kernel, const Tensor& q, const Tensor& k, const Tensor& bandwidth,
                                bool normalize) {
  const Tensor q2 = squared_norm(q), k2 = squared_norm(k);
  AttentionOptions o{.scale = 1};
  if (kernel == SmoothingKernel::gaussian || kernel == SmoothingKernel::laplace) {
    o.score = (kernel == SmoothingKernel::gaussian ? gaussian_kernel : laplace_kernel)(q2, k2, bandwidth);
    if (!normalize) o.normalizer = exp_weights();
  } else {
    o.score = epanechnikov_kernel(q2, k2, bandwidth);
    o.normalizer = (normalize ? relu_ratio : relu_weights)(kernel == SmoothingKernel::boxcar ? 0 : 1);
  }
  return o;
}

Tensor kernel_smooth(const Tensor& x_query, const Tensor& x_key, const Tensor& y, const Tensor& bandwidth,
                     SmoothingKernel kernel, bool normalize) {
  check((x_query.rank() == 1 || x_query.rank() == 2) && x_key.rank() == x_query.rank() &&
            (y.rank() == 1 || y.rank() == 2) && y.shape[0] == x_key.shape[0] && bandwidth.numel() == 1,
        "kernel_smooth: expected points (N, d) and (M, d), or numbers (N) and (M), values (M, c) or (M) and one "
        "bandwidth, got {}, {}, {} and {}",
        x_query.shape, x_key.shape, y.shape, bandwidth.shape);
  // Distances don't change when all points move; near 0, squares lose fewer digits.
  const Tensor center = mean(x_key.detach(), {0});
  auto four = [](const Tensor& x) { return reshape(x, {1, 1, x.shape[0], x.rank() == 1 ? 1 : x.shape[1]}); };
  const Tensor q = four(x_query - center), k = four(x_key - center);
  const Tensor out = attention(q, k, four(y), kernel_options(kernel, q, k, reshape(bandwidth, {1}), normalize));
  return reshape(out, y.rank() == 1 ? Shape{x_query.shape[0]} : Shape{x_query.shape[0], y.shape[1]});
}

KernelAttention::KernelAttention(int64_t dim, int64_t head_count, KernelOptions o)
    : GroupedQueryAttention(dim, head_count, o.common) {
  parts.push_back(child(
      "kernel", std::unique_ptr<AttentionPart>(std::make_unique<KernelPart>(o, heads, first_bandwidth(o, head_dim)))));
}

}  // namespace rapt::inline RAPT_ABI

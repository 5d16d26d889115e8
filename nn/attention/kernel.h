#pragma once
#include "grouped_query.h"

/// Kernel regression as attention (Nadaraya 1964, Watson 1964): weights are a function of the distance ρ between query
/// and key over a bandwidth h, divided by their sum.
namespace rapt::inline RAPT_ABI {

enum class SmoothingKernel {
  gaussian,      ///< exp(−ρ²/2h²)
  laplace,       ///< exp(−ρ/h)
  epanechnikov,  ///< max(0, 1 − ρ²/h²): a query without a key within h gets 0
  boxcar,        ///< 1 within h, else 0: no gradient but that of the values
};

/// Attention by that kernel for q (B, H, N, D), k (B, Hkv, M, D) and bandwidth (H), above 0. Set the mask on top.
/// Without `normalize` the weights are not divided by their sum. Distances are |q|² + |k|² − 2 q·k, which loses as many
/// digits as ρ² is smaller than |q|²: points far from 0 are better moved there, as kernel_smooth does.
AttentionOptions kernel_options(SmoothingKernel kernel, const Tensor& q, const Tensor& k, const Tensor& bandwidth,
                                bool normalize = true);

/// Σ_j K(x_query − x_key[j]) y[j] / Σ_j K: the regression itself, for points (N, d) and (M, d), or numbers (N) and (M);
/// y (M, c) or (M) → (N, c) or (N). `bandwidth` is one number above 0, and may be learned. Without `normalize` it is
/// not divided: with y = 1 a density, but for a factor.
Tensor kernel_smooth(const Tensor& x_query, const Tensor& x_key, const Tensor& y, const Tensor& bandwidth,
                     SmoothingKernel kernel = SmoothingKernel::gaussian, bool normalize = true);

struct KernelOptions {
  GroupedQueryOptions common = {};
  SmoothingKernel kernel = SmoothingKernel::gaussian;
  bool normalize = true;
  double bandwidth =
      0;  ///< to start from; 0: D^¼, with which the Gaussian's q·k counts as usual, or 2√D for bounded ones
};

/// GroupedQueryAttention with a kernel's weights; the bandwidth of each head is learned. Parameters besides:
/// kernel.log_bandwidth (H), so that it stays above 0.
struct KernelAttention : GroupedQueryAttention {
  KernelAttention(int64_t dim, int64_t heads, KernelOptions options = {});
};

}  // namespace rapt::inline RAPT_ABI

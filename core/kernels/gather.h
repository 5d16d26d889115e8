#pragma once
#include "../tensor.h"
#include "../tokens.h"

namespace rapt::inline RAPT_ABI::kernels {

/// x (outer…, N, inner…), index (K) in [0, N) -> (outer…, K, inner…), dense: element index[k] of dimension `dim` goes
/// to k.
Tensor gather(const Tensor& x, int dim, const Tokens& index);
/// Its transpose: dy (outer…, K, inner…) -> (outer…, n, inner…), zero but for the sums over the k with the same index,
/// in the order of k.
Tensor scatter_add(const Tensor& dy, int dim, const Tokens& index, int64_t n);

}  // namespace rapt::inline RAPT_ABI::kernels

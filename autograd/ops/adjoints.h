#pragma once
#include "../../core/tokens.h"
#include "../record.h"

namespace rapt::inline RAPT_ABI {

/// The adjoint of index_select: zeros with `size` entries along `dim`, to which entry i of x is added at index[i].
Tensor index_add(const Tensor& x, int dim, const Tokens& index, int64_t size, Where where = Where::here());

}  // namespace rapt::inline RAPT_ABI

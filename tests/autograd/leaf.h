#pragma once
#include <rapt/autograd/ops.h>

#include <initializer_list>

namespace rapt {

/// A row of numbers that asks for a gradient.
inline Tensor leaf(std::initializer_list<double> values) {
  return requires_grad(from_values({int64_t(values.size())}, values));
}

}  // namespace rapt

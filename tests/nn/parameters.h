#pragma once
#include <string>
#include <vector>

#include "../../core/random.h"
#include "../../core/view.h"
#include "../../nn/module.h"

/// What tests do with the parameters of any module.
namespace rapt {

inline std::vector<std::string> names(const Module& m) {
  std::vector<std::string> out;
  for (const NamedTensor& p : m.parameters()) out.push_back(p.name);
  return out;
}

inline void randomize(const Module& m) {
  for (const NamedTensor& p : m.parameters()) {
    Tensor values = p.tensor.detach();
    copy_into(values, normal(values.shape, 0, Real(0.5)));
  }
}

}  // namespace rapt

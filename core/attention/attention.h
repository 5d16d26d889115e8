#pragma once
#include "../tensor.h"

namespace rapt::inline RAPT_ABI {

struct AttentionOptions {
  bool causal = false;  ///< query i reads keys j ≤ i + M − N (aligned at the bottom right)
  Real scale = 0;       ///< of q·k; 0 means 1/√D
};

}  // namespace rapt::inline RAPT_ABI

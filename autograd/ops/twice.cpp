#include "../ops.h"

namespace rapt::inline RAPT_ABI {

// Those with a backward_recorded; a test compares.
const std::vector<std::string>& twice_differentiable() {
  static const std::vector<std::string> names{
      "add",          "sub",        "mul",          "div",       "neg",       "abs",           "pow",     "clamp",
      "maximum",      "where",      "exp",          "log",       "sqrt",      "sigmoid",       "tanh",    "relu",
      "softplus",     "sum",        "mean",         "max",       "logsumexp", "cumsum",        "slice",   "select",
      "transpose",    "permute",    "reshape",      "expand",    "squeeze",   "unsqueeze",     "cat",     "stack",
      "pad",          "slice_back", "index_select", "index_add", "matmul",    "linear",        "softmax", "log_softmax",
      "squared_norm", "layer_norm", "rms_norm",     "embedding", "dropout",   "cross_entropy", "rotate"};
  return names;
}

}  // namespace rapt::inline RAPT_ABI

#pragma once
#include <string>
#include <vector>

#include "../core/tensor.h"

/// What a debugger needs of the library beside its own reading of memory: tools/gdb/rapt.py, docs/debugging.md.
namespace rapt::inline RAPT_ABI::detail {

/// Whether nodes keep their inputs and results until they are released. A debugger sets it, or the environment variable
/// RAPT_KEEP_VALUES; then a step holds all its intermediate results at once.
extern bool keep_values;
void keep(Node& node, std::vector<Tensor> inputs, const Tensor& result);

/// Does nothing: a place for a breakpoint after every node of a backward pass, with the gradients of its inputs.
void node_has_run(const Node& node, const std::vector<Tensor>& dx);

/// For a call from a debugger: compares the backward of one node, on the inputs that it kept, with differences. The
/// text says how it went.
const char* check_node(const Node* node);

}  // namespace rapt::inline RAPT_ABI::detail

#pragma once
#include <rapt/autograd/ops.h>

#include <functional>
#include <string>
#include <vector>

/// The table of operations: from each row the tests of ops_test.cpp are made, and the comparison of the float library
/// with the double library (tests/both/).
namespace rapt::inline RAPT_ABI {

/// Random numbers, the same ones in float and double.
struct RowInput {
  Shape shape;
  double low = -2, high = 2;
  bool apart = false;  ///< evenly spaced, in random order: no two are close to each other, nor to the middle
};

/// Evenly spread over [low, high).
RowInput in(const Shape& shape, double low = -2, double high = 2);
RowInput positive(const Shape& shape);  ///< in [0.5, 2)
/// For operations with a kink: `shift` moves the numbers away from it, or from those of another input.
RowInput apart(const Shape& shape, double shift = 0);

struct RowOptions {
  bool broadcasts = false;  ///< inputs broadcast against each other: also checked with sizes of 1 and fewer dimensions
  bool dense_last = false;  ///< the last dimension must be dense: not checked with transposed inputs
  int64_t smallest = 0;     ///< least n that means something
  int64_t many = 4000;      ///< n at which the work is shared among threads
  double float_tolerance = 1e-5;  ///< on |float − double| / max(1, |double|)
};

using Inputs = const std::vector<Tensor>&;

struct OpRow {
  std::string name;  ///< the function in ops.h, or "function/variant"
  std::function<Tensor(Inputs)> function;
  std::vector<RowInput> inputs;
  RowOptions options{};
};

/// All rows, where some dimension of the inputs has the size n.
std::vector<OpRow> op_table(int64_t n);

std::vector<Tensor> make_inputs(const OpRow& row);

/// What a row gives: the output, and the gradients of <output, cotangent>.
struct RowOutcome {
  Tensor output;
  std::vector<Tensor> gradients;
};
/// Calls the row's function on leaves with these numbers and strides (a copy of `inputs`, all of them or only those
/// in `wanted` asking for a gradient) and goes back from `cotangent` (without: random_cotangent).
RowOutcome run_row(const OpRow& row, Inputs inputs, uint32_t wanted = ~0u, Tensor cotangent = {});
Tensor random_cotangent(const Shape& shape);

}  // namespace rapt::inline RAPT_ABI

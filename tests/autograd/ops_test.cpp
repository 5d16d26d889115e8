#include <gtest/gtest.h>
#include <rapt/autograd/grad_check.h>
#include <rapt/core/kernels/reduce.h>
#include <rapt/core/parallel.h>
#include <rapt/core/random.h>
#include <rapt/core/view.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "../expect.h"
#include "op_table.h"

// From each row of the table (op_table.cpp): the gradient is right, and nothing depends on strides, on which inputs
// want a gradient, on the number of threads; sizes of 1 and 0 work.

namespace rapt {
namespace {

// A row is known by its place: the table is made anew for each n.
struct RowName {
  size_t index;
  std::string name;
  OpRow at(int64_t n) const { return op_table(n)[index]; }
};
void PrintTo(const RowName& row, std::ostream* out) { *out << row.name; }

std::vector<RowName> rows(bool (*wanted)(const OpRow&)) {
  std::vector<RowName> names;
  std::vector<OpRow> table = op_table(3);
  for (size_t i = 0; i < table.size(); ++i) {
    if (wanted(table[i])) names.push_back({i, table[i].name});
  }
  return names;
}

std::string test_name(const ::testing::TestParamInfo<RowName>& info) {
  std::string name = info.param.name;
  std::replace(name.begin(), name.end(), '/', '_');
  return name;
}

class OpTest : public ::testing::TestWithParam<RowName> {};
class BroadcastingOpTest : public ::testing::TestWithParam<RowName> {};
INSTANTIATE_TEST_SUITE_P(Table, OpTest, ::testing::ValuesIn(rows([](const OpRow&) { return true; })), test_name);
INSTANTIATE_TEST_SUITE_P(Table, BroadcastingOpTest,
                         ::testing::ValuesIn(rows([](const OpRow& row) { return row.options.broadcasts; })), test_name);

void expect_same_bits(const Tensor& a, const Tensor& b, const std::string& what) {
  ASSERT_EQ(bool(a), bool(b)) << what;
  if (!a) return;
  ASSERT_EQ(a.shape, b.shape) << what;
  std::vector<Real> x = a.to_vector(), y = b.to_vector();
  if (x.empty()) return;
  EXPECT_EQ(std::memcmp(x.data(), y.data(), x.size() * sizeof(Real)), 0) << what << ":\n"
                                                                         << to_string(a) << "\n"
                                                                         << to_string(b);
}

// Other strides may mean another order of summation in the kernels underneath; a sum that comes out small has the error
// of its parts.
void expect_close(const Tensor& a, const Tensor& b, const std::string& what) {
  ASSERT_EQ(a.shape, b.shape) << what;
  std::vector<Real> x = a.to_vector(), y = b.to_vector();
  double scale = 1;
  for (Real v : y) scale = std::max(scale, double(std::fabs(v)));
  double tolerance = scale * (sizeof(Real) == 8 ? 1e-13 : 1e-5);
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_LE(std::fabs(x[i] - y[i]), tolerance) << what << ", element " << i << ":\n"
                                                 << to_string(a) << "\n"
                                                 << to_string(b);
  }
}

void expect_close(const RowOutcome& a, const RowOutcome& b, const std::string& what) {
  expect_close(a.output, b.output, what + ", output");
  for (size_t i = 0; i < a.gradients.size(); ++i) {
    expect_close(a.gradients[i], b.gradients[i], what + ", gradient " + std::to_string(i));
  }
}

// The same numbers lying differently in memory, NaN in between.
enum class Layout { transposed, apart };
Tensor laid_out(const Tensor& x, Layout layout) {
  if (x.rank() == 0) {
    Tensor y = full({3}, kNan);
    y.set({1}, x.item());
    return view::select(y, 0, 1);
  }
  Tensor y;
  if (layout == Layout::transposed && x.rank() >= 2) {
    y = view::transpose(clone(view::transpose(x, 0, -1)), 0, -1);
  } else if (layout == Layout::transposed) {  // every second element
    y = view::slice(full({2 * x.shape[0] + 1}, kNan), 0, 1, 2 * x.shape[0] + 1, 2);
  } else {
    Shape wider = x.shape;
    wider[-1] += 3;
    y = view::slice(full(wider, kNan), -1, 2, wider[-1] - 1);
  }
  copy_into(y, x);
  return y;
}

bool has_nan(const Tensor& x) {
  std::vector<Real> values = x.to_vector();
  return std::any_of(values.begin(), values.end(), [](Real v) { return std::isnan(v); });
}

int64_t total(Inputs inputs) {
  int64_t n = 0;
  for (const Tensor& x : inputs) n += x.numel();
  return n;
}

TEST_P(OpTest, GradientIsRight) {
  OpRow row = GetParam().at(3);
  std::vector<Tensor> inputs = make_inputs(row);
  bool few = total(inputs) <= 300;
  if (few) {
    GradCheckResult each = grad_check(row.function, inputs);
    EXPECT_TRUE(each) << each.message;
  }
  if (few && sizeof(Real) == 4) return;  // whose long steps in a random direction pass over kinks
  GradCheckResult along = grad_check(row.function, inputs, {.directional = true});
  EXPECT_TRUE(along) << along.message;
}

void check_strides(const OpRow& row) {
  std::vector<Tensor> inputs = make_inputs(row);
  RowOutcome expected = run_row(row, inputs);
  for (Layout layout : {Layout::apart, Layout::transposed}) {
    if (layout == Layout::transposed && row.options.dense_last) continue;
    std::string what = layout == Layout::apart ? "rows apart" : "transposed";
    std::vector<Tensor> moved;
    for (const Tensor& x : inputs) moved.push_back(laid_out(x, layout));
    expect_close(run_row(row, moved), expected, what);
    Tensor dy = laid_out(random_cotangent(expected.output.shape), layout);
    expect_close(run_row(row, inputs, ~0u, dy), expected, what + " cotangent");
  }
  // what sum() sends back: one number, repeated by stride 0
  Tensor repeated = view::expand(scalar(Real(0.75)), expected.output.shape);
  expect_close(run_row(row, inputs, ~0u, repeated), run_row(row, inputs, ~0u, clone(repeated)), "repeated cotangent");
}

TEST_P(OpTest, AnyStrides) { check_strides(GetParam().at(3)); }

// Large enough that work is cut in pieces, which lie differently for other strides.
TEST_P(OpTest, AnyStridesOfMany) { check_strides(GetParam().at(GetParam().at(3).options.many)); }

TEST_P(OpTest, AnyInputsWanted) {
  OpRow row = GetParam().at(3);
  std::vector<Tensor> inputs = make_inputs(row);
  RowOutcome all = run_row(row, inputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    RowOutcome one = run_row(row, inputs, 1u << i);
    expect_same_bits(one.output, all.output, "output");
    expect_same_bits(one.gradients[i], all.gradients[i], "gradient of input alone: " + std::to_string(i));
  }
  NoGrad no_grad;
  manual_seed(5);
  std::vector<Tensor> leaves;
  for (const Tensor& x : inputs) leaves.push_back(requires_grad(x));
  Tensor y = row.function(leaves);
  EXPECT_FALSE(y.node);
  expect_same_bits(y, all.output, "without recording");
}

TEST_P(OpTest, ChangesNothingItWasGiven) {
  OpRow row = GetParam().at(3);
  std::vector<Tensor> inputs = make_inputs(row), before;
  for (const Tensor& x : inputs) before.push_back(clone(x));
  Tensor dy = random_cotangent(run_row(row, inputs).output.shape), dy_before = clone(dy);
  run_row(row, inputs, ~0u, dy);
  expect_same_bits(dy, dy_before, "cotangent");
  for (size_t i = 0; i < inputs.size(); ++i) expect_same_bits(inputs[i], before[i], "input " + std::to_string(i));
}

TEST_P(OpTest, AnySize) {
  for (int64_t n : {0, 1, 2, 17}) {
    OpRow row = GetParam().at(n);
    if (n < row.options.smallest) continue;
    std::vector<Tensor> inputs = make_inputs(row);
    RowOutcome outcome = run_row(row, inputs);
    EXPECT_FALSE(has_nan(outcome.output)) << "n = " << n;
    for (size_t i = 0; i < inputs.size(); ++i) {
      EXPECT_EQ(outcome.gradients[i].shape, inputs[i].shape) << "n = " << n;
      EXPECT_FALSE(has_nan(outcome.gradients[i])) << "n = " << n;
    }
    if (sizeof(Real) == 4 || outcome.output.numel() == 0) continue;
    GradCheckResult result = grad_check(row.function, inputs, {.directional = n > 2, .allow_zero = true});
    EXPECT_TRUE(result) << "n = " << n << ": " << result.message;
  }
}

TEST_P(OpTest, AnyNumberOfThreads) {
  OpRow row = GetParam().at(GetParam().at(3).options.many);
  std::vector<Tensor> inputs = make_inputs(row);
  int before = threads();
  set_threads(1);
  RowOutcome expected = run_row(row, inputs);
  for (int n : {2, 3, 8}) {
    set_threads(n);
    RowOutcome outcome = run_row(row, inputs);
    expect_same_bits(outcome.output, expected.output, "output with " + std::to_string(n));
    for (size_t i = 0; i < inputs.size(); ++i) {
      expect_same_bits(outcome.gradients[i], expected.gradients[i], "gradient with " + std::to_string(n));
    }
  }
  set_threads(before);
}

// With an input that is broadcast: the same as with its numbers written out, the gradient summed.
TEST_P(BroadcastingOpTest, Broadcasts) {
  OpRow row = GetParam().at(3);
  std::vector<Tensor> inputs = make_inputs(row);
  const Shape full = inputs[0].shape;  // (3, 4)
  ASSERT_EQ(full.rank, 2);
  for (size_t i = 0; i < inputs.size(); ++i) {
    Tensor x = inputs[i];
    for (const Tensor& small : {view::slice(x, 0, 0, 1), view::slice(x, 1, 1, 2), view::select(x, 0, 2),
                                view::select(view::select(x, 0, 1), 0, 2)}) {
      std::vector<Tensor> given = inputs, written_out = inputs;
      given[i] = clone(small);
      written_out[i] = clone(view::expand(small, full));
      RowOutcome outcome = run_row(row, given), expected = run_row(row, written_out);
      expected.gradients[i] = kernels::sum_to(expected.gradients[i], small.shape);
      expect_close(outcome, expected, fmt::format("input {} of shape {}", i, small.shape));
      GradCheckResult result = grad_check(row.function, given);
      EXPECT_TRUE(result) << result.message;
    }
  }
  // an operand of no elements against one of size 1
  std::vector<Tensor> none(inputs.size(), zeros({0, 4}));
  none.back() = view::slice(inputs.back(), 0, 0, 1);
  RowOutcome outcome = run_row(row, none);
  EXPECT_EQ(outcome.output.shape, Shape({0, 4}));
  EXPECT_EQ(outcome.gradients.back().shape, Shape({1, 4}));
  EXPECT_FALSE(has_nan(outcome.gradients.back()));

  std::vector<Tensor> wrong = inputs;
  wrong.back() = zeros({3, 3});
  EXPECT_THROW(row.function(wrong), Error);
}

TEST(OpTable, HasEveryOperation) {
  std::ifstream header(RAPT_TEST_FOLDER "/../autograd/ops.h");
  ASSERT_TRUE(header);
  std::set<std::string> known{"operator", "attention_weights"};  // the latter without a gradient
  for (const OpRow& row : op_table(3)) known.insert(row.name.substr(0, row.name.find('/')));
  int found = 0;
  for (std::string line; std::getline(header, line);) {
    size_t begin = line.find("Tensor ") == 0 ? 7 : line.find("std::vector<Tensor> ") == 0 ? 20 : line.npos;
    if (begin == line.npos || line.find('(') == line.npos) continue;
    std::string name = line.substr(begin, line.find('(') - begin);
    if (name.find("operator") == 0) name = "operator";
    ++found;
    EXPECT_TRUE(known.contains(name)) << name << " has no row in tests/autograd/op_table.cpp";
  }
  EXPECT_GT(found, 40);
}

}  // namespace
}  // namespace rapt

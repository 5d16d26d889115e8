#include "outcomes.h"

#include "../autograd/op_table.h"

namespace both {

namespace {

std::vector<double> to_doubles(const rapt::Tensor& x) {
  std::vector<rapt::Real> values = x.to_vector();
  return {values.begin(), values.end()};
}

std::vector<Outcome> outcomes() {
  std::vector<Outcome> all;
  for (const rapt::OpRow& row : rapt::op_table(5)) {
    rapt::RowOutcome result = rapt::run_row(row, rapt::make_inputs(row));
    Outcome outcome{row.name, row.options.float_tolerance, to_doubles(result.output), {}};
    for (const rapt::Tensor& g : result.gradients) outcome.gradients.push_back(to_doubles(g));
    all.push_back(outcome);
  }
  return all;
}

std::string error() {
  try {
    rapt::ones({2}) + rapt::ones({3});
  } catch (const rapt::Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

#ifdef RAPT_DOUBLE
std::vector<Outcome> double_outcomes() { return outcomes(); }
std::string double_error() { return error(); }
#else
std::vector<Outcome> float_outcomes() { return outcomes(); }
std::string float_error() { return error(); }
#endif

}  // namespace both

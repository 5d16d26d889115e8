#pragma once
#include <string>
#include <vector>

/// What both libraries say to the same numbers: outcomes.cpp is compiled once with each of them, and this header, in
/// no namespace of theirs, is what the two have in common.
namespace both {

struct Outcome {
  std::string name;
  double tolerance;
  std::vector<double> output;
  std::vector<std::vector<double>> gradients;
};

/// The rows of the table of operations (tests/autograd/op_table.h), computed in float and in double.
std::vector<Outcome> float_outcomes();
std::vector<Outcome> double_outcomes();

/// The message of an error that the library throws.
std::string float_error();
std::string double_error();

}  // namespace both

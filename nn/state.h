#pragma once
#include <span>
#include <string>
#include <vector>

#include "../autograd/node.h"

/// Names and tensors: what a model's state is, and how to fill it.
namespace rapt::inline RAPT_ABI {

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

/// What became of each name when values were loaded.
struct LoadReport {
  struct Misshapen {
    std::string name;
    Shape given, expected;
    bool transposed() const;  ///< a matrix that would fit if it were transposed
  };
  std::vector<std::string> loaded;
  std::vector<NamedTensor> missing;     ///< parameters without a value
  std::vector<NamedTensor> unexpected;  ///< values without a parameter
  std::vector<Misshapen> misshapen;
  std::vector<std::string> given_twice;

  bool complete() const;  ///< every parameter has its value, and there was nothing else
};
/// A line for each problem, such as "misshapen: up.weight is (3, 4) instead of (4, 3); transposed?".
std::string to_string(const LoadReport& report);

struct LoadOptions {
  bool partly = false;  ///< load what fits and report the rest, instead of throwing
};

/// Copies tensors by name into the parameters. Unless it is to load partly, throws one Error with the whole report when
/// anything is missing, unexpected or misshapen, and changes nothing then. A name that is given twice is always an
/// error.
LoadReport load_parameters(std::span<const NamedTensor> parameters, std::span<const NamedTensor> values,
                           LoadOptions options = {});

/// The parameters that are not frozen: what an optimizer should get when fine-tuning.
std::vector<NamedTensor> trainable(std::span<const NamedTensor> parameters);

}  // namespace rapt::inline RAPT_ABI

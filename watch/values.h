#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "../autograd/observer.h"

namespace rapt::inline RAPT_ABI {

/// What one operation computed, in short.
struct ValueLine {
  std::string pass;  ///< "forward" or "backward"
  std::string operation, module, where;
  int64_t result = 0;  ///< which one; backward gives a gradient for each input
  std::string shape;   ///< "(2, 3)"
  uint64_t hash = 0;   ///< of the numbers' bits in row-major order
  double least = 0, most = 0, mean = 0;
};

/// While it lives, hands a line for every result of every operation of this thread to `sink`, in the order they run.
class ValueLog final : public Observer {
 public:
  explicit ValueLog(std::function<void(const ValueLine&)> sink) : sink_(std::move(sink)) {}
  void end(const Operation& operation) override;

 private:
  std::function<void(const ValueLine&)> sink_;
};

/// One line of text for each, fields separated by tabs.
std::string to_text(const ValueLine& line);
/// The first line of a file of values.
inline constexpr const char* kValuesHeader =
    "# rapt values 1: pass operation module where result shape hash least most mean";
/// Throws DataError naming the file and the line.
std::vector<ValueLine> read_values(const std::string& path);

/// The index of the first line that differs: in pass, operation, module, result or shape, or in value. Values differ
/// when their bits do; with a tolerance > 0, when least, most or mean differ by more than tolerance · (1 + |value|).
/// The source line is no difference, since builds may have other ones. Nothing when a and b are equal to the end.
std::optional<size_t> first_difference(const std::vector<ValueLine>& a, const std::vector<ValueLine>& b,
                                       double tolerance = 0);

}  // namespace rapt::inline RAPT_ABI

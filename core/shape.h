#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "check.h"

namespace rapt::inline RAPT_ABI {

/// The sizes (or strides) of up to kMaxRank dimensions, slowest first; plain data, no heap.
struct Shape {
  static constexpr int kMaxRank = 6;
  int rank = 0;
  std::array<int64_t, kMaxRank> sizes{};

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims);

  /// Size of dimension `i`; negative counts from the end. Throws when out of range.
  int64_t operator[](int i) const { return sizes[axis(i)]; }
  int64_t& operator[](int i) { return sizes[axis(i)]; }

  /// The dimension `i` means, in [0, rank): negative counts from the end. Throws when out of range.
  int axis(int i) const {
    if (i < -rank || i >= rank) [[unlikely]]
      bad_axis(i);
    return i < 0 ? i + rank : i;
  }

  int64_t numel() const;         ///< number of elements; 1 for rank 0. Throws when they are 2^63 or more
  void push_back(int64_t size);  ///< appends a dimension
  void insert(int i, int64_t size);
  void erase(int i);
  bool operator==(const Shape&) const = default;

  const int64_t* begin() const { return sizes.data(); }
  const int64_t* end() const { return sizes.data() + rank; }

 private:
  [[noreturn]] void bad_axis(int i) const;
};

/// Element strides of a dense row-major tensor of this shape.
Shape row_major(const Shape& shape);

/// The shape both broadcast to (NumPy's rule: align at the right, sizes equal or 1). Throws naming `op` when they
/// don't.
Shape broadcast(const char* op, const Shape& a, const Shape& b);

std::string to_string(const Shape& shape);  ///< "(2, 3, 4)"

}  // namespace rapt::inline RAPT_ABI

template <>
struct fmt::formatter<rapt::Shape> {
  constexpr auto parse(fmt::format_parse_context& ctx) { return ctx.begin(); }
  fmt::appender format(const rapt::Shape& shape, fmt::format_context& ctx) const;
};

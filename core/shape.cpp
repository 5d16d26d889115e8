#include "shape.h"

#include <algorithm>

namespace rapt::inline RAPT_ABI {

Shape::Shape(std::initializer_list<int64_t> dims) {
  for (int64_t d : dims) push_back(d);
}

int64_t Shape::numel() const {
  int64_t n = 1;
  bool overflow = false;
  for (int64_t s : *this) overflow |= __builtin_mul_overflow(n, s, &n);
  if (overflow) {
    if (std::find(begin(), end(), 0) != end()) return 0;
    throw Error(fmt::format("shape: {} has too many elements to count", *this));
  }
  return n;
}

void Shape::push_back(int64_t size) { insert(rank, size); }

void Shape::insert(int i, int64_t size) {
  check(rank < kMaxRank, "shape: a tensor has at most {} dimensions", +kMaxRank);
  check(i >= 0 && i <= rank, "shape: can't insert a dimension at {} into {}", i, *this);
  std::move_backward(sizes.begin() + i, sizes.begin() + rank, sizes.begin() + rank + 1);
  sizes[i] = size;
  ++rank;
}

void Shape::erase(int i) {
  i = axis(i);
  std::move(sizes.begin() + i + 1, sizes.begin() + rank, sizes.begin() + i);
  sizes[--rank] = 0;
}

void Shape::bad_axis(int i) const { throw Error(fmt::format("shape: dimension {} is out of range for {}", i, *this)); }

Shape row_major(const Shape& shape) {
  Shape strides = shape;
  int64_t step = 1;
  for (int i = shape.rank - 1; i >= 0; --i) {
    strides.sizes[i] = step;
    step = int64_t(uint64_t(step) * uint64_t(shape.sizes[i]));  // may overflow where there are no elements
  }
  return strides;
}

Shape broadcast(const char* op, const Shape& a, const Shape& b) {
  Shape out = a.rank >= b.rank ? a : b;
  for (int i = 1; i <= std::min(a.rank, b.rank); ++i) {
    check(a[-i] == b[-i] || a[-i] == 1 || b[-i] == 1, "{}: shapes {} and {} don't broadcast", op, a, b);
    out[-i] = a[-i] == 1 ? b[-i] : a[-i];
  }
  return out;
}

std::string to_string(const Shape& shape) {
  std::string out = "(";
  for (int i = 0; i < shape.rank; ++i) {
    if (i > 0) out += ", ";
    out += std::to_string(shape.sizes[i]);
  }
  out += shape.rank == 1 ? ",)" : ")";
  return out;
}

}  // namespace rapt::inline RAPT_ABI

fmt::appender fmt::formatter<rapt::Shape>::format(const rapt::Shape& shape, fmt::format_context& ctx) const {
  std::string text = rapt::to_string(shape);
  return std::copy(text.begin(), text.end(), ctx.out());
}

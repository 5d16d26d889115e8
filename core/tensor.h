#pragma once
#include <memory>
#include <span>
#include <vector>

#include "shape.h"
#include "storage.h"

namespace rapt::inline RAPT_ABI {

struct Node;  // autograd/node.h; core carries the pointer and never looks inside

/// An n-dimensional array of Real: a handle on shared storage, so that copies and views share their numbers.
/// The five fields are all there is.
struct Tensor {
  std::shared_ptr<Storage> storage;
  Shape shape;
  Shape strides;  ///< in elements; 0 where a dimension is broadcast
  int64_t offset = 0;
  std::shared_ptr<Node> node;  ///< null: no gradient wanted

  Tensor() = default;  ///< holds nothing; false in a condition

  explicit operator bool() const { return storage != nullptr; }
  int rank() const { return shape.rank; }
  int64_t numel() const { return shape.numel(); }

  /// The first element. Reading never counts as a change; writing does.
  const Real* data() const { return storage->data + offset; }
  Real* mutable_data() {
    ++storage->version;
    return storage->data + offset;
  }

  /// Whether the elements lie densely in row-major order.
  bool contiguous() const;

  /// The only element. Throws unless there is exactly one.
  Real item() const;
  /// One element, indices checked; negative ones count from the end.
  Real at(std::initializer_list<int64_t> index) const;
  void set(std::initializer_list<int64_t> index, Real value);

  /// The same numbers without the graph.
  Tensor detach() const;
  /// All elements in row-major order.
  std::vector<Real> to_vector() const;
};

// Factories. Results are dense.
Tensor empty(const Shape& shape);  ///< uninitialised; NaN in debug builds
Tensor full(const Shape& shape, Real value);
Tensor zeros(const Shape& shape);
Tensor ones(const Shape& shape);
Tensor scalar(Real value);  ///< rank 0
Tensor arange(int64_t n);   ///< 0, 1, …, n − 1
Tensor eye(int64_t n);      ///< identity matrix (n, n)
Tensor from_values(const Shape& shape, std::span<const Real> values);
Tensor from_values(const Shape& shape, std::initializer_list<double> values);
Tensor normal(const Shape& shape, Real mean = 0, Real deviation = 1);  ///< from the current generator (random.h)
Tensor uniform(const Shape& shape, Real low = 0, Real high = 1);

/// A dense copy of the numbers, detached.
Tensor clone(const Tensor& x);
/// The tensor itself (detached) if it is dense, else a dense copy.
Tensor contiguous(const Tensor& x);
/// dst[i] = src[i]; shapes must be equal. Both may be strided.
void copy_into(Tensor& dst, const Tensor& src);
void fill(Tensor& dst, Real value);

/// Whether no element is NaN or infinite (nor is there any in a tensor that holds nothing). Raises no floating-point
/// exception.
bool all_finite(const Tensor& x);
/// Whether shapes are equal and every element is, to the bit.
bool same_bits(const Tensor& a, const Tensor& b);

/// Shape, statistics and a few values: never more than a screen.
std::string to_string(const Tensor& x);

}  // namespace rapt::inline RAPT_ABI

template <>
struct fmt::formatter<rapt::Tensor> {
  constexpr auto parse(fmt::format_parse_context& ctx) { return ctx.begin(); }
  fmt::appender format(const rapt::Tensor& tensor, fmt::format_context& ctx) const;
};

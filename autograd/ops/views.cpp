#include <algorithm>

#include "../../core/kernels/gather.h"
#include "../../core/view.h"
#include "../ops.h"
#include "adjoints.h"

namespace rapt::inline RAPT_ABI {

namespace {

constexpr size_t kMaxInputs = 32;  // of one node

// The adjoint of slice: zeros of shape `from` with dy in the slice's place.
struct SliceBack {
  static constexpr auto name = "slice_back";
  int dim = 0;
  int64_t begin = 0, end = 0, step = 1;
  Shape from{};
  Tensor forward(std::span<const Tensor> dy) {
    Tensor dx = zeros(from);
    Tensor part = view::slice(dx, dim, begin, end, step);
    copy_into(part, dy[0]);
    return dx;
  }
  std::vector<Tensor> backward(const Tensor& ddx, Needs) const { return {view::slice(ddx, dim, begin, end, step)}; }
  std::vector<Tensor> backward_recorded(const Tensor& ddx, Needs, Attach) const {
    return {slice(ddx, dim, begin, end, step)};
  }
};

struct Slice {
  static constexpr auto name = "slice";
  int dim = 0;
  int64_t begin = 0, end = 0, step = 1;
  Shape from{};
  Tensor forward(std::span<const Tensor> x) {
    from = x[0].shape;
    return view::slice(x[0], dim, begin, end, step);
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    Tensor dx = zeros(from);
    Tensor part = view::slice(dx, dim, begin, end, step);
    copy_into(part, dy);
    return {dx};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const {
    return {record(SliceBack{dim, begin, end, step, from}, {dy})};
  }
};

struct Select {
  static constexpr auto name = "select";
  int dim = 0;
  int64_t index = 0;
  Shape from{};
  Tensor forward(std::span<const Tensor> x) {
    from = x[0].shape;
    return view::select(x[0], dim, index);
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    Tensor dx = zeros(from);
    Tensor part = view::select(dx, dim, index);
    copy_into(part, dy);
    return {dx};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const {
    const int64_t at = index < 0 ? index + from[dim] : index;
    return {record(SliceBack{dim, at, at + 1, 1, from}, {unsqueeze(dy, from.axis(dim))})};
  }
};

struct Transpose {
  static constexpr auto name = "transpose";
  int a = 0, b = 0;
  Tensor forward(std::span<const Tensor> x) { return view::transpose(x[0], a, b); }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const { return {view::transpose(dy, a, b)}; }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const { return {transpose(dy, a, b)}; }
};

struct Permute {
  static constexpr auto name = "permute";
  std::vector<int> dims{};
  Tensor forward(std::span<const Tensor> x) { return view::permute(x[0], dims); }
  std::vector<int> inverse(const Shape& shape) const {
    std::vector<int> to(dims.size());
    for (size_t i = 0; i < dims.size(); ++i) to[size_t(shape.axis(dims[i]))] = int(i);
    return to;
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const { return {view::permute(dy, inverse(dy.shape))}; }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const {
    return {record(Permute{inverse(dy.shape)}, {dy})};
  }
};

struct Reshape {
  static constexpr auto name = "reshape";
  Shape to{}, from{};
  Tensor forward(std::span<const Tensor> x) {
    from = x[0].shape;
    return view::reshape(x[0], to);
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const { return {view::reshape(dy, from)}; }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const { return {reshape(dy, from)}; }
};

struct Expand {
  static constexpr auto name = "expand";
  Shape to{};
  Tensor forward(std::span<const Tensor> x) { return view::expand(x[0], to); }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const { return {dy}; }  // the engine sums
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const { return {dy}; }
};

struct Squeeze {
  static constexpr auto name = "squeeze";
  int dim = 0;
  Tensor forward(std::span<const Tensor> x) {
    dim = x[0].shape.axis(dim);
    return view::squeeze(x[0], dim);
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const { return {view::unsqueeze(dy, dim)}; }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const { return {unsqueeze(dy, dim)}; }
};

struct Unsqueeze {
  static constexpr auto name = "unsqueeze";
  int dim = 0;
  Tensor forward(std::span<const Tensor> x) { return view::unsqueeze(x[0], dim); }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const { return {view::squeeze(dy, dim)}; }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const { return {squeeze(dy, dim)}; }
};

struct Cat {
  static constexpr auto name = "cat";
  int dim = 0;
  std::vector<int64_t> sizes{};
  Tensor forward(std::span<const Tensor> x) {
    Shape shape = x[0].shape;
    dim = shape.axis(dim);
    shape[dim] = 0;
    for (const Tensor& part : x) {
      Shape rest = part.shape;
      if (rest.rank == shape.rank) rest[dim] = shape[dim];
      check(rest == shape, "cat: {} and {} differ in more than dimension {}", x[0].shape, part.shape, dim);
      shape[dim] += part.shape[dim];
      sizes.push_back(part.shape[dim]);
    }
    Tensor y = empty(shape);
    int64_t at = 0;
    for (const Tensor& part : x) {
      Tensor place = view::slice(y, dim, at, at + part.shape[dim]);
      copy_into(place, part);
      at += part.shape[dim];
    }
    return y;
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    std::vector<Tensor> dx;
    int64_t at = 0;
    for (int64_t size : sizes) {
      dx.push_back(view::slice(dy, dim, at, at + size));
      at += size;
    }
    return dx;
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const {
    std::vector<Tensor> dx;
    int64_t at = 0;
    for (int64_t size : sizes) {
      dx.push_back(slice(dy, dim, at, at + size));
      at += size;
    }
    return dx;
  }
};

struct Stack {
  static constexpr auto name = "stack";
  int dim = 0;
  size_t count = 0;
  Tensor forward(std::span<const Tensor> x) {
    count = x.size();
    if (dim < 0) dim += x[0].rank() + 1;
    Shape shape = x[0].shape;
    shape.insert(dim, int64_t(count));
    Tensor y = empty(shape);
    for (size_t i = 0; i < count; ++i) {
      check(x[i].shape == x[0].shape, "stack: {} and {} differ", x[0].shape, x[i].shape);
      Tensor place = view::select(y, dim, int64_t(i));
      copy_into(place, x[i]);
    }
    return y;
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    std::vector<Tensor> dx;
    for (size_t i = 0; i < count; ++i) dx.push_back(view::select(dy, dim, int64_t(i)));
    return dx;
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const {
    std::vector<Tensor> dx;
    for (size_t i = 0; i < count; ++i) dx.push_back(select(dy, dim, int64_t(i)));
    return dx;
  }
};

struct Pad {
  static constexpr auto name = "pad";
  int dim = 0;
  int64_t before = 0, after = 0;
  Real value = 0;
  Tensor forward(std::span<const Tensor> x) {
    Shape shape = x[0].shape;
    int64_t size = shape[dim];
    shape[dim] = before + size + after;
    Tensor y = empty(shape);
    Tensor head = view::slice(y, dim, 0, before);
    Tensor middle = view::slice(y, dim, before, before + size);
    Tensor tail = view::slice(y, dim, before + size, shape[dim]);
    fill(head, value);
    copy_into(middle, x[0]);
    fill(tail, value);
    return y;
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    return {view::slice(dy, dim, before, dy.shape[dim] - after)};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const {
    return {slice(dy, dim, before, dy.shape[dim] - after)};
  }
};

struct IndexAdd {
  static constexpr auto name = "index_add";
  int dim = 0;
  Tokens index{};
  int64_t size = 0;
  Tensor forward(std::span<const Tensor> x) { return kernels::scatter_add(x[0], dim, index, size); }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const { return {kernels::gather(dy, dim, index)}; }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const {
    return {index_select(dy, dim, index)};
  }
};

struct IndexSelect {
  static constexpr auto name = "index_select";
  int dim = 0;
  Tokens index{};
  Shape from{};
  Tensor forward(std::span<const Tensor> x) {
    from = x[0].shape;
    return kernels::gather(x[0], dim, index);
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    return {kernels::scatter_add(dy, dim, index, from[dim])};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const {
    return {index_add(dy, dim, index, from[dim])};
  }
};

}  // namespace

Tensor slice(const Tensor& x, int dim, int64_t begin, int64_t end, int64_t step, Where where) {
  return record(Slice{dim, begin, end, step}, {x}, where);
}
Tensor select(const Tensor& x, int dim, int64_t index, Where where) { return record(Select{dim, index}, {x}, where); }
Tensor transpose(const Tensor& x, int a, int b, Where where) { return record(Transpose{a, b}, {x}, where); }
Tensor permute(const Tensor& x, std::initializer_list<int> dims, Where where) {
  return record(Permute{dims}, {x}, where);
}
Tensor reshape(const Tensor& x, const Shape& shape, Where where) { return record(Reshape{shape}, {x}, where); }
Tensor expand(const Tensor& x, const Shape& shape, Where where) { return record(Expand{shape}, {x}, where); }
Tensor squeeze(const Tensor& x, int dim, Where where) { return record(Squeeze{dim}, {x}, where); }
Tensor unsqueeze(const Tensor& x, int dim, Where where) {
  return record(Unsqueeze{dim < 0 ? dim + x.rank() + 1 : dim}, {x}, where);
}

Tensor cat(std::span<const Tensor> x, int dim, Where where) {
  check(!x.empty(), "cat: no tensors");
  if (x.size() <= kMaxInputs) return record(Cat{dim}, x, where);
  std::vector<Tensor> groups;
  for (size_t i = 0; i < x.size(); i += kMaxInputs) {
    groups.push_back(cat(x.subspan(i, std::min(kMaxInputs, x.size() - i)), dim, where));
  }
  return cat(groups, dim, where);
}

Tensor stack(std::span<const Tensor> x, int dim, Where where) {
  check(!x.empty(), "stack: no tensors");
  if (dim < 0) dim += x[0].rank() + 1;
  if (x.size() <= kMaxInputs) return record(Stack{dim}, x, where);
  std::vector<Tensor> groups;
  for (size_t i = 0; i < x.size(); i += kMaxInputs) {
    groups.push_back(stack(x.subspan(i, std::min(kMaxInputs, x.size() - i)), dim, where));
  }
  return cat(groups, dim, where);
}

std::vector<Tensor> split(const Tensor& x, int64_t size, int dim, Where where) {
  check(size >= 1, "split: the size of a part must be at least 1, got {}", size);
  std::vector<Tensor> parts;
  int64_t n = x.shape[dim];
  for (int64_t at = 0; at < n; at += size) parts.push_back(slice(x, dim, at, std::min(at + size, n), 1, where));
  return parts;
}

Tensor pad(const Tensor& x, int dim, int64_t before, int64_t after, double value, Where where) {
  check(before >= 0 && after >= 0, "pad: sizes must not be negative, got {} and {}; use slice to cut", before, after);
  return record(Pad{x.shape.axis(dim), before, after, Real(value)}, {x}, where);
}

Tensor index_add(const Tensor& x, int dim, const Tokens& index, int64_t size, Where where) {
  return record(IndexAdd{dim, index, size}, {x}, where);
}

Tensor index_select(const Tensor& x, int dim, const Tokens& index, Where where) {
  return record(IndexSelect{x.shape.axis(dim), index}, {x}, where);
}

}  // namespace rapt::inline RAPT_ABI

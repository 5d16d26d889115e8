#include "view.h"

#include <algorithm>
#include <optional>

namespace rapt::inline RAPT_ABI::view {

namespace {

// Strides under which the elements of x appear in row-major order with another shape, if there are any.
std::optional<Shape> reshaped_strides(const Tensor& x, const Shape& shape) {
  if (x.contiguous()) return row_major(shape);
  Shape strides = shape;
  int from = 0, to = 0;  // match groups of dimensions with equal products, left to right
  while (to < shape.rank) {
    int64_t have = 1, want = shape.sizes[to];
    int group = to, first = from;
    while (have != want) {  // ends, since all of both is the same number of elements
      if (have < want) {
        have *= x.shape.sizes[from++];
      } else {
        want *= shape.sizes[++to];
      }
    }
    // dimensions first..from of x must be evenly spaced among themselves
    int64_t step = 0, span = -1;
    for (int i = from - 1; i >= first; --i) {
      if (x.shape.sizes[i] == 1) continue;
      if (span < 0) {
        step = x.strides.sizes[i];
        span = step * x.shape.sizes[i];
      } else if (x.strides.sizes[i] != span) {
        return std::nullopt;
      } else {
        span *= x.shape.sizes[i];
      }
    }
    for (int i = to; i >= group; --i) {
      strides.sizes[i] = step;
      step *= shape.sizes[i];
    }
    ++to;
  }
  return strides;
}

}  // namespace

Tensor slice(const Tensor& x, int dim, int64_t begin, int64_t end, int64_t step) {
  dim = x.shape.axis(dim);
  int64_t size = x.shape[dim];
  if (begin < 0) begin += size;
  if (end < 0) end += size;
  check(step >= 1, "slice: step must be at least 1, got {}", step);
  check(0 <= begin && begin <= end && end <= size, "slice: {}:{} is out of range for dimension {} of {}", begin, end,
        dim, x.shape);
  Tensor y = x.detach();
  y.shape[dim] = (end - begin + step - 1) / step;
  y.offset += begin * x.strides[dim];
  y.strides[dim] *= step;
  return y;
}

Tensor select(const Tensor& x, int dim, int64_t i) {
  dim = x.shape.axis(dim);
  int64_t size = x.shape[dim];
  check(i >= -size && i < size, "select: index {} is out of range for dimension {} of {}", i, dim, x.shape);
  Tensor y = x.detach();
  y.offset += (i < 0 ? i + size : i) * x.strides[dim];
  y.shape.erase(dim);
  y.strides.erase(dim);
  return y;
}

Tensor transpose(const Tensor& x, int a, int b) {
  a = x.shape.axis(a);
  b = x.shape.axis(b);
  Tensor y = x.detach();
  std::swap(y.shape[a], y.shape[b]);
  std::swap(y.strides[a], y.strides[b]);
  return y;
}

Tensor permute(const Tensor& x, std::span<const int> dims) {
  check(int(dims.size()) == x.rank(), "permute: {} dimensions given for {}", dims.size(), x.shape);
  Tensor y = x.detach();
  uint32_t used = 0;
  for (int i = 0; i < x.rank(); ++i) {
    int d = x.shape.axis(dims[i]);
    check(!(used >> d & 1), "permute: dimension {} is named twice", d);
    used |= 1u << d;
    y.shape[i] = x.shape[d];
    y.strides[i] = x.strides[d];
  }
  return y;
}

Tensor expand(const Tensor& x, const Shape& shape) {
  check(shape.rank >= x.rank(), "expand: {} to {}", x.shape, shape);
  Tensor y = x.detach();
  y.shape = shape;
  y.strides = shape;
  for (int i = 1; i <= shape.rank; ++i) {
    bool repeated = i > x.rank() || (x.shape[-i] == 1 && shape[-i] != 1);
    check(repeated || x.shape[-i] == shape[-i], "expand: {} to {}", x.shape, shape);
    y.strides[-i] = repeated ? 0 : x.strides[-i];
  }
  return y;
}

Tensor squeeze(const Tensor& x, int dim) {
  dim = x.shape.axis(dim);
  check(x.shape[dim] == 1, "squeeze: dimension {} of {} is not 1", dim, x.shape);
  Tensor y = x.detach();
  y.shape.erase(dim);
  y.strides.erase(dim);
  return y;
}

Tensor unsqueeze(const Tensor& x, int dim) {
  if (dim < 0) dim += x.rank() + 1;
  Tensor y = x.detach();
  y.shape.insert(dim, 1);
  y.strides.insert(dim, 0);
  return y;
}

Shape resolve_shape(const Shape& shape, int64_t numel) {
  Shape out = shape;
  int unknown = -1;
  for (int i = 0; i < shape.rank; ++i) {
    if (shape[i] == -1) {
      check(unknown < 0, "reshape: more than one -1 in {}", shape);
      unknown = i;
      out[unknown] = 1;
    } else {
      check(shape[i] >= 0, "reshape: negative size in {}", shape);
    }
  }
  if (unknown >= 0) {
    const int64_t known = out.numel();
    check(known > 0 && numel % known == 0, "reshape: {} elements into {}", numel, shape);
    out[unknown] = numel / known;
  }
  check(out.numel() == numel, "reshape: {} elements into {}", numel, shape);
  return out;
}

Tensor reshape(const Tensor& x, const Shape& shape) {
  Tensor y = x.detach();
  y.shape = resolve_shape(shape, x.numel());
  if (auto strides = reshaped_strides(x, y.shape)) {
    y.strides = *strides;
    return y;
  }
  Shape wanted = y.shape;
  y = clone(x);
  y.shape = wanted;
  y.strides = row_major(wanted);
  return y;
}

}  // namespace rapt::inline RAPT_ABI::view

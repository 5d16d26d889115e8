#include "tensor.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <type_traits>

#include "parallel.h"
#include "random.h"
#include "strided.h"

namespace rapt::inline RAPT_ABI {

namespace {

constexpr int64_t kGrain = 1 << 14;

int64_t element_offset(const Tensor& x, std::initializer_list<int64_t> index) {
  check(int(index.size()) == x.rank(), "tensor: {} indices for a tensor of shape {}", index.size(), x.shape);
  int64_t at = x.offset;
  int d = 0;
  for (int64_t i : index) {
    int64_t size = x.shape[d];
    check(i >= -size && i < size, "tensor: index {} is out of range for dimension {} of {}", i, d, x.shape);
    at += (i < 0 ? i + size : i) * x.strides[d++];
  }
  return at;
}

}  // namespace

Shape broadcast_strides(const Tensor& x, const Shape& shape) {
  Shape out = shape;
  for (int i = 1; i <= shape.rank; ++i) {
    bool repeated = i > x.rank() || (x.shape[-i] == 1 && shape[-i] != 1);
    out[-i] = repeated ? 0 : x.strides[-i];
  }
  return out;
}

bool Tensor::contiguous() const {
  if (numel() == 0) return true;
  int64_t step = 1;
  for (int i = rank() - 1; i >= 0; --i) {
    if (shape.sizes[i] == 1) continue;
    if (strides.sizes[i] != step) return false;
    step *= shape.sizes[i];
  }
  return true;
}

Real Tensor::item() const {
  check(*this && numel() == 1, "item: the tensor must have one element, but its shape is {}", shape);
  return *data();
}

Real Tensor::at(std::initializer_list<int64_t> index) const {
  check(bool(*this), "at: the tensor holds nothing");
  return storage->data[element_offset(*this, index)];
}

void Tensor::set(std::initializer_list<int64_t> index, Real value) {
  check(bool(*this), "set: the tensor holds nothing");
  storage->data[element_offset(*this, index)] = value;
  ++storage->version;
}

Tensor Tensor::detach() const {
  Tensor t = *this;
  t.node = nullptr;
  return t;
}

std::vector<Real> Tensor::to_vector() const {
  Tensor dense = rapt::contiguous(*this);
  return {dense.data(), dense.data() + numel()};
}

Tensor empty(const Shape& shape) {
  for (int64_t s : shape) check(s >= 0, "tensor: negative size in {}", shape);
  Tensor t;
  t.storage = std::make_shared<Storage>(shape.numel());
  t.shape = shape;
  t.strides = row_major(shape);
  return t;
}

Tensor full(const Shape& shape, Real value) {
  Tensor t = empty(shape);
  fill(t, value);
  return t;
}

Tensor zeros(const Shape& shape) { return full(shape, 0); }
Tensor ones(const Shape& shape) { return full(shape, 1); }
Tensor scalar(Real value) { return full({}, value); }

Tensor arange(int64_t n) {
  Tensor t = empty({n});
  Real* p = t.mutable_data();
  for (int64_t i = 0; i < n; ++i) p[i] = Real(i);
  return t;
}

Tensor eye(int64_t n) {
  Tensor t = zeros({n, n});
  Real* p = t.mutable_data();
  for (int64_t i = 0; i < n; ++i) p[i * (n + 1)] = 1;
  return t;
}

Tensor from_values(const Shape& shape, std::span<const Real> values) {
  check(int64_t(values.size()) == shape.numel(), "from_values: {} values for the shape {}", values.size(), shape);
  Tensor t = empty(shape);
  std::copy(values.begin(), values.end(), t.mutable_data());
  return t;
}

Tensor from_values(const Shape& shape, std::initializer_list<double> values) {
  std::vector<Real> converted(values.begin(), values.end());
  return from_values(shape, std::span<const Real>(converted));
}

Tensor normal(const Shape& shape, Real mean, Real deviation) {
  Random random = next_random();
  Tensor t = empty(shape);
  Real* p = t.mutable_data();
  parallel_for(t.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) p[i] = mean + deviation * Real(random.normal(uint64_t(i)));
  });
  return t;
}

Tensor uniform(const Shape& shape, Real low, Real high) {
  Random random = next_random();
  Tensor t = empty(shape);
  Real* p = t.mutable_data();
  parallel_for(t.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) p[i] = low + (high - low) * Real(random.uniform(uint64_t(i)));
  });
  return t;
}

Tensor clone(const Tensor& x) {
  Tensor t = empty(x.shape);
  copy_into(t, x);
  return t;
}

Tensor contiguous(const Tensor& x) { return x.contiguous() ? x.detach() : clone(x); }

bool all_finite(const Tensor& x) {
  using Bits = std::conditional_t<sizeof(Real) == 4, uint32_t, uint64_t>;
  constexpr Bits kExponent = std::bit_cast<Bits>(kInf);
  if (!x) return true;
  Tensor dense = contiguous(x);
  const Real* from = dense.data();
  std::atomic<bool> bad = false;
  parallel_for(dense.numel(), kGrain, [&](int64_t begin, int64_t end) {
    Bits found = 0;
    for (int64_t i = begin; i < end; ++i) found |= Bits((std::bit_cast<Bits>(from[i]) & kExponent) == kExponent);
    if (found) bad = true;
  });
  return !bad;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  if (a.shape != b.shape) return false;
  Tensor x = contiguous(a), y = contiguous(b);
  return a.numel() == 0 || std::memcmp(x.data(), y.data(), size_t(a.numel()) * sizeof(Real)) == 0;
}

void copy_into(Tensor& dst, const Tensor& src) {
  check(dst.shape == src.shape, "copy_into: {} into {}", src.shape, dst.shape);
  if (dst.numel() == 0) return;
  auto nest = loop_nest<2>(dst.shape, {&dst, &src});
  Real* to = dst.mutable_data();
  const Real* from = src.data();
  int64_t row = nest.row(), ds = nest.row_stride(0), ss = nest.row_stride(1);
  if (nest.rows() == 1 && ds == 1 && ss == 1) {
    return parallel_for(row, kGrain,
                        [&](int64_t begin, int64_t end) { std::copy(from + begin, from + end, to + begin); });
  }
  parallel_for(nest.rows(), std::max<int64_t>(1, kGrain / row), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      auto at = nest.row_offsets(r);
      Real* d = to + at[0];
      const Real* s = from + at[1];
      if (ds == 1 && ss == 1) {
        std::copy(s, s + row, d);
      } else {
        for (int64_t i = 0; i < row; ++i) d[i * ds] = s[i * ss];
      }
    }
  });
}

void fill(Tensor& dst, Real value) {
  if (dst.numel() == 0) return;
  auto nest = loop_nest<1>(dst.shape, {&dst});
  Real* to = dst.mutable_data();
  int64_t row = nest.row(), step = nest.row_stride(0);
  if (nest.rows() == 1 && step == 1) {
    return parallel_for(row, kGrain, [&](int64_t begin, int64_t end) { std::fill(to + begin, to + end, value); });
  }
  for (int64_t r = 0; r < nest.rows(); ++r) {
    Real* d = to + nest.row_offsets(r)[0];
    for (int64_t i = 0; i < row; ++i) d[i * step] = value;
  }
}

}  // namespace rapt::inline RAPT_ABI

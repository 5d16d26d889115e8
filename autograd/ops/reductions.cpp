
#include "../../core/kernels/elementwise.h"
#include "../../core/kernels/reduce.h"
#include "../../core/vector_math.h"
#include "../../core/view.h"
#include "../ops.h"

namespace rapt::inline RAPT_ABI {

namespace {

using kernels::map;

uint32_t all_dims(const Tensor& x) { return (1u << x.rank()) - 1; }

// Bit d for each dimension d of x that is named.
uint32_t dim_bits(const char* op, const Tensor& x, std::initializer_list<int> dims) {
  uint32_t bits = 0;
  for (int dim : dims) {
    uint32_t bit = 1u << x.shape.axis(dim);
    check(!(bits & bit), "{}: dimension {} of {} is named twice", op, dim, x.shape);
    bits |= bit;
  }
  return bits;
}

// `shape` without the dimensions in `dims`, or with size 1 there.
Shape reduced_shape(const Shape& shape, uint32_t dims, bool keep) {
  Shape out;
  for (int d = 0; d < shape.rank; ++d) {
    if (!(dims >> d & 1)) {
      out.push_back(shape[d]);
    } else if (keep) {
      out.push_back(1);
    }
  }
  return out;
}

struct Sum {
  static constexpr auto name = "sum";
  uint32_t dims = 0;
  bool keep = false;
  Shape from{};
  Tensor forward(std::span<const Tensor> x) {
    from = x[0].shape;
    return view::reshape(kernels::sum_dims(x[0], dims), reduced_shape(from, dims, keep));
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    return {view::expand(view::reshape(dy, reduced_shape(from, dims, true)), from)};  // copies nothing
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const {
    return {expand(reshape(dy, reduced_shape(from, dims, true)), from)};
  }
};

struct SquaredNorm {
  static constexpr auto name = "squared_norm";
  Saved x;
  Tensor forward(std::span<const Tensor> in) {
    check(in[0].rank() >= 1, "{}: x has no dimension to sum over", name);
    x = in[0];
    Tensor squares = map([](Real a) { return a * a; }, in[0]);
    return view::squeeze(kernels::sum_dims(squares, 1u << (squares.rank() - 1)), -1);
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    auto slope = [](Real a, Real d) {
      const Real g = 2 * a * d;
      return d == 0 ? 0 : g;
    };
    return {map(slope, x.get(), view::unsqueeze(dy, -1))};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach at) const {
    return {2 * unsqueeze(dy, -1) * at.input(0, x)};
  }
};

struct Mean {
  static constexpr auto name = "mean";
  uint32_t dims = 0;
  bool keep = false;
  Shape from{};
  Real scale = 0;  // 1 / how many go into one
  Tensor forward(std::span<const Tensor> x) {
    from = x[0].shape;
    int64_t count = 1;
    for (int d = 0; d < from.rank; ++d) {
      if (dims >> d & 1) count *= from[d];
    }
    scale = count ? 1 / Real(count) : 0;  // the mean of nothing is 0
    Tensor sum = kernels::sum_dims(x[0], dims);
    return view::reshape(map([s = scale](Real a) { return a * s; }, sum), reduced_shape(from, dims, keep));
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    Tensor share = map([s = scale](Real d) { return d * s; }, dy);
    return {view::expand(view::reshape(share, reduced_shape(from, dims, true)), from)};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const {
    return {expand(reshape(dy * double(scale), reduced_shape(from, dims, true)), from)};
  }
};

struct Max {
  static constexpr auto name = "max";
  int dim = 0;
  bool keep = false;
  Tokens index{};
  Shape from{};
  Tensor forward(std::span<const Tensor> x) {
    from = x[0].shape;
    return view::reshape(kernels::max_along(name, x[0], dim, index), reduced_shape(from, 1u << dim, keep));
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    Tensor kept = view::reshape(dy, reduced_shape(from, 1u << dim, true));
    return {kernels::max_along_backward(kept, dim, index, from[dim])};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const {
    const Shape kept = reduced_shape(from, 1u << dim, true);
    return {reshape(dy, kept) * kernels::max_along_backward(ones(kept), dim, index, from[dim])};
  }
};

struct LogSumExp {
  static constexpr auto name = "logsumexp";
  int dim = 0;
  bool keep = false;
  Saved x{}, y{};  // y (outer…, 1, inner…)
  Tensor forward(std::span<const Tensor> in) {
    Tensor kept = kernels::logsumexp_along(in[0], dim);
    x = in[0];
    y = kept;
    return view::reshape(kept, reduced_shape(in[0].shape, 1u << dim, keep));
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    // dx = dy softmax(x); a row of −∞ gets 0
    auto share = [](Real d, Real a, Real total) { return total == -kInf ? 0 : d * math::exp(a - total); };
    return {map(share, view::reshape(dy, y.get().shape), x.get(), y.get())};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach at) const {
    return {reshape(dy, y.get().shape) * softmax(at.input(0, x), dim)};
  }
};

struct CumSum {
  static constexpr auto name = "cumsum";
  int dim = 0;
  bool from_the_end = false;
  Tensor forward(std::span<const Tensor> x) { return kernels::cumsum_along(x[0], dim, from_the_end); }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    return {kernels::cumsum_along(dy, dim, !from_the_end)};
  }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const {
    return {record(CumSum{dim, !from_the_end}, {dy})};
  }
};

}  // namespace

Tensor sum(const Tensor& x, Where where) { return record(Sum{all_dims(x)}, {x}, where); }
Tensor sum(const Tensor& x, std::initializer_list<int> dims, bool keep, Where where) {
  return record(Sum{dim_bits("sum", x, dims), keep}, {x}, where);
}

Tensor squared_norm(const Tensor& x, Where where) { return record(SquaredNorm{}, {x}, where); }

Tensor mean(const Tensor& x, Where where) { return record(Mean{all_dims(x)}, {x}, where); }
Tensor mean(const Tensor& x, std::initializer_list<int> dims, bool keep, Where where) {
  return record(Mean{dim_bits("mean", x, dims), keep}, {x}, where);
}

Tensor max(const Tensor& x, int dim, bool keep, Where where) {
  return record(Max{x.shape.axis(dim), keep}, {x}, where);
}
Tensor logsumexp(const Tensor& x, int dim, bool keep, Where where) {
  return record(LogSumExp{x.shape.axis(dim), keep}, {x}, where);
}
Tensor cumsum(const Tensor& x, int dim, Where where) { return record(CumSum{x.shape.axis(dim)}, {x}, where); }

Tokens argmax(const Tensor& x, int dim) {
  dim = x.shape.axis(dim);
  Tokens index;
  kernels::max_along("argmax", x, dim, index);
  index.shape.erase(dim);
  return index;
}

}  // namespace rapt::inline RAPT_ABI

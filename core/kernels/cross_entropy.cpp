#include "cross_entropy.h"

#include <algorithm>
#include <cmath>

#include "../lanes.h"
#include "../parallel.h"
#include "../vector_math.h"

namespace rapt::inline RAPT_ABI::kernels {

namespace {

// p[i] = exp(x[i] − largest) / sum
struct Softmax {
  Real largest, sum;
};
Softmax row_softmax(const Real* x, int64_t V) {
  Real largest = lane_max(V, [=](int64_t i) { return x[i]; });
  return {largest, lane_sum(V, [=](int64_t i) { return math::exp(x[i] - largest); })};
}

double row_loss(const CrossEntropy& o, const Real* x, int32_t target, Softmax p) {
  double mean = 0;  // of q, before ln sum: Σ q (x − largest)
  if (o.smoothing > 0) {
    mean = o.smoothing / double(o.V) * lane_sum(o.V, [=](int64_t i) { return double(x[i]) - double(p.largest); });
  }
  mean += (1 - o.smoothing) * (double(x[target]) - double(p.largest));
  return std::log(double(p.sum)) - mean;
}

// dx may be x.
void row_gradient(const CrossEntropy& o, const Real* x, int32_t target, Softmax p, Real scale, Real* dx) {
  const Real factor = scale / p.sum, even = scale * Real(o.smoothing / double(o.V));
#pragma omp simd
  for (int64_t i = 0; i < o.V; ++i) dx[i] = math::exp(x[i] - p.largest) * factor - even;
  dx[target] -= scale * Real(1 - o.smoothing);
}

// f(row, target) for each row that counts, skip(row) for the others.
template <class F, class Skip>
void for_rows(const CrossEntropy& o, const int32_t* targets, int64_t rows, F f, Skip skip) {
  parallel_for(rows, std::max<int64_t>(1, (1 << 13) / std::max<int64_t>(o.V, 1)), [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) targets[r] == o.ignore_index ? skip(r) : f(r, targets[r]);
  });
}

}  // namespace

void cross_entropy_forward(const CrossEntropy& o, const Real* logits, const int32_t* targets, int64_t rows,
                           double* loss) {
  auto row = [=, &o](int64_t r, int32_t target) {
    const Real* x = logits + r * o.V;
    loss[r] = row_loss(o, x, target, row_softmax(x, o.V));
  };
  for_rows(o, targets, rows, row, [=](int64_t r) { loss[r] = 0; });
}

void cross_entropy_backward(const CrossEntropy& o, const Real* logits, const int32_t* targets, int64_t rows, Real scale,
                            Real* dlogits) {
  auto row = [=, &o](int64_t r, int32_t target) {
    const Real* x = logits + r * o.V;
    row_gradient(o, x, target, row_softmax(x, o.V), scale, dlogits + r * o.V);
  };
  for_rows(o, targets, rows, row, [=, &o](int64_t r) { std::fill_n(dlogits + r * o.V, o.V, Real(0)); });
}

void cross_entropy_in_place(const CrossEntropy& o, Real* logits, const int32_t* targets, int64_t rows, Real scale,
                            double* loss) {
  auto row = [=, &o](int64_t r, int32_t target) {
    Real* x = logits + r * o.V;
    Softmax p = row_softmax(x, o.V);
    loss[r] = row_loss(o, x, target, p);
    row_gradient(o, x, target, p, scale, x);
  };
  for_rows(o, targets, rows, row, [=, &o](int64_t r) {
    loss[r] = 0;
    std::fill_n(logits + r * o.V, o.V, Real(0));
  });
}

}  // namespace rapt::inline RAPT_ABI::kernels

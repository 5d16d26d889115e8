#include <algorithm>

#include "record.h"

// Operations from two functions.
namespace rapt::inline RAPT_ABI {

namespace {

struct FromFunctions {
  const char* name = "";
  ForwardFunction run;
  BackwardFunction differentiate;
  std::vector<Saved> x{};
  Saved y{};

  Tensor forward(std::span<const Tensor> in) {
    Tensor result = run(in);
    check(bool(result), "{}: the forward function returned an empty tensor", name);
    result = result.detach();
    x.assign(in.begin(), in.end());
    y = result;
    return result;
  }

  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    return differentiate(dy, std::vector<Tensor>(x.begin(), x.end()), y);
  }

  // Every gradient depends on dy: one that comes back without a graph was not made of recorded operations, and its own
  // gradient would be silently wrong.
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs needs, Attach at) const {
    std::vector<Tensor> attached;
    for (size_t i = 0; i < x.size(); ++i) attached.push_back(at.input(i, x[i]));
    std::vector<Tensor> dx = differentiate(dy.node ? dy : requires_grad(dy), attached, at.output(y));
    for (size_t i = 0; i < std::min(dx.size(), x.size()); ++i) {
      check(!needs[int(i)] || !dx[i] || dx[i].node || !recording(),
            "second-order gradients of {} are not available: its backward is not made of recorded operations", name);
    }
    return dx;
  }

  void release() { *this = FromFunctions{name, {}, {}}; }
};

}  // namespace

Tensor record(const char* name, std::initializer_list<Tensor> inputs, ForwardFunction forward,
              BackwardFunction backward, Where where) {
  check(bool(forward) && bool(backward), "record: {} needs a forward and a backward function", name);
  return record(FromFunctions{name, std::move(forward), std::move(backward)},
                std::span<const Tensor>(inputs.begin(), inputs.size()), where);
}

}  // namespace rapt::inline RAPT_ABI

#include "optimizer.h"

#include <cstdio>

namespace rapt::inline RAPT_ABI {

Optimizer::Optimizer(std::vector<NamedTensor> parameters, double learning_rate)
    : parameters_(std::move(parameters)), learning_rate_(learning_rate) {
  check(!parameters_.empty(), "optimizer: there are no parameters to update");
  for (const NamedTensor& p : parameters_) {
    check(p.tensor.contiguous() && p.tensor.node, "optimizer: {} is no dense parameter that wants a gradient", p.name);
    claim_parameter(p.tensor);
  }
}

void Optimizer::step() {
  for (const std::string& name : unclaimed_parameters()) {
    fmt::print(stderr, "rapt: no optimizer updates the parameter {}; was its module made with child?\n", name);
  }
  ++steps_;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    Tensor parameter = parameters_[i].tensor;
    const Tensor& g = gradient(parameter);
    if (g) update(i, parameter, g);
  }
}

void Optimizer::zero_gradients() {
  for (const NamedTensor& p : parameters_) set_gradient(p.tensor, {});
}

size_t Optimizer::add_slot(const std::string& name, const std::vector<bool>& wanted) {
  Slot slot{name, std::vector<Tensor>(parameters_.size())};
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (wanted.empty() || wanted[i]) slot.tensors[i] = zeros(parameters_[i].tensor.shape);
  }
  slots_.push_back(std::move(slot));
  return slots_.size() - 1;
}

std::vector<NamedTensor> Optimizer::state() const {
  // two halves, so that the count is exact however long the run: a float holds integers up to 2^24
  std::vector<NamedTensor> all{{"steps", from_values({2}, {double(steps_ >> 20), double(steps_ & 0xFFFFF)})}};
  for (const Slot& slot : slots_) {
    for (size_t i = 0; i < parameters_.size(); ++i) {
      if (slot.tensors[i]) all.push_back({slot.name + "." + parameters_[i].name, slot.tensors[i]});
    }
  }
  return all;
}

void Optimizer::load_state(const std::vector<NamedTensor>& values) {
  std::vector<NamedTensor> own = state();  // handles: loading fills the slots themselves
  load_parameters(own, values);
  const Tensor& count = own.front().tensor;
  steps_ = (int64_t(count.at({0})) << 20) + int64_t(count.at({1}));
}

}  // namespace rapt::inline RAPT_ABI

#include "optimizer.h"

#include <cmath>
#include <cstdio>
#include <set>

namespace rapt::inline RAPT_ABI {

Optimizer::Optimizer(std::vector<NamedTensor> parameters, double learning_rate)
    : parameters_(std::move(parameters)), factors_(parameters_.size()), learning_rate_(learning_rate) {
  check(!parameters_.empty(), "optimizer: there are no parameters to update");
  std::set<const Node*> seen;
  for (const NamedTensor& p : parameters_) {
    check(p.tensor && p.tensor.contiguous() && p.tensor.node,
          "optimizer: {} is no dense parameter that wants a gradient", p.name);
    check(seen.insert(p.tensor.node.get()).second, "optimizer: the parameter {} is given twice", p.name);
    claim_parameter(p.tensor);
  }
}

void Optimizer::step() {
  if (std::vector<std::string> others = unclaimed_parameters(parameters_); !others.empty()) {
    std::string all;
    for (const std::string& name : others) all += "\n  " + name;
    throw Error(
        fmt::format("optimizer: these received gradients, but no optimizer updates them. Make modules with "
                    "child and parameters with param; freeze what is not to be trained:{}",
                    all));
  }
  struct Restore {  // the rate, also when an update throws
    double& rate;
    const double value;
    ~Restore() { rate = value; }
  } restore{learning_rate_, learning_rate_};
  ++steps_;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    Tensor parameter = parameters_[i].tensor;
    const Tensor& g = gradient(parameter);
    if (!g || is_frozen(parameter)) continue;
    learning_rate_ = restore.value * factors_[i].learning_rate;
    update(i, parameter, contiguous(g));
  }
}

void Optimizer::set_group(const std::function<bool(const NamedTensor&)>& which, GroupFactors factors) {
  check(factors.learning_rate >= 0 && factors.weight_decay >= 0,
        "optimizer: the factors of a group must not be negative, got {} and {}", factors.learning_rate,
        factors.weight_decay);
  size_t found = 0;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!which(parameters_[i])) continue;
    factors_[i] = factors;
    ++found;
  }
  check(found > 0, "optimizer: the group holds none of the {} parameters (the first is {})", parameters_.size(),
        parameters_.front().name);
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

namespace {

// The count of steps in two halves, so that it is exact however long the run: a float holds integers up to 2^24.
constexpr int64_t kLowHalf = 1 << 20;

Tensor from_count(int64_t steps) {
  const int64_t high = steps / kLowHalf;
  return from_values({2}, {double(high), double(steps % kLowHalf)});
}

int64_t to_count(const Tensor& halves) {
  double high = halves.at({0}), low = halves.at({1});
  check<DataError>(high >= 0 && high < 0x1p24 && low >= 0 && low < double(kLowHalf) && high == std::floor(high) &&
                       low == std::floor(low),
                   "optimizer: \"steps\" of the saved state is no count: {}, {}", high, low);
  return int64_t(high) * kLowHalf + int64_t(low);
}

}  // namespace

std::vector<NamedTensor> Optimizer::state() const {
  std::vector<NamedTensor> all{{"steps", from_count(steps_)}};
  for (const Slot& slot : slots_) {
    for (size_t i = 0; i < parameters_.size(); ++i) {
      if (slot.tensors[i]) all.push_back({slot.name + "." + parameters_[i].name, slot.tensors[i]});
    }
  }
  return all;
}

void Optimizer::load_state(const std::vector<NamedTensor>& values) {
  int64_t count = steps_;
  for (const NamedTensor& v : values) {
    if (v.name == "steps" && v.tensor.shape == Shape{2}) count = to_count(v.tensor);
  }
  std::vector<NamedTensor> own = state();  // handles: loading fills the slots themselves
  try {
    load_parameters(own, values);
  } catch (const Error& error) {
    std::string problems = error.what();  // a line of its own for each, below one that speaks of the model
    throw DataError("optimizer: the saved state is not of this optimizer and these parameters:" +
                    problems.substr(std::min(problems.find('\n'), problems.size())));
  }
  steps_ = count;
}

}  // namespace rapt::inline RAPT_ABI

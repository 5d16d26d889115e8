#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "../nn/module.h"

namespace rapt::inline RAPT_ABI {

/// Numbers below this in a running mean count as 0. Means that decay toward 0 would end in the range of denormals,
/// where an operation can take a hundred times as long.
inline constexpr Real kTinyState = Real(1e-30);

/// How some parameters differ from the others: factors, so that they go with any schedule.
struct GroupFactors {
  double learning_rate = 1;
  double weight_decay = 1;
};

/// Updates parameters by their gradients. A subclass writes the update of one parameter:
///
///     struct Plain : Optimizer {
///       explicit Plain(std::vector<NamedTensor> p) : Optimizer(std::move(p), 0.1) {}
///       void update(size_t, Tensor& w, const Tensor& g) override {
///         for (int64_t j = 0; j < w.numel(); ++j) w.mutable_data()[j] -= Real(learning_rate()) * g.data()[j];
///       }
///     };
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /// Updates every parameter that has a gradient and isn't frozen. Throws, before it updates anything, when something
  /// that no optimizer has got a gradient from the same backward pass, as unclaimed_parameters says: it was made
  /// without child or param, or should be frozen.
  void step();
  void zero_gradients();
  /// The rate; inside update(), that of the parameter which is being updated.
  double learning_rate() const { return learning_rate_; }
  void set_learning_rate(double rate) { learning_rate_ = rate; }
  int64_t steps() const { return steps_; }  ///< steps taken

  /// Makes a group of the parameters of which `which` holds; one that is in several groups belongs to the last.
  /// Throws when it holds of none.
  ///
  ///     optimizer.set_group([](const NamedTensor& p) { return p.name.ends_with("bias"); }, {.weight_decay = 0});
  void set_group(const std::function<bool(const NamedTensor&)>& which, GroupFactors factors);

  /// What has to be saved to go on exactly: "steps", and the tensors kept for each parameter, as
  /// "adamw.m.blocks.0.…".
  std::vector<NamedTensor> state() const;
  /// Throws one DataError that lists everything missing, unexpected and misshapen.
  void load_state(const std::vector<NamedTensor>& state);

 protected:
  Optimizer(std::vector<NamedTensor> parameters, double learning_rate);
  /// One parameter and its gradient, both dense, of the same shape. steps() counts the running step already, and
  /// learning_rate() is that of the parameter's group.
  virtual void update(size_t i, Tensor& parameter, const Tensor& gradient) = 0;

  const std::vector<NamedTensor>& parameters() const { return parameters_; }
  /// By how much parameter i's group multiplies the weight decay.
  double decay_factor(size_t i) const { return factors_[i].weight_decay; }
  /// Keeps a tensor of zeros like each parameter (where `wanted` holds), under a name. Returns the index of slot().
  size_t add_slot(const std::string& name, const std::vector<bool>& wanted = {});
  Tensor& slot(size_t which, size_t i) { return slots_[which].tensors[i]; }

 private:
  struct Slot {
    std::string name;
    std::vector<Tensor> tensors;  // empty where there is none
  };
  std::vector<NamedTensor> parameters_;
  std::vector<GroupFactors> factors_;  // of each parameter
  std::vector<Slot> slots_;
  double learning_rate_;
  int64_t steps_ = 0;
};

}  // namespace rapt::inline RAPT_ABI

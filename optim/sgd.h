#pragma once
#include "optimizer.h"

namespace rapt::inline RAPT_ABI {

struct SGDConfig {
  double learning_rate = 1e-2;
  double momentum = 0;
  bool nesterov = false;
  double weight_decay = 0;  ///< added to the gradient (L2)
};

/// Stochastic gradient descent: g' = g + decay · w; b = momentum · b + g' (b = g' at first); w −= rate · b, or, with
/// Nesterov's momentum, w −= rate · (g' + momentum · b).
class SGD final : public Optimizer {
 public:
  explicit SGD(std::vector<NamedTensor> parameters, SGDConfig config = {});

 protected:
  void update(size_t i, Tensor& parameter, const Tensor& gradient) override;

 private:
  SGDConfig config_;
  size_t momentum_ = 0;
};

}  // namespace rapt::inline RAPT_ABI

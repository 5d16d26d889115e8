#pragma once
#include "optimizer.h"

namespace rapt::inline RAPT_ABI {

struct AdamWConfig {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.01;  ///< of matrices (rank ≥ 2) only
};

/// Adam with decoupled weight decay (Loshchilov & Hutter 2019): m and v are running means of g and g²;
/// w −= rate · (decay · w + m̂ / (√v̂ + epsilon)), where m̂ and v̂ make up for the means' start at 0.
class AdamW final : public Optimizer {
 public:
  explicit AdamW(std::vector<NamedTensor> parameters, AdamWConfig config = {});

 protected:
  void update(size_t i, Tensor& parameter, const Tensor& gradient) override;

 private:
  AdamWConfig config_;
  size_t m_, v_;
};

/// One AdamW update of w by g with the running means m and v; `step` counts from 1. All dense, of one shape.
void adamw_update(const AdamWConfig& config, double learning_rate, int64_t step, Tensor& w, const Tensor& g, Tensor& m,
                  Tensor& v);
/// Throws for values out of range.
void check_adamw(const AdamWConfig& config);

}  // namespace rapt::inline RAPT_ABI

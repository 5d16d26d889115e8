#pragma once
#include <functional>

#include "adamw.h"

namespace rapt::inline RAPT_ABI {

struct MuonConfig {
  double learning_rate = 0.02;
  double momentum = 0.95;
  double weight_decay = 0;
  int iterations = 5;   ///< of Newton–Schulz
  AdamWConfig adamw{};  ///< for the parameters that are not orthogonalised; their rate is adamw.learning_rate in
                        ///< proportion to the current rate
};

/// Muon (Jordan 2024): the momentum of a matrix is brought to the nearest (semi-)orthogonal one by Newton–Schulz
/// iterations; w −= rate · √max(1, rows/columns) · orthogonal(g + momentum · b). For hidden matrices only: embeddings,
/// heads, norms and biases are left to AdamW.
class Muon final : public Optimizer {
 public:
  /// `hidden` says which parameters are hidden matrices; by default those of rank 2 whose names have neither
  /// "embedding" nor "head" in them.
  explicit Muon(std::vector<NamedTensor> parameters, MuonConfig config = {},
                const std::function<bool(const NamedTensor&)>& hidden = {});

 protected:
  void update(size_t i, Tensor& parameter, const Tensor& gradient) override;

 private:
  MuonConfig config_;
  std::vector<bool> hidden_;
  size_t momentum_, m_, v_;
};

/// A matrix (rows, columns) with the singular vectors of x and all singular values near 1 (between 0.7 and 1.2 after 5
/// iterations, but for those that are almost 0), by the quintic Newton–Schulz iteration.
Tensor orthogonalize(const Tensor& x, int iterations = 5);

}  // namespace rapt::inline RAPT_ABI

#pragma once
#include <functional>

#include "adamw.h"

namespace rapt::inline RAPT_ABI {

struct MuonConfig {
  double learning_rate = 0.02;
  double momentum = 0.95;
  bool nesterov = true;
  double weight_decay = 0;
  int iterations = 5;   ///< of Newton–Schulz
  AdamWConfig adamw{};  ///< for the parameters that are not orthogonalised; their rate is adamw.learning_rate in
                        ///< proportion to the current rate
};

/// Muon (Jordan 2024) for hidden matrices: b is the running mean of g, and
/// w −= rate · (decay · w + √max(1, rows / columns) · orthogonalize(g + momentum · (b − g))), or of b without Nesterov.
/// Everything else (embeddings, heads, norms, biases) is left to AdamW.
class Muon final : public Optimizer {
 public:
  /// `hidden` says which parameters are hidden matrices; by default is_hidden_matrix.
  explicit Muon(std::vector<NamedTensor> parameters, MuonConfig config = {},
                const std::function<bool(const NamedTensor&)>& hidden = {});

 protected:
  void update(size_t i, Tensor& parameter, const Tensor& gradient) override;

 private:
  MuonConfig config_;
  std::vector<bool> hidden_;
  size_t momentum_, m_, v_;
};

/// Whether the parameter is a matrix called "weight" and no part of its name ends in "embedding" or "head".
bool is_hidden_matrix(const NamedTensor& parameter);

/// A matrix with the singular vectors of x (rows, columns) and singular values near 1 (about 0.7 to 1.2 after 5
/// iterations, but for those that are below 1/1000 of the largest), by the quintic Newton–Schulz iteration:
/// X ← a X + (b X Xᵀ + c (X Xᵀ)²) X from x / ‖x‖.
Tensor orthogonalize(const Tensor& x, int iterations = 5);

}  // namespace rapt::inline RAPT_ABI

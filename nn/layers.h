#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <type_traits>

#include "linear.h"

/// Small layers: embedding, normalisation, dropout, the feed-forward network, sequences.
namespace rapt::inline RAPT_ABI {

/// Rows of weight (count, dim), by id: (…) → (…, dim).
struct Embedding : Module {
  Tensor weight;
  Embedding(int64_t count, int64_t dim, double deviation = 1);
  Tensor operator()(const Tokens& ids) const;
  /// Those with ids from `first` up to `last`, as a view: (last − first, dim).
  Tensor rows(int64_t first, int64_t last) const;
};

/// (x − mean) / √(var + epsilon) · weight + bias over the last dimension (Ba 2016).
struct LayerNorm : Module {
  Tensor weight, bias;
  double epsilon;
  explicit LayerNorm(int64_t dim, bool bias = true, double epsilon = 1e-5);
  Tensor operator()(const Tensor& x) const;
};

/// x / √(mean x² + epsilon) · weight over the last dimension (Zhang & Sennrich 2019).
struct RMSNorm : Module {
  Tensor weight;
  double epsilon;
  explicit RMSNorm(int64_t dim, double epsilon = 1e-6);
  Tensor operator()(const Tensor& x) const;
};

/// Drops with probability p while training; nothing under EvalMode.
struct Dropout : Module {
  double p;
  explicit Dropout(double p);
  Tensor operator()(const Tensor& x) const;
};

/// The normalisations and feed-forward layers of a model, as its configuration names them.
enum class NormKind { layer, rms };
enum class MlpKind { gelu, gelu_tanh, relu, relu2, silu, swiglu, geglu };
std::vector<std::string> norm_names();        ///< in the order of the enumeration: "layer", "rms"
std::vector<std::string> mlp_names();         ///< "gelu", "gelu-tanh", "relu", "relu2", "silu", "swiglu", "geglu"
NormKind norm_kind(const std::string& name);  ///< throws UsageError that names the nearest
MlpKind mlp_kind(const std::string& name);

/// LayerNorm or RMSNorm over the last dimension, chosen at run time. Parameters: weight, and bias for a layer norm if
/// asked for.
struct Norm : Module {
  NormKind kind;
  Tensor weight, bias;
  Norm(NormKind kind, int64_t dim, bool with_bias);
  Tensor operator()(const Tensor& x) const;
};

struct MlpOptions {
  bool bias = true;
  MlpKind kind = MlpKind::gelu;
  double up_deviation = 0;  ///< see LinearOptions::deviation
  double down_deviation = 0;
};

/// down(f(up(x))): (…, dim) → (…, hidden) → (…, dim); gated ones are down(f(gate(x)) ⊙ up(x)) (Shazeer 2020).
struct Mlp : Module {
  MlpKind kind;
  Linear up, down;
  std::optional<Linear> gate;
  Mlp(int64_t dim, int64_t hidden, MlpOptions options = {});
  Tensor operator()(const Tensor& x) const;
  static bool gated(MlpKind kind) { return kind == MlpKind::swiglu || kind == MlpKind::geglu; }
};

/// Modules (or functions) from Tensor to Tensor, one after the other: add them by name.
///
///     Sequential net;
///     net.add<Linear>("in", 2, 16).add([](const Tensor& x) { return relu(x); }).add<Linear>("out", 16, 1);
///
/// As a part of another module: child<Sequential>("net", std::move(net)), once it is complete.
class Sequential : public Module {
 public:
  template <class M, class... Args>
  Sequential& add(const std::string& name, Args&&... args) {
    auto part = std::make_shared<M>(child<M>(name, std::forward<Args>(args)...));
    parts_.push_back([part](const Tensor& x) { return (*part)(x); });
    return *this;
  }
  Sequential& add(std::function<Tensor(const Tensor&)> function) {
    parts_.push_back(std::move(function));
    return *this;
  }
  Tensor operator()(const Tensor& input) const {
    auto all = [&](const Tensor& x) {
      Tensor y = x;
      for (const auto& part : parts_) y = part(y);
      return y;
    };
    return run(all, input);
  }

 private:
  std::vector<std::function<Tensor(const Tensor&)>> parts_;
};

}  // namespace rapt::inline RAPT_ABI

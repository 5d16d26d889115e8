#include "layers.h"

#include "../core/nearest.h"

namespace rapt::inline RAPT_ABI {

Embedding::Embedding(int64_t count, int64_t dim, double deviation) {
  check(count > 0 && dim > 0, "embedding: {} rows of {}", count, dim);
  weight = param("weight", normal({count, dim}, 0, Real(deviation)));
}

Tensor Embedding::operator()(const Tokens& ids) const {
  return run([&] { return embedding(weight, ids); });
}

Tensor Embedding::rows(int64_t first, int64_t last) const {
  return run([&] { return slice(weight, 0, first, last); });
}

LayerNorm::LayerNorm(int64_t dim, bool with_bias, double eps) : epsilon(eps) {
  weight = param("weight", ones({dim}));
  if (with_bias) bias = param("bias", zeros({dim}));
}

Tensor LayerNorm::operator()(const Tensor& input) const {
  return run([&](const Tensor& x) { return layer_norm(x, weight, bias, epsilon); }, input);
}

RMSNorm::RMSNorm(int64_t dim, double eps) : epsilon(eps) { weight = param("weight", ones({dim})); }

Tensor RMSNorm::operator()(const Tensor& input) const {
  return run([&](const Tensor& x) { return rms_norm(x, weight, epsilon); }, input);
}

Dropout::Dropout(double probability) : p(probability) {
  check(p >= 0 && p <= 1, "dropout: the probability must be in [0, 1], got {}", p);
}

Tensor Dropout::operator()(const Tensor& input) const {
  return run([&](const Tensor& x) { return p == 0 || !training() ? x : dropout(x, p); }, input);
}

std::vector<std::string> norm_names() { return {"layer", "rms"}; }
std::vector<std::string> mlp_names() { return {"gelu", "gelu-tanh", "relu", "relu2", "silu", "swiglu", "geglu"}; }

namespace {

int64_t place_of(const std::string& name, const std::vector<std::string>& names, const char* what) {
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] == name) return int64_t(i);
  }
  std::string near = nearest(name, names), all;
  for (const std::string& n : names) all += (all.empty() ? "" : ", ") + n;
  throw UsageError(fmt::format("{}: there is no \"{}\"{}; known are {}", what, name,
                               near.empty() ? "" : fmt::format(", did you mean \"{}\"?", near), all));
}

}  // namespace

NormKind norm_kind(const std::string& name) { return NormKind(place_of(name, norm_names(), "norm")); }
MlpKind mlp_kind(const std::string& name) { return MlpKind(place_of(name, mlp_names(), "mlp")); }

Norm::Norm(NormKind k, int64_t dim, bool with_bias) : kind(k) {
  weight = param("weight", ones({dim}));
  if (with_bias && kind == NormKind::layer) bias = param("bias", zeros({dim}));
}

Tensor Norm::operator()(const Tensor& input) const {
  auto normalized = [&](const Tensor& x) {
    return kind == NormKind::layer ? layer_norm(x, weight, bias) : rms_norm(x, weight);
  };
  return run(normalized, input);
}

Mlp::Mlp(int64_t dim, int64_t hidden, MlpOptions options)
    : kind(options.kind),
      up(child<Linear>("up", dim, hidden, LinearOptions{options.bias, options.up_deviation})),
      down(child<Linear>("down", hidden, dim, LinearOptions{options.bias, options.down_deviation})) {
  if (gated(kind)) gate = child<Linear>("gate", dim, hidden, LinearOptions{options.bias, options.up_deviation});
}

Tensor Mlp::operator()(const Tensor& input) const {
  auto hidden = [&](const Tensor& x) {
    switch (kind) {
      case MlpKind::gelu: return gelu(up(x));
      case MlpKind::gelu_tanh: return gelu(up(x), Gelu::tanh);
      case MlpKind::relu: return relu(up(x));
      case MlpKind::relu2: {
        Tensor y = relu(up(x));
        return y * y;
      }
      case MlpKind::silu: return silu(up(x));
      case MlpKind::swiglu: return silu((*gate)(x)) * up(x);
      case MlpKind::geglu: return gelu((*gate)(x)) * up(x);
    }
    return x;
  };
  return run([&](const Tensor& x) { return down(hidden(x)); }, input);
}

}  // namespace rapt::inline RAPT_ABI

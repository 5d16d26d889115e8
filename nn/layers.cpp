#include "layers.h"

namespace rapt::inline RAPT_ABI {

Embedding::Embedding(int64_t count, int64_t dim, double deviation) {
  check(count > 0 && dim > 0, "embedding: {} rows of {}", count, dim);
  weight = param("weight", normal({count, dim}, 0, Real(deviation)));
}

Tensor Embedding::operator()(const Tokens& ids) const {
  Scope scope(path());
  return embedding(weight, ids);
}

LayerNorm::LayerNorm(int64_t dim, bool with_bias, double eps) : epsilon(eps) {
  weight = param("weight", ones({dim}));
  if (with_bias) bias = param("bias", zeros({dim}));
}

Tensor LayerNorm::operator()(const Tensor& x) const {
  Scope scope(path());
  return layer_norm(x, weight, bias, epsilon);
}

RMSNorm::RMSNorm(int64_t dim, double eps) : epsilon(eps) { weight = param("weight", ones({dim})); }

Tensor RMSNorm::operator()(const Tensor& x) const {
  Scope scope(path());
  return rms_norm(x, weight, epsilon);
}

Dropout::Dropout(double probability) : p(probability) {
  check(p >= 0 && p <= 1, "dropout: the probability must be in [0, 1], got {}", p);
}

Tensor Dropout::operator()(const Tensor& x) const {
  if (p == 0 || !training()) return x;
  Scope scope(path());
  return dropout(x, p);
}

Mlp::Mlp(int64_t dim, int64_t hidden, MlpOptions options)
    : up(child<Linear>("up", dim, hidden, LinearOptions{options.bias, options.up_deviation})),
      down(child<Linear>("down", hidden, dim, LinearOptions{options.bias, options.down_deviation})),
      activation(options.activation) {}

Tensor Mlp::operator()(const Tensor& x) const {
  Scope scope(path());
  return down(gelu(up(x), activation));
}

}  // namespace rapt::inline RAPT_ABI

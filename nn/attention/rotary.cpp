#include "rotary.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "../../core/view.h"

namespace rapt::inline RAPT_ABI {

namespace {

constexpr double kTurn = 2 * std::numbers::pi;
constexpr double kXposLeast = 0.4;  // (0.4 + 2c/R) / 1.4, as in the paper

void check_options(const RotaryOptions& o) {
  check(o.theta > 1, "rotary: theta must be above 1, got {}", o.theta);
  check(o.dims >= 0 && o.dims % 2 == 0, "rotary: channels turn in pairs, so dims must be even, got {}", o.dims);
  check(o.factor >= 1, "rotary: factor must be at least 1, got {}", o.factor);
  if (o.scaling == RotaryScaling::yarn || o.scaling == RotaryScaling::llama3) {
    check(o.original_context > 0, "rotary: yarn and llama3 need original_context, the length the model was trained on");
  }
  if (o.scaling == RotaryScaling::yarn) {
    check(o.beta_slow > 0 && o.beta_fast > o.beta_slow, "rotary: yarn needs 0 < beta_slow < beta_fast, got {} and {}",
          o.beta_slow, o.beta_fast);
  }
  if (o.scaling == RotaryScaling::llama3) {
    check(o.low > 0 && o.high > o.low, "rotary: llama3 needs 0 < low < high, got {} and {}", o.low, o.high);
  }
  check(!o.xpos || o.xpos_base > 0, "rotary: xpos_base must be positive, got {}", o.xpos_base);
}

// The pair (as a fraction) that turns `turns` times in the original context.
double pair_of(double turns, const RotaryOptions& o, int64_t dims) {
  return double(dims) * std::log(double(o.original_context) / (turns * kTurn)) / (2 * std::log(o.theta));
}

void scale_yarn(std::vector<double>& frequencies, const RotaryOptions& o, int64_t dims) {
  double first = std::max(std::floor(pair_of(o.beta_fast, o, dims)), 0.0);
  double last = std::min(std::ceil(pair_of(o.beta_slow, o, dims)), double(dims - 1));
  if (first == last) last += 0.001;
  for (size_t c = 0; c < frequencies.size(); ++c) {
    double lowered = std::clamp((double(c) - first) / (last - first), 0.0, 1.0);
    frequencies[c] *= lowered / o.factor + (1 - lowered);
  }
}

void scale_llama3(std::vector<double>& frequencies, const RotaryOptions& o) {
  for (double& f : frequencies) {
    double turns = double(o.original_context) * f / kTurn;
    double kept = std::clamp((turns - o.low) / (o.high - o.low), 0.0, 1.0);
    f *= (1 - kept) / o.factor + kept;
  }
}

}  // namespace

std::vector<double> rotary_frequencies(const RotaryOptions& o, int64_t dims) {
  check_options(o);
  check(dims >= 0 && dims % 2 == 0, "rotary: channels turn in pairs, but there are {}", dims);
  double theta = o.theta;
  if (o.scaling == RotaryScaling::ntk && dims > 2) theta *= std::pow(o.factor, double(dims) / double(dims - 2));
  std::vector<double> frequencies(size_t(dims / 2));
  for (size_t c = 0; c < frequencies.size(); ++c) frequencies[c] = std::pow(theta, -2 * double(c) / double(dims));
  if (o.scaling == RotaryScaling::linear) {
    for (double& f : frequencies) f /= o.factor;
  } else if (o.scaling == RotaryScaling::yarn) {
    scale_yarn(frequencies, o, dims);
  } else if (o.scaling == RotaryScaling::llama3) {
    scale_llama3(frequencies, o);
  }
  return frequencies;
}

RotaryEmbedding::RotaryEmbedding(RotaryOptions options) : options_(options) { check_options(options_); }

const RotaryEmbedding::Tables& RotaryEmbedding::tables(const Tensor& x, int64_t first_position) const {
  check(x.rank() >= 2, "rotary: x must be (…, N, D), but is {}", x.shape);
  check(first_position >= 0, "rotary: the first position is {}", first_position);
  const int64_t D = x.shape[-1], dims = options_.dims ? options_.dims : D, needed = first_position + x.shape[-2];
  check(dims <= D && dims % 2 == 0, "rotary: {} channels turn in pairs, but x is {}", dims, x.shape);
  if (tables_.dims == dims && tables_.length >= needed) return tables_;

  const double decay_limit = 80 * options_.xpos_base / std::log(1.4 / kXposLeast);  // e^±80 are floats
  check(!options_.xpos || double(needed) <= decay_limit, "rotary: with xPos at most {} positions, got {}",
        int64_t(decay_limit), needed);
  int64_t length = std::max<int64_t>(64, tables_.dims == dims ? 2 * tables_.length : 0);  // doubled, so rarely
  length = std::max(needed, options_.xpos ? std::min(length, int64_t(decay_limit)) : length);

  const std::vector<double> frequencies = rotary_frequencies(options_, dims);
  const double magnitude = options_.scaling == RotaryScaling::yarn ? 0.1 * std::log(options_.factor) + 1 : 1;
  const int64_t pairs = dims / 2;
  Tables made{dims, length, {}, {}, {}, {}};
  for (Tensor* t : {&made.query_cos, &made.query_sin, &made.key_cos, &made.key_sin}) *t = empty({length, pairs});
  Real *qc = made.query_cos.mutable_data(), *qs = made.query_sin.mutable_data();
  Real *kc = made.key_cos.mutable_data(), *ks = made.key_sin.mutable_data();
  for (int64_t p = 0; p < length; ++p) {
    for (int64_t c = 0; c < pairs; ++c) {
      const double angle = double(p) * frequencies[size_t(c)];
      double zeta = 1;
      if (options_.xpos) {
        zeta = std::pow((kXposLeast + 2 * double(c) / double(dims)) / 1.4, double(p) / options_.xpos_base);
      }
      const double cosine = magnitude * std::cos(angle), sine = magnitude * std::sin(angle);
      const int64_t i = p * pairs + c;
      qc[i] = Real(cosine * zeta);
      qs[i] = Real(sine * zeta);
      kc[i] = Real(cosine / zeta);
      ks[i] = Real(sine / zeta);
    }
  }
  return tables_ = made;
}

Tensor RotaryEmbedding::turn(const Tensor& x, const Tensor& cos, const Tensor& sin, int64_t first_position) const {
  auto rows = [&](const Tensor& table) { return view::slice(table, 0, first_position, first_position + x.shape[-2]); };
  return rotate(x, rows(cos), rows(sin), options_.style);
}

Tensor RotaryEmbedding::operator()(const Tensor& x, int64_t first_position) const {
  check(!options_.xpos, "rotary: xPos turns queries and keys differently: call queries() and keys()");
  return queries(x, first_position);
}

Tensor RotaryEmbedding::queries(const Tensor& x, int64_t first_position) const {
  const Tables& t = tables(x, first_position);
  return turn(x, t.query_cos, t.query_sin, first_position);
}

Tensor RotaryEmbedding::keys(const Tensor& x, int64_t first_position) const {
  const Tables& t = tables(x, first_position);
  return turn(x, t.key_cos, t.key_sin, first_position);
}

}  // namespace rapt::inline RAPT_ABI

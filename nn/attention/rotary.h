#pragma once
#include <vector>

#include "../../autograd/ops.h"

/// Rotary positions (RoPE, Su 2021): channels of queries and keys are turned in pairs by the angle position ·
/// frequency, so that a score depends on the distance between its query and its key, not on where they are.
namespace rapt::inline RAPT_ABI {

/// How the frequencies of a model that was trained on `original_context` positions are lowered for `factor` times as
/// many.
enum class RotaryScaling {
  none,
  linear,  ///< frequency / factor (Chen 2023)
  ntk,     ///< theta · factor^(R/(R−2)): the fastest stays, the slowest is divided by factor
  yarn,    ///< pairs that turn often stay, those that turn rarely are divided by factor (Peng 2023)
  llama3,  ///< the same with bands of wavelengths (Llama 3, 2024)
};

struct RotaryOptions {
  double theta = 10000;  ///< frequency of pair c: theta^(−2c/R)
  int64_t dims = 0;      ///< R, how many channels turn, the first ones; even; 0: all
  RotaryStyle style = RotaryStyle::half_split;
  RotaryScaling scaling = RotaryScaling::none;
  double factor = 1;             ///< ≥ 1
  int64_t original_context = 0;  ///< yarn and llama3 need it
  double beta_fast = 32;         ///< yarn: pairs that turn this often in the original context stay,
  double beta_slow = 1;          ///< … and those that turn less than this are divided by factor
  double low = 1, high = 4;      ///< llama3: the same, in that order
  bool xpos = false;             ///< scores also fall with the distance (xPos, Sun 2022), in causal attention
  double xpos_base = 512;        ///< in this many positions channel pair c falls to (0.4 + 2c/R) / 1.4
};

/// The frequencies (R/2) in radians per position. YaRN and Llama-3 as in Hugging Face's modeling_rope_utils: YaRN's
/// ramp is linear in the number of the pair. Throws when an option makes no sense.
std::vector<double> rotary_frequencies(const RotaryOptions& options, int64_t dims);

/// Turns x (…, N, D), whose rows stand at first_position, first_position + 1, …. YaRN also multiplies what turns by
/// 0.1 ln factor + 1, so that the scores get its square. Has no parameters. The tables are made in double and kept for
/// the longest length seen: one thread may call at a time.
class RotaryEmbedding {
 public:
  explicit RotaryEmbedding(RotaryOptions options = {});
  const RotaryOptions& options() const { return options_; }

  /// Queries and keys alike. Throws with xPos, which treats them differently.
  Tensor operator()(const Tensor& x, int64_t first_position = 0) const;
  /// The same, with xPos times ζ^position for queries and ζ^−position for keys, ζ of the channel pair.
  Tensor queries(const Tensor& x, int64_t first_position = 0) const;
  Tensor keys(const Tensor& x, int64_t first_position = 0) const;

 private:
  struct Tables {
    int64_t dims = 0, length = 0;
    Tensor query_cos, query_sin, key_cos, key_sin;  // (length, dims/2)
  };
  const Tables& tables(const Tensor& x, int64_t first_position) const;
  Tensor turn(const Tensor& x, const Tensor& cos, const Tensor& sin, int64_t first_position) const;

  RotaryOptions options_;
  mutable Tables tables_;
};

}  // namespace rapt::inline RAPT_ABI

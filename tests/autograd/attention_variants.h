#pragma once
#include <rapt/autograd/ops.h>

#include <functional>
#include <ostream>
#include <string>
#include <vector>

/// The table of attention variants, and of the settings that each is tested in.
namespace rapt::inline RAPT_ABI {

struct AttentionSizes {
  int64_t batch = 2, heads = 2, kv_heads = 2, queries = 9, keys = 9, dim = 5, value_dim = 4;
};

/// q, k, v and the captured tensors of one test: leaves.
struct AttentionCase {
  AttentionSizes sizes;
  Tensor q, k, v;
  std::vector<Tensor> tables;

  std::vector<Tensor> inputs() const;
  /// The same sizes with these inputs, in the order of inputs().
  AttentionCase with(const std::vector<Tensor>& inputs) const;
};

struct AttentionVariant {
  std::string name;
  std::function<std::vector<Shape>(const AttentionSizes&)> tables;  ///< shapes of the captured tensors
  std::function<AttentionOptions(const AttentionCase&)> options;    ///< without a mask, unless the variant is one
  bool straight_through = false;  ///< the gradient is an estimator's, not the derivative
  bool kernel = false;            ///< of distances: captured tensors are bandwidths, which must be above 0
  bool has_lse = true;
};

struct AttentionSetting {
  std::string name;
  AttentionSizes sizes;
  std::function<Mask(const AttentionSizes&)> mask;
};

inline void PrintTo(const AttentionVariant& v, std::ostream* to) { *to << v.name; }

const std::vector<AttentionVariant>& attention_variants();
/// Masks, groups of heads, odd sizes, rows without keys. `tile` is the number of queries and keys to be around.
std::vector<AttentionSetting> attention_settings(int64_t tile);

AttentionCase make_case(const AttentionVariant& variant, const AttentionSizes& sizes);
/// The variant's options with the setting's mask on top.
AttentionOptions options_of(const AttentionVariant& variant, const AttentionSetting& setting, const AttentionCase& c);

struct AttentionOutcome {
  Tensor out, lse;
  std::vector<Tensor> gradients;  ///< of q, k, v and the tables
};
/// Output, log-sum-exp and the gradients of a random combination of both.
AttentionOutcome attend(const AttentionVariant& variant, const AttentionSetting& setting, bool dense);
/// The combination itself, of any inputs.
Tensor attention_objective(const AttentionVariant& variant, const AttentionSetting& setting, const AttentionCase& c,
                           bool dense, AttentionResult* result = nullptr);

}  // namespace rapt::inline RAPT_ABI

#pragma once
#include <functional>
#include <map>

#include "spec.h"

namespace rapt::inline RAPT_ABI {

/// What a specification can name: q, k, v and the tensors of its words.
struct SpecTensors {
  mutable std::map<std::string, Tensor> reals;
  mutable std::map<std::string, Tokens> integers;  ///< document, pad, blocks
  /// Where set: asked once for each name that is not above, so that nothing is read but what a word wants. They give
  /// nothing for what isn't there, and throw DataError for what can't be read as that.
  std::function<std::optional<Tensor>(const std::string& name)> read_real;
  std::function<std::optional<Tokens>(const std::string& name)> read_integer;

  /// Throws DataError saying who wanted it, and with what shape.
  const Tensor& real(const std::string& who, const std::string& name, const std::string& shape) const;
  const Tokens& integer(const std::string& who, const std::string& name, const std::string& shape) const;
  mutable std::set<std::string> used;  ///< names that were asked for
};

/// An attention call that a specification describes, ready to run.
struct SpecCall {
  Tensor q, k, v;
  AttentionOptions options;
  std::string recurrence;  ///< linear, retention, delta or gated-delta; else empty
  Tensor decay, beta;      ///< log decay and write strength of a recurrence
  bool normalize = false;  ///< of linear
  /// Why there is no gradient; else empty.
  std::string without_gradient;

  /// Whether there is a log-sum-exp: not for a recurrence, nor for weights that are not divided by a sum.
  bool has_lse() const;
  /// Whether `run(false)` can do it: tiles have no relative terms for some normalisers.
  bool has_tiles() const;
  /// lse is empty for a recurrence, 0 for other calls without one. `dense`: with whole matrices.
  AttentionResult run(bool dense) const;
  /// What `run(dense)` will do, for people.
  std::string explain(bool dense) const;
};

/// Reads the tensors that the words ask for. Throws UsageError for unknown or contradictory words and arguments,
/// whatever the tensors are; DataError for missing tensors, Error for shapes that don't fit.
SpecCall spec_call(const std::string& spec, const SpecTensors& tensors);

/// Every word with its arguments, tensors and meaning, for people.
std::string describe_spec_words();

}  // namespace rapt::inline RAPT_ABI

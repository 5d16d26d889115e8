#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

/// The work that benchmarks time: rapt_bench by itself, rapt_work in turns with other frameworks.
namespace rapt {

using Times = std::map<std::string, std::vector<double>>;  ///< seconds of each part, one for each repetition

struct Work {
  double operations = 0;  ///< of all parts together, counting a multiply-add as two
  double bytes = 0;       ///< that must be read at least
  std::function<void(Times&)> repeat;
};

/// Makes it from its words:
///
///   step LAYERS HEADS DIM CONTEXT BATCH VOCABULARY    one training step: forward, backward, clip 1, AdamW
///   attention BATCH HEADS LENGTH DIM [VARIANT]        causal attention, forward and backward apart
///   layer BATCH LENGTH DIM HEADS                      a layer of causal self-attention with its projections
///   decode LAYERS HEADS DIM CONTEXT VOCABULARY        one token more, with the cache half full
///   machine                                           peak of fused multiply-adds, speed of memory
///
/// Throws UsageError for anything else.
Work make_work(const std::vector<std::string>& words);

}  // namespace rapt

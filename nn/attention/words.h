#pragma once
#include "layer.h"

/// Attention layers from a specification such as "gqa:kv=2+rope:theta=10000+window:256+sink+softcap:30". Layers take
/// turns in several, joined by a slash: "mha+rope+window:256/mha+rope" has windows in the layers 0, 2, 4 …
namespace rapt::inline RAPT_ABI {

/// What every layer of a model shares.
struct AttentionLayerSizes {
  int64_t dim, heads;
  int64_t context;    ///< longest sequence
  int64_t layer = 0;  ///< counted from 0: differential attention depends on it
  bool bias = false;
  double dropout = 0;  ///< of the projected result
  double qkv_deviation = 0, proj_deviation = 0;
};

/// One causal layer, by the specification whose turn it is at `sizes.layer`. Throws UsageError for unknown and
/// contradictory words.
std::unique_ptr<AttentionLayer> make_attention(const std::string& spec, const AttentionLayerSizes& sizes);

/// Makes a layer of each specification and tries it on a few positions, so that words that don't go together are found
/// before training. Throws UsageError.
void check_attention(const std::string& spec, const AttentionLayerSizes& sizes);

/// Whether words of any layer say where a token stands, so that the model needs no position embedding.
bool has_positions(const std::string& spec);

/// Every word with its arguments and meaning, for people.
std::string describe_attention_words();

/// Specifications that train, at least one for each word. Windows and blocks are a part of this context, so that they
/// leave something out.
std::vector<std::string> example_specs(int64_t context = 128);

}  // namespace rapt::inline RAPT_ABI

#pragma once
#include "layer.h"

/// Attention layers from a specification such as "gqa:kv=2+rope:theta=10000+window:256+sink+softcap:30".
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

/// One causal layer. Throws UsageError for unknown and contradictory words.
std::unique_ptr<AttentionLayer> make_attention(const std::string& spec, const AttentionLayerSizes& sizes);

/// Whether the words say where a token stands, so that the model needs no position embedding.
bool has_positions(const std::string& spec);

/// Every word with its arguments and meaning, for people.
std::string describe_attention_words();

/// One specification for each word, which makes a layer that trains.
std::vector<std::string> example_specs();

}  // namespace rapt::inline RAPT_ABI

#pragma once
#include "grouped_query.h"

namespace rapt::inline RAPT_ABI {

struct DebertaOptions {
  GroupedQueryOptions common = {};
  int64_t reach = 64;  ///< distances from there on are one
};

/// Disentangled attention (DeBERTa, He 2021): the score of query i and key j is
///
///     (q_i · k_j + q_i · kr[δ(i, j)] + k_j · qr[δ(j, i)]) / √(3D),  δ(i, j) = clip(i − j + reach, 0, 2·reach − 1)
///
/// content with content, content with position, position with content. Takes memory for 2·reach numbers per query, key
/// and head. Parameters besides GroupedQueryAttention's: relative.positions (2·reach, C), which relative.key.weight
/// (H·D, C) and relative.query.weight (Hkv·D, C) make kr and qr of.
struct DebertaAttention : GroupedQueryAttention {
  DebertaAttention(int64_t dim, int64_t heads, DebertaOptions options = {});
};

struct DynamicBiasOptions {
  int64_t hidden = 32;
  bool logarithmic = true;  ///< sign(δ) ln(|δ| + 1) instead of δ = key − query
};

/// Adds f(key − query)[h] to the scores, f a small network from one number to H (Swin V2, Liu 2022): in, middle and
/// out, with SiLU between, run once for every distance. Out starts at 0, so at first it adds nothing.
std::unique_ptr<AttentionPart> dynamic_bias_part(int64_t heads, DynamicBiasOptions options = {});

}  // namespace rapt::inline RAPT_ABI

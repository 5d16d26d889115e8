#pragma once
#include <cstdint>
#include <cstring>

#include "real.h"

namespace rapt::inline RAPT_ABI {

namespace detail {

// 8 x 8 in registers, three rounds of exchanging halves; the shuffles are those that every vector unit has.
[[gnu::always_inline]] inline void transpose_8x8(const Real* src, int64_t src_row, Real* dst, int64_t dst_row) {
  using Vector [[gnu::vector_size(8 * sizeof(Real))]] = Real;
  Vector a[8], b[8];
  for (int i = 0; i < 8; ++i) std::memcpy(&a[i], src + i * src_row, sizeof(Vector));
  for (int i = 0; i < 8; i += 2) {  // pairs of rows: columns 0, 1 of each quarter, then 2, 3
    b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  for (int i = 0; i < 8; i += 4) {  // fours of rows
    for (int h = 0; h < 2; ++h) {
      a[i + 2 * h] = __builtin_shufflevector(b[i + h], b[i + h + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      a[i + 2 * h + 1] = __builtin_shufflevector(b[i + h], b[i + h + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  }
  for (int i = 0; i < 4; ++i) {
    b[i] = __builtin_shufflevector(a[i], a[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    b[i + 4] = __builtin_shufflevector(a[i], a[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
  for (int i = 0; i < 8; ++i) std::memcpy(dst + i * dst_row, &b[i], sizeof(Vector));
}

}  // namespace detail

/// dst[j][i] = src[i][j] for a (rows, columns) matrix; src_row and dst_row are the distances between rows. No overlap.
inline void transpose(int64_t rows, int64_t columns, const Real* src, int64_t src_row, Real* dst, int64_t dst_row) {
  int64_t whole_rows = rows / 8 * 8, whole_columns = columns / 8 * 8;
  for (int64_t i = 0; i < whole_rows;
       i += 8) {  // along the rows of src: whole cache lines, also when they are far apart
    for (int64_t j = 0; j < whole_columns; j += 8) {
      detail::transpose_8x8(src + i * src_row + j, src_row, dst + j * dst_row + i, dst_row);
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = i < whole_rows ? whole_columns : 0; j < columns; ++j) dst[j * dst_row + i] = src[i * src_row + j];
  }
}

}  // namespace rapt::inline RAPT_ABI

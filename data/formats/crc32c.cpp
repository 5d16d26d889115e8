#include "crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace rapt::inline RAPT_ABI {

namespace {

// tables[k][b]: what byte b does to the remainder when k more bytes follow it (slicing by 8, Kounavis and Berry 2005).
constexpr auto tables = [] {
  std::array<std::array<uint32_t, 256>, 8> t{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t crc = b;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0x82F63B78u : 0);
    t[0][b] = crc;
  }
  for (size_t k = 1; k < 8; ++k)
    for (size_t b = 0; b < 256; ++b) t[k][b] = (t[k - 1][b] >> 8) ^ t[0][t[k - 1][b] & 255];
  return t;
}();

uint64_t load8(const std::byte* p) {
  uint64_t word;
  std::memcpy(&word, p, 8);
  return word;
}

uint32_t by_table(const std::byte* p, size_t n, uint32_t crc) {
  for (; n >= 8; p += 8, n -= 8) {
    uint64_t word = load8(p) ^ crc;
    crc = 0;
    for (int k = 0; k < 8; ++k) crc ^= tables[size_t(7 - k)][(word >> (8 * k)) & 255];
  }
  for (; n > 0; ++p, --n) crc = (crc >> 8) ^ tables[0][(crc ^ uint32_t(*p)) & 255];
  return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t by_instruction(const std::byte* p, size_t n, uint32_t crc) {
  uint64_t wide = crc;
  for (; n >= 8; p += 8, n -= 8) wide = _mm_crc32_u64(wide, load8(p));
  crc = uint32_t(wide);
  for (; n > 0; ++p, --n) crc = _mm_crc32_u8(crc, uint8_t(*p));
  return crc;
}
#endif

}  // namespace

uint32_t crc32c(std::span<const std::byte> bytes, uint32_t before) {
#if defined(__x86_64__)
  static const bool has_instruction = __builtin_cpu_supports("sse4.2");
  if (has_instruction) return ~by_instruction(bytes.data(), bytes.size(), ~before);
#endif
  return detail::crc32c_by_table(bytes, before);
}

uint32_t detail::crc32c_by_table(std::span<const std::byte> bytes, uint32_t before) {
  return ~by_table(bytes.data(), bytes.size(), ~before);
}

uint32_t crc32c(std::string_view bytes, uint32_t before) {
  return crc32c(std::as_bytes(std::span(bytes.data(), bytes.size())), before);
}

}  // namespace rapt::inline RAPT_ABI

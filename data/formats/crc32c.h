#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "../../core/real.h"

namespace rapt::inline RAPT_ABI {

/// CRC32C (Castagnoli polynomial, as in iSCSI, RFC 3720) of the bytes. `before` is the CRC of what stands in front of
/// them, so that a long text can be taken in pieces: crc32c(b, crc32c(a)) = crc32c(a b).
uint32_t crc32c(std::span<const std::byte> bytes, uint32_t before = 0);
uint32_t crc32c(std::string_view bytes, uint32_t before = 0);

namespace detail {
/// The same without the processor's CRC instruction.
uint32_t crc32c_by_table(std::span<const std::byte> bytes, uint32_t before = 0);
}  // namespace detail

}  // namespace rapt::inline RAPT_ABI

#include "text.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace rapt::inline RAPT_ABI {

namespace {

/// A byte that belongs to no text. Tab, line feed, vertical tab, form feed and carriage return do.
bool is_binary(unsigned char c) { return c < 0x20 && (c < 0x09 || c > 0x0D); }

/// Whether 64 bytes are all printable ASCII or white space; without branches, so that it becomes vector code.
bool plain_block(const char* bytes) {
  int other = 0;
  for (int i = 0; i < 64; ++i) {
    auto c = static_cast<unsigned char>(bytes[i]);
    other |= int(c >= 0x80) | (int(c < 0x20) & (int(c < 0x09) | int(c > 0x0D)));
  }
  return other == 0;
}

const char* binary_hint(std::string_view text) {
  bool utf16 = text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF");
  return utf16 ? "it looks like UTF-16, convert it (iconv -f UTF-16 -t UTF-8)"
               : "text has to be UTF-8 (to convert Latin-1: iconv -f ISO-8859-1 -t UTF-8)";
}

void check_text(std::string_view text, const std::string& name) {
  check<DataError>(!text.empty(), "text: {} is empty", name);
  for (size_t i = 0; i < text.size();) {
    if (i + 64 <= text.size() && plain_block(text.data() + i)) {
      i += 64;
      continue;
    }
    auto byte = static_cast<unsigned char>(text[i]);
    CodePoint point = code_point_at(text, i);
    if (!point)
      throw DataError(fmt::format("text: {} is not UTF-8: no character starts with 0x{:02X} at {}; {}", name, byte,
                                  position_in(text, i), binary_hint(text)));
    if (is_binary(byte))
      throw DataError(fmt::format("text: {} is not text: control character 0x{:02X} at {}; {}", name, byte,
                                  position_in(text, i), binary_hint(text)));
    i += size_t(point.bytes);
  }
}

struct File {
  int descriptor;
  ~File() {
    if (descriptor >= 0) ::close(descriptor);
  }
};

}  // namespace

Text::Text(std::shared_ptr<const void> owner, std::string_view view, std::string name)
    : owner_(std::move(owner)), view_(view), name_(std::move(name)) {
  check_text(view_, name_);
}

Text Text::open(const std::string& path) {
  // O_NONBLOCK: opening a pipe must not wait for its writer
  File file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  check<DataError>(file.descriptor >= 0, "text: can't open {}: {}", path, std::strerror(errno));
  struct stat info {};
  check<DataError>(fstat(file.descriptor, &info) == 0, "text: can't read {}: {}", path, std::strerror(errno));
  check<DataError>(!S_ISDIR(info.st_mode), "text: {} is a directory, expected a text file", path);
  check<DataError>(S_ISREG(info.st_mode), "text: {} is a device or a pipe, expected a regular file", path);
  check<DataError>(info.st_size > 0, "text: {} is empty", path);

  auto size = size_t(info.st_size);
  void* bytes = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.descriptor, 0);
  check<DataError>(bytes != MAP_FAILED, "text: can't map {} ({} bytes): {}", path, size, std::strerror(errno));
  std::shared_ptr<const void> owner(bytes, [size](const void* p) { munmap(const_cast<void*>(p), size); });
  return {owner, {static_cast<const char*>(bytes), size}, path};
}

Text Text::from_string(std::string text, std::string name) {
  auto owner = std::make_shared<const std::string>(std::move(text));
  return {owner, *owner, std::move(name)};
}

uint64_t Text::hash() const {
  uint64_t hash = 0xCBF29CE484222325;
  for (char c : view_) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  return hash;
}

CodePoint code_point_at(std::string_view text, size_t position) {
  auto byte = [&](size_t i) { return static_cast<unsigned char>(text[position + i]); };
  uint32_t first = byte(0);
  if (first < 0x80) return {first, 1};

  int bytes = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() - position < size_t(bytes)) return {};
  uint32_t value = first & (0xFFu >> (bytes + 1));
  for (int i = 1; i < bytes; ++i) {
    uint32_t next = byte(size_t(i));
    if ((next & 0xC0) != 0x80) return {};
    value = value << 6 | (next & 0x3F);
  }
  constexpr uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (value < smallest[bytes] || !is_code_point(value)) return {};
  return {value, bytes};
}

bool begins_code_point(std::string_view bytes) {
  if (bytes.empty() || bytes.size() > 3) return false;
  auto first = static_cast<unsigned char>(bytes[0]);
  size_t needed = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC2 ? 2 : 1;
  if (first > 0xF4 || bytes.size() >= needed) return false;
  // It can be completed exactly if it can with the smallest or the largest continuation bytes.
  for (char filler : {'\x80', '\xBF'}) {
    std::string whole(bytes);
    whole.resize(needed, filler);
    if (code_point_at(whole, 0)) return true;
  }
  return false;
}

void append_utf8(std::string& text, char32_t code_point) {
  auto push = [&](uint32_t byte) { text.push_back(char(byte)); };
  uint32_t c = code_point;
  if (c < 0x80) {
    push(c);
  } else if (c < 0x800) {
    push(0xC0 | c >> 6);
    push(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    push(0xE0 | c >> 12);
    push(0x80 | (c >> 6 & 0x3F));
    push(0x80 | (c & 0x3F));
  } else {
    push(0xF0 | c >> 18);
    push(0x80 | (c >> 12 & 0x3F));
    push(0x80 | (c >> 6 & 0x3F));
    push(0x80 | (c & 0x3F));
  }
}

std::string position_in(std::string_view text, size_t byte) {
  auto end = text.begin() + ptrdiff_t(std::min(byte, text.size()));
  return fmt::format("byte {}, line {}", byte, 1 + std::count(text.begin(), end, '\n'));
}

}  // namespace rapt::inline RAPT_ABI

#include "batches.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../core/random.h"

namespace rapt::inline RAPT_ABI {

namespace {

constexpr uint64_t kWindowStream = 0x77696E646F7773;  // apart from the streams other code draws under the same seed

template <class Id>
void widen(const void* from, int64_t begin, int64_t count, int32_t* to) {
  auto* bytes = static_cast<const char*>(from) + begin * int64_t(sizeof(Id));
  for (int64_t i = 0; i < count; ++i) {
    Id id;
    std::memcpy(&id, bytes + i * int64_t(sizeof(Id)), sizeof(Id));
    to[i] = int32_t(id);
  }
}

template <class Id>
void append(std::vector<char>& bytes, std::span<const int32_t> ids) {
  size_t at = bytes.size();
  bytes.resize(at + ids.size() * sizeof(Id));
  for (size_t i = 0; i < ids.size(); ++i) {
    auto id = Id(ids[i]);
    std::memcpy(bytes.data() + at + i * sizeof(Id), &id, sizeof(Id));
  }
}

/// The windows [start, start + T] as rows of x and y.
Batch windows_at(TokenSpan tokens, const std::vector<int64_t>& starts, int64_t T) {
  auto B = int64_t(starts.size());
  std::vector<int32_t> x(size_t(B * T)), y(size_t(B * T));
  for (int64_t b = 0; b < B; ++b) {
    tokens.copy(starts[size_t(b)], T, x.data() + b * T);
    tokens.copy(starts[size_t(b)] + 1, T, y.data() + b * T);
  }
  return {Tokens({B, T}, std::move(x)), Tokens({B, T}, std::move(y))};
}

}  // namespace

int32_t TokenSpan::operator[](int64_t i) const {
  int32_t id;
  copy(i, 1, &id);
  return id;
}

void TokenSpan::copy(int64_t begin, int64_t count, int32_t* to) const {
  check(begin >= 0 && count >= 0 && begin <= size - count, "tokens: [{}, {}) of a stream of {}", begin, begin + count,
        size);
  if (width == 1)
    widen<uint8_t>(data, begin, count, to);
  else if (width == 2)
    widen<uint16_t>(data, begin, count, to);
  else
    widen<int32_t>(data, begin, count, to);
}

TokenSpan TokenSpan::part(int64_t begin, int64_t end) const {
  check(begin >= 0 && begin <= end && end <= size, "tokens: [{}, {}) of a stream of {}", begin, end, size);
  return {static_cast<const char*>(data) + begin * width, width, end - begin};
}

TokenStream::TokenStream(const Tokenizer& tokenizer, std::string_view text) {
  int64_t vocabulary = tokenizer.vocabulary_size();
  width_ = vocabulary <= 1 << 8 ? 1 : vocabulary <= 1 << 16 ? 2 : 4;
  bytes_.reserve(text.size() * size_t(width_));  // no token is shorter than a byte
  tokenizer.encode(text, [&](std::span<const int32_t> ids) {
    if (width_ == 1)
      append<uint8_t>(bytes_, ids);
    else if (width_ == 2)
      append<uint16_t>(bytes_, ids);
    else
      append<int32_t>(bytes_, ids);
  });
  bytes_.shrink_to_fit();
}

Split split_tokens(TokenSpan tokens, double validation_fraction, int64_t context) {
  check(validation_fraction >= 0 && validation_fraction < 1,
        "split: the validation fraction has to be in [0, 1), got {}", validation_fraction);
  check(context >= 1, "split: the context has to be at least 1, got {}", context);

  int64_t window = context + 1;
  auto validation_of = [&](int64_t size) { return int64_t(double(size) * validation_fraction); };
  auto fits = [&](int64_t size) {
    int64_t validation = validation_of(size);
    return size - validation >= window && (validation_fraction == 0 || validation >= window);
  };
  if (!fits(tokens.size)) {
    double smaller = validation_fraction == 0 ? 1 : std::min(validation_fraction, 1 - validation_fraction);
    auto needed = std::max(window, int64_t(double(window - 1) / smaller) - 2);
    while (!fits(needed)) ++needed;
    throw DataError(fmt::format(
        "split: the text has {} tokens, but a context of {} with a validation part of {} needs at least {}; take a "
        "longer text or a shorter context",
        tokens.size, context, validation_fraction, needed));
  }
  int64_t train = tokens.size - validation_of(tokens.size);
  return {tokens.part(0, train), tokens.part(train, tokens.size)};
}

Batch TrainBatches::batch(int64_t step, int64_t micro_step) const {
  check(tokens.size > context, "batches: {} tokens are too few for a context of {}", tokens.size, context);
  check(step >= 0 && micro_step >= 0 && micro_step < micro_steps, "batches: step {}, micro step {} of {}", step,
        micro_step, micro_steps);
  Random random{seed, kWindowStream};
  // Each window of a step comes from its own part of the text, and moves through it by the golden ratio: every step
  // sees all of the text, and all of it is seen equally often, so gradients vary less and no token waits long.
  constexpr uint64_t golden_ratio = 0x9E3779B97F4A7C15;  // of 2⁶⁴
  const int64_t windows = micro_steps * batch_size;
  const double part = double(tokens.size - context) / double(windows);
  std::vector<int64_t> starts;
  for (int64_t b = 0; b < batch_size; ++b) {
    int64_t window = micro_step * batch_size + b;
    uint64_t turn = uint64_t(random.uniform(uint64_t(window)) * 0x1p64) + uint64_t(step) * golden_ratio;
    double place = (double(window) + double(turn >> 11) * 0x1p-53) * part;
    starts.push_back(std::min(int64_t(place), tokens.size - context - 1));
  }
  return windows_at(tokens, starts, context);
}

int64_t ValidationBatches::all_windows() const {
  return tokens.size < 2 ? 0 : (tokens.size - 1 + context - 1) / context;
}

bool ValidationBatches::sampled() const { return max_windows > 0 && max_windows < all_windows(); }

int64_t ValidationBatches::full_windows() const {
  if (sampled()) return max_windows;
  return tokens.size < 2 ? 0 : (tokens.size - 1) / context;
}

int64_t ValidationBatches::targets() const {
  return sampled() ? max_windows * context : std::max<int64_t>(tokens.size - 1, 0);
}

int64_t ValidationBatches::batches() const {
  int64_t shorter = targets() > full_windows() * context ? 1 : 0;
  return (full_windows() + batch_size - 1) / batch_size + shorter;
}

Batch ValidationBatches::batch(int64_t i) const {
  check(i >= 0 && i < batches(), "batches: batch {} of {}", i, batches());
  int64_t full = full_windows(), first = i * batch_size, last = std::min(first + batch_size, full);
  if (first >= full) return windows_at(tokens, {full * context}, tokens.size - 1 - full * context);

  std::vector<int64_t> starts;
  for (int64_t w = first; w < last; ++w) starts.push_back((sampled() ? w * all_windows() / max_windows : w) * context);
  return windows_at(tokens, starts, context);
}

}  // namespace rapt::inline RAPT_ABI

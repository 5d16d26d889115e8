#include "mask.h"

#include <algorithm>
#include <array>

#include "../check.h"

namespace rapt::inline RAPT_ABI {

namespace {

// Rules that only look at key − query.
struct BandRule : MaskRule {
  bool is_band() const override { return true; }
  Cover classify(const Box& b, const ScoreShape& s) const override {
    Band limits = band(s);
    int64_t low = b.key_begin - (b.query_end - 1), high = b.key_end - 1 - b.query_begin;
    if (high < limits.low || low > limits.high) return Cover::empty;
    return low >= limits.low && high <= limits.high ? Cover::full : Cover::partial;
  }
  void keep(const Strip& s, uint8_t* to) const override {
    Band limits = band({0, 0, s.queries, s.keys});
    int64_t first = s.key - s.at(0).query;  // falls by one from row to row
    for (int64_t i = 0; i < s.count; ++i) to[i] = first - i >= limits.low && first - i <= limits.high;
  }
};

struct Causal final : BandRule {
  std::string name() const override { return "causal"; }
  Band band(const ScoreShape&) const override { return {.high = 0}; }
};

struct StrictlyCausal final : BandRule {
  std::string name() const override { return "strictly causal"; }
  Band band(const ScoreShape&) const override { return {.high = -1}; }
};

struct CausalTopLeft final : BandRule {
  std::string name() const override { return "causal (top left)"; }
  Band band(const ScoreShape& s) const override { return {.high = -s.offset()}; }
};

struct Window final : BandRule {
  int64_t left, right;
  Window(int64_t l, int64_t r) : left(l), right(r) {}
  std::string name() const override { return fmt::format("window {} {}", left, right); }
  Band band(const ScoreShape&) const override { return {-left, right}; }
};

// Rules of one entry: derive and say `reads(query, key, at)`. CRTP, so that the loop over a strip is inlined.
template <class Rule>
struct EntryRule : MaskRule {
  void keep(const Strip& s, uint8_t* to) const override {
    for (int64_t i = 0; i < s.count; ++i) to[i] = static_cast<const Rule*>(this)->reads(s.at(i));
  }
};

struct Prefix final : EntryRule<Prefix> {
  int64_t length;
  explicit Prefix(int64_t n) : length(n) {}
  std::string name() const override { return fmt::format("prefix {}", length); }
  bool reads(const At& at) const { return at.key < length || at.key <= at.query; }
  Cover classify(const Box& b, const ScoreShape&) const override {
    if (b.key_end <= std::max(length, b.query_begin + 1)) return Cover::full;
    return b.key_begin >= std::max(length, b.query_end) ? Cover::empty : Cover::partial;
  }
};

int64_t chunk_of(int64_t position, int64_t length) {
  return position >= 0 ? position / length : (position + 1) / length - 1;
}

struct Chunked final : EntryRule<Chunked> {
  int64_t length;
  explicit Chunked(int64_t n) : length(n) {}
  std::string name() const override { return fmt::format("chunked {}", length); }
  bool reads(const At& at) const { return chunk_of(at.query, length) == chunk_of(at.key, length); }
  Band band(const ScoreShape&) const override { return {1 - length, length - 1}; }
  Cover classify(const Box& b, const ScoreShape&) const override {
    int64_t q0 = chunk_of(b.query_begin, length), q1 = chunk_of(b.query_end - 1, length);
    int64_t k0 = chunk_of(b.key_begin, length), k1 = chunk_of(b.key_end - 1, length);
    if (q1 < k0 || k1 < q0) return Cover::empty;
    return q0 == q1 && k0 == k1 ? Cover::full : Cover::partial;
  }
};

struct Dilated final : EntryRule<Dilated> {
  int64_t step;
  explicit Dilated(int64_t n) : step(n) {}
  std::string name() const override { return fmt::format("dilated {}", step); }
  bool reads(const At& at) const { return (at.query - at.key) % step == 0; }
  Cover classify(const Box&, const ScoreShape&) const override { return step == 1 ? Cover::full : Cover::partial; }
};

struct Global final : EntryRule<Global> {
  int64_t count;
  explicit Global(int64_t n) : count(n) {}
  std::string name() const override { return fmt::format("global {}", count); }
  bool reads(const At& at) const { return at.key < count || at.query < count; }
  Cover classify(const Box& b, const ScoreShape&) const override {
    if (b.key_end <= count || b.query_end <= count) return Cover::full;
    return b.key_begin >= count && b.query_begin >= count ? Cover::empty : Cover::partial;
  }
};

// (B, M) or (1, M) integers by position.
struct PerKey {
  Tokens values;
  const int32_t* row(int64_t batch) const {
    return values.ids.data() + (values.shape[0] > 1 ? batch * values.shape[1] : 0);
  }
  void check_shape(const char* what, const ScoreShape& s) const {
    const Shape& is = values.shape;
    check(is.rank == 2 && (is[0] == s.batch || is[0] == 1) && is[1] == s.keys,
          "attention: {} must be (B, M) = ({}, {}) or (1, M), got {}", what, s.batch, s.keys, is);
  }
};

struct Document final : EntryRule<Document> {
  PerKey ids;
  explicit Document(const Tokens& of) : ids{of} {}
  std::string name() const override { return "document"; }
  void check_shape(const ScoreShape& s) const override { ids.check_shape("document ids", s); }
  bool reads(const At& at) const {
    const int32_t* id = ids.row(at.batch);
    return at.query >= 0 && id[at.query] == id[at.key];
  }
  Cover classify(const Box& b, const ScoreShape&) const override {
    if (b.query_begin < 0) return Cover::partial;
    const int32_t* id = ids.row(b.batch);
    auto [q_low, q_high] = std::minmax_element(id + b.query_begin, id + b.query_end);
    auto [k_low, k_high] = std::minmax_element(id + b.key_begin, id + b.key_end);
    if (*q_high < *k_low || *k_high < *q_low) return Cover::empty;
    return *q_low == *q_high && *k_low == *k_high ? Cover::full : Cover::partial;
  }
};

struct KeyPadding final : EntryRule<KeyPadding> {
  PerKey padding;
  explicit KeyPadding(const Tokens& of) : padding{of} {}
  std::string name() const override { return "padding"; }
  void check_shape(const ScoreShape& s) const override { padding.check_shape("padding", s); }
  bool reads(const At& at) const { return padding.row(at.batch)[at.key] == 0; }
  Cover classify(const Box& b, const ScoreShape&) const override {
    const int32_t* row = padding.row(b.batch);
    int64_t padded = std::count_if(row + b.key_begin, row + b.key_end, [](int32_t p) { return p != 0; });
    return padded == 0 ? Cover::full : padded == b.key_end - b.key_begin ? Cover::empty : Cover::partial;
  }
};

struct KeepWhere final : EntryRule<KeepWhere> {
  Tensor keep_;
  std::array<int64_t, 4> strides{};  // of (B, H, N, M), 0 where broadcast
  explicit KeepWhere(const Tensor& keep) : keep_(keep.detach()) {
    for (int d = 0; d < std::min(4, keep_.rank()); ++d) {
      int from = keep_.rank() - 1 - d;
      strides[size_t(3 - d)] = keep_.shape[from] == 1 ? 0 : keep_.strides[from];
    }
  }
  std::string name() const override { return "mask"; }
  void check_shape(const ScoreShape& s) const override {
    const int64_t sizes[] = {s.batch, s.heads, s.queries, s.keys};
    bool fits = keep_.rank() <= 4;
    for (int d = 0; fits && d < keep_.rank(); ++d) {
      int64_t size = keep_.shape[keep_.rank() - 1 - d];
      fits = size == 1 || size == sizes[3 - d];
    }
    check(fits, "attention: a mask of shape {} does not broadcast to (B, H, N, M) = ({}, {}, {}, {})", keep_.shape,
          s.batch, s.heads, s.queries, s.keys);
  }
  bool reads(const At& at) const {
    return keep_.data()[at.batch * strides[0] + at.head * strides[1] + at.row * strides[2] + at.key * strides[3]] != 0;
  }
};

struct BlockList final : EntryRule<BlockList> {
  Tokens blocks;
  int64_t size;
  BlockList(const Tokens& listed, int64_t n) : blocks(listed), size(n) {}
  std::string name() const override { return fmt::format("blocks of {}", size); }
  void check_shape(const ScoreShape& s) const override {
    int64_t wanted = (s.keys + size - 1) / size;
    check(s.queries <= s.keys && blocks.shape[0] >= wanted && blocks.shape[1] >= wanted,
          "attention: a list of blocks of {} for {} queries and {} keys must be at least ({}, {}), got {}", size,
          s.queries, s.keys, wanted, wanted, blocks.shape);
  }
  bool listed(int64_t q, int64_t k) const { return blocks.ids[size_t(q * blocks.shape[1] + k)] != 0; }
  bool reads(const At& at) const { return listed(at.query / size, at.key / size); }
  Cover classify(const Box& b, const ScoreShape&) const override {
    int64_t count = 0, all = 0;
    for (int64_t q = b.query_begin / size; q <= (b.query_end - 1) / size; ++q) {
      for (int64_t k = b.key_begin / size; k <= (b.key_end - 1) / size; ++k, ++all) count += listed(q, k);
    }
    return count == 0 ? Cover::empty : count == all ? Cover::full : Cover::partial;
  }
};

struct And final : MaskRule {
  Mask a, b;
  And(const Mask& x, const Mask& y) : a(x), b(y) {}
  std::string name() const override { return fmt::format("({} & {})", a.name(), b.name()); }
  Band band(const ScoreShape& s) const override {
    Band x = a.rule().band(s), y = b.rule().band(s);
    return {std::max(x.low, y.low), std::min(x.high, y.high)};
  }
  bool is_band() const override { return a.rule().is_band() && b.rule().is_band(); }
  void check_shape(const ScoreShape& s) const override {
    a.rule().check_shape(s);
    b.rule().check_shape(s);
  }
  Cover classify(const Box& box, const ScoreShape& s) const override {
    Cover x = a.rule().classify(box, s), y = b.rule().classify(box, s);
    if (x == Cover::empty || y == Cover::empty) return Cover::empty;
    return x == Cover::full && y == Cover::full ? Cover::full : Cover::partial;
  }
  void keep(const Strip& s, uint8_t* to) const override {
    uint8_t other[kTile];
    a.rule().keep(s, to);
    b.rule().keep(s, other);
    for (int64_t i = 0; i < s.count; ++i) to[i] &= other[i];
  }
};

struct Or final : MaskRule {
  Mask a, b;
  Or(const Mask& x, const Mask& y) : a(x), b(y) {}
  std::string name() const override { return fmt::format("({} | {})", a.name(), b.name()); }
  Band band(const ScoreShape& s) const override {
    Band x = a.rule().band(s), y = b.rule().band(s);
    return {std::min(x.low, y.low), std::max(x.high, y.high)};
  }
  void check_shape(const ScoreShape& s) const override {
    a.rule().check_shape(s);
    b.rule().check_shape(s);
  }
  Cover classify(const Box& box, const ScoreShape& s) const override {
    Cover x = a.rule().classify(box, s), y = b.rule().classify(box, s);
    if (x == Cover::full || y == Cover::full) return Cover::full;
    return x == Cover::empty && y == Cover::empty ? Cover::empty : Cover::partial;
  }
  void keep(const Strip& s, uint8_t* to) const override {
    uint8_t other[kTile];
    a.rule().keep(s, to);
    b.rule().keep(s, other);
    for (int64_t i = 0; i < s.count; ++i) to[i] |= other[i];
  }
};

struct Not final : MaskRule {
  Mask a;
  explicit Not(const Mask& x) : a(x) {}
  std::string name() const override { return fmt::format("!{}", a.name()); }
  void check_shape(const ScoreShape& s) const override { a.rule().check_shape(s); }
  Cover classify(const Box& box, const ScoreShape& s) const override {
    Cover x = a.rule().classify(box, s);
    return x == Cover::full ? Cover::empty : x == Cover::empty ? Cover::full : Cover::partial;
  }
  void keep(const Strip& s, uint8_t* to) const override {
    a.rule().keep(s, to);
    for (int64_t i = 0; i < s.count; ++i) to[i] = !to[i];
  }
};

// Entry (i, j) of this mask is entry (j, i) of `a`, by rows: positions are those of the other problem.
struct Transposed final : MaskRule {
  Mask a;
  explicit Transposed(const Mask& x) : a(x) {}
  std::string name() const override { return fmt::format("transposed {}", a.name()); }
  void check_shape(const ScoreShape& s) const override { a.rule().check_shape({s.batch, s.heads, s.keys, s.queries}); }
  void keep(const Strip& s, uint8_t* to) const override {
    for (int64_t i = 0; i < s.count; ++i) {
      a.rule().keep({s.batch, s.head, s.row + i, s.key, 1, s.keys, s.queries}, to + i);
    }
  }
};

template <class Rule, class... Args>
Mask make(Args&&... args) {
  return Mask(std::make_shared<Rule>(std::forward<Args>(args)...));
}

}  // namespace

Mask operator&(const Mask& a, const Mask& b) {
  if (a.everything()) return b;
  return b.everything() ? a : make<And>(a, b);
}
Mask operator|(const Mask& a, const Mask& b) { return a.everything() || b.everything() ? Mask() : make<Or>(a, b); }
Mask operator!(const Mask& a) {
  return a.everything() ? mask_of([](const At&) { return false; }, {0, -1}) : make<Not>(a);
}

Mask causal() { return make<Causal>(); }
Mask strictly_causal() { return make<StrictlyCausal>(); }
Mask causal_top_left() { return make<CausalTopLeft>(); }

Mask window(int64_t left, int64_t right) {
  check(left >= 0 && right >= 0, "window: sizes must be at least 0, got {} to the left and {} to the right", left,
        right);
  return make<Window>(left, right);
}

Mask prefix(int64_t length) {
  check(length >= 0, "prefix: the length must be at least 0, got {}", length);
  return make<Prefix>(length);
}

Mask chunked(int64_t length) {
  check(length >= 1, "chunked: the length of a chunk must be at least 1, got {}", length);
  return make<Chunked>(length);
}

Mask dilated(int64_t step) {
  check(step >= 1, "dilated: the step must be at least 1, got {}", step);
  return make<Dilated>(step);
}

Mask global(int64_t count) {
  check(count >= 0, "global: the count must be at least 0, got {}", count);
  return make<Global>(count);
}

Mask document(const Tokens& ids) { return make<Document>(ids); }
Mask key_padding(const Tokens& padding) { return make<KeyPadding>(padding); }

Mask keep_where(const Tensor& keep) {
  check(bool(keep), "keep_where: expected a tensor that broadcasts to (B, H, N, M), got none");
  return make<KeepWhere>(keep);
}

Mask block_list(const Tokens& blocks, int64_t size) {
  check(size >= 1, "block_list: the size of a block must be at least 1, got {}", size);
  check(blocks.shape.rank == 2, "block_list: expected (query blocks, key blocks), got {}", blocks.shape);
  return make<BlockList>(blocks, size);
}

Mask transposed(const Mask& mask) { return mask.everything() ? mask : make<Transposed>(mask); }

}  // namespace rapt::inline RAPT_ABI

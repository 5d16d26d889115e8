#include "safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <tuple>
#include <utility>

#include "half.h"
#include "json.h"

namespace rapt::inline RAPT_ABI {

static_assert(std::endian::native == std::endian::little, "the formats are little endian, and read as they are");

namespace {

constexpr uint64_t kMaxHeader = 100'000'000;
constexpr uint64_t kMaxDimension = std::numeric_limits<int64_t>::max();

struct DtypeRow {
  std::string_view name;
  int bits;
};
constexpr std::array<DtypeRow, 20> kDtypes{{
    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"BOOL", 8}, {"U8", 8},   {"I8", 8},    {"F8_E4M3", 8},
    {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"I16", 16},    {"U16", 16}, {"F16", 16}, {"BF16", 16}, {"I32", 32},
    {"U32", 32},    {"F32", 32},    {"I64", 64},    {"U64", 64}, {"F64", 64}, {"C64", 64},
}};
static_assert(kDtypes[size_t(Dtype::kC64)].name == "C64");

// The number of bits of a tensor, or −1 when it does not fit. Zeros are left out of the product: strides must fit too.
int64_t bits_of(Dtype dtype, const std::vector<int64_t>& shape) {
  int64_t product = bits_of(dtype);
  bool empty = false;
  for (int64_t size : shape) {
    empty |= size == 0;
    if (size > 0 && __builtin_mul_overflow(product, size, &product)) return -1;
  }
  return empty ? 0 : product;
}

// One entry of the header, and where in the data it says its tensor is.
struct Entry {
  TensorView view;
  uint64_t begin = 0, end = 0;
};

Entry read_entry(std::string name, const JsonValue& json) {
  Entry entry;
  JsonValue dtype = json["dtype"], shape = json["shape"], offsets = json["data_offsets"];

  auto row = std::find_if(kDtypes.begin(), kDtypes.end(), [&](const auto& d) { return d.name == dtype.string(); });
  if (row == kDtypes.end()) dtype.fail("a known dtype like \"F32\" in capitals");
  entry.view.dtype = Dtype(row - kDtypes.begin());

  size_t rank = shape.size();
  for (size_t i = 0; i < rank; ++i) {
    uint64_t size = shape[i].unsigned_integer();
    check<DataError>(size <= kMaxDimension, "{}: overflow: expected a size of at most 2^63 - 1, found {}",
                     shape[i].where(), size);
    entry.view.shape.push_back(int64_t(size));
  }

  check<DataError>(offsets.size() == 2, "{}: expected two numbers, begin and end, found {}", offsets.where(),
                   offsets.size());
  entry.begin = offsets[0].unsigned_integer();
  entry.end = offsets[1].unsigned_integer();
  entry.view.name = std::move(name);
  return entry;
}

// f of each stored element, which may lie at any address.
template <class Stored, class Out, class F>
void decode(std::span<const std::byte> bytes, Out* out, F f) {
  for (size_t i = 0; i < bytes.size() / sizeof(Stored); ++i) {
    Stored value;
    std::memcpy(&value, bytes.data() + i * sizeof(Stored), sizeof value);
    out[i] = Out(f(value));
  }
}

template <class Stored, class F>
void encode_as(const Tensor& x, std::vector<std::byte>& bytes, F f) {
  bytes.resize(size_t(x.numel()) * sizeof(Stored));
  const Real* p = x.data();
  for (size_t i = 0; i < size_t(x.numel()); ++i) {
    Stored value = Stored(f(p[i]));
    std::memcpy(bytes.data() + i * sizeof value, &value, sizeof value);
  }
}

constexpr auto same = [](auto value) { return value; };

// The numbers of a tensor. Piece by piece lets go of the mapped file, if any, so that they are not in memory twice.
Tensor read_tensor(const TensorView& view, const MappedFile* file) {
  check<DataError>(view.shape.size() <= size_t(Shape::kMaxRank),
                   "tensor {}: {} dimensions are valid but not supported, expected at most {}", quoted_name(view.name),
                   view.shape.size(), Shape::kMaxRank);
  bool supported =
      view.dtype == Dtype::kF32 || view.dtype == Dtype::kF64 || view.dtype == Dtype::kF16 || view.dtype == Dtype::kBF16;
  check<DataError>(supported, "tensor {}: dtype {} is valid but not supported here, expected F32, F64, F16 or BF16",
                   quoted_name(view.name), name_of(view.dtype));
  Shape shape;
  for (int64_t size : view.shape) shape.push_back(size);
  Tensor result = empty(shape);
  Real* out = result.mutable_data();
  for (std::span<const std::byte> rest = view.bytes; !rest.empty();) {
    auto piece = rest.first(std::min<size_t>(rest.size(), size_t{1} << 22));
    if (view.dtype == Dtype::kF32) decode<float>(piece, out, same);
    if (view.dtype == Dtype::kF64) decode<double>(piece, out, same);
    if (view.dtype == Dtype::kF16) decode<uint16_t>(piece, out, half_to_float);
    if (view.dtype == Dtype::kBF16) decode<uint16_t>(piece, out, bfloat16_to_float);
    if (file) file->release(piece);
    out += piece.size() * 8 / size_t(bits_of(view.dtype));
    rest = rest.subspan(piece.size());
  }
  return result;
}

}  // namespace

std::string_view name_of(Dtype dtype) { return kDtypes[size_t(dtype)].name; }
int bits_of(Dtype dtype) { return kDtypes[size_t(dtype)].bits; }

std::string shape_text(const std::vector<int64_t>& shape, size_t most) {
  std::string text = "[";
  for (size_t i = 0; i < std::min(shape.size(), most); ++i) text += fmt::format("{}{}", i > 0 ? "," : "", shape[i]);
  return text + (shape.size() > most ? ",…]" : "]");
}

Safetensors Safetensors::open(const std::filesystem::path& path) {
  auto file = std::make_shared<const MappedFile>(path);
  Safetensors result = parse(file->bytes(), file->name());
  result.file_ = std::move(file);
  return result;
}

Safetensors Safetensors::parse(std::span<const std::byte> bytes, std::string name) {
  check<DataError>(bytes.size() >= 8, "{}: header too small: expected at least 8 bytes, found {}", name, bytes.size());
  uint64_t n;
  std::memcpy(&n, bytes.data(), 8);
  check<DataError>(n <= kMaxHeader, "{}: header too large: expected at most {} bytes, found {} at byte 0", name,
                   kMaxHeader, n);
  check<DataError>(n <= bytes.size() - 8,
                   "{}: invalid header length: {} bytes according to byte 0, but only {} follow: truncated?", name, n,
                   bytes.size() - 8);

  Safetensors result;
  result.header_ = {reinterpret_cast<const char*>(bytes.data()) + 8, size_t(n)};
  std::string_view text = result.header_;
  text = text.substr(0, text.find_last_not_of(' ') + 1);
  std::string where = name + ": header";
  check<DataError>(!text.empty(), "{}: invalid JSON: expected an object, found nothing", where);
  JsonValue root = parse_json(text, where);
  check<DataError>(text.front() == '{', "{}: expected an object that begins at byte 8 with '{{', found {}", where,
                   quoted_name(text.substr(0, 1)));
  check<DataError>(text.back() == '}', "{}: trailing characters: expected only spaces after the object, found {}",
                   where, quoted_name(text.substr(text.size() - 1)));

  std::vector<Entry> entries;
  for (std::string& key : root.keys()) {
    JsonValue value = root[key];
    if (key == "__metadata__") {
      for (const std::string& k : value.keys()) result.metadata_[k] = value[k].string();
    } else {
      entries.push_back(read_entry(std::move(key), value));
    }
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return std::tie(a.begin, a.end) < std::tie(b.begin, b.end); });

  uint64_t end = 0;  // of the tensor before
  for (const Entry& e : entries) {
    auto tensor = [&] { return fmt::format("{}: tensor {}", name, quoted_name(e.view.name)); };
    check<DataError>(
        e.begin == end && e.end >= e.begin,
        "{}: invalid offset: expected data that begins at {}, where the tensor before ends, found [{}, {}]", tensor(),
        end, e.begin, e.end);
    int64_t bits = bits_of(e.view.dtype, e.view.shape);
    check<DataError>(bits >= 0, "{}: overflow: {} of shape {} is too large", tensor(), name_of(e.view.dtype),
                     shape_text(e.view.shape));
    check<DataError>(bits % 8 == 0, "{}: {} of shape {} takes {} bits, which does not end on a byte", tensor(),
                     name_of(e.view.dtype), shape_text(e.view.shape), bits);
    check<DataError>(uint64_t(bits) / 8 == e.end - e.begin,
                     "{}: invalid shape, dtype, or offset: {} of shape {} takes {} bytes, but the offsets [{}, {}] "
                     "hold {}",
                     tensor(), name_of(e.view.dtype), shape_text(e.view.shape), bits / 8, e.begin, e.end,
                     e.end - e.begin);
    end = e.end;
  }
  std::span<const std::byte> data = bytes.subspan(8 + size_t(n));
  check<DataError>(end == data.size(),
                   "{}: file not fully covered: expected {} bytes of data according to the header, found {}: {}", name,
                   end, data.size(), end > data.size() ? "truncated?" : "something was appended");

  result.tensors_.reserve(entries.size());
  for (Entry& e : entries) {
    e.view.bytes = data.subspan(size_t(e.begin), size_t(e.end - e.begin));
    result.index_[e.view.name] = result.tensors_.size();
    result.tensors_.push_back(std::move(e.view));
  }
  result.name_ = std::move(name);
  return result;
}

const TensorView* Safetensors::find(std::string_view name) const {
  auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

const TensorView& Safetensors::at(std::string_view name) const {
  const TensorView* view = find(name);
  check<DataError>(view != nullptr, "{}: there is no tensor {}", name_, quoted_name(name));
  return *view;
}

Tensor Safetensors::tensor(std::string_view name) const {
  const TensorView& view = at(name);
  try {
    return read_tensor(view, file_.get());
  } catch (const DataError& e) {
    throw DataError(fmt::format("{}: {}", name_, e.what()));
  }
}

std::vector<int64_t> Safetensors::integers(std::string_view name) const {
  const TensorView& view = at(name);
  try {
    return to_integers(view);
  } catch (const DataError& e) {
    throw DataError(fmt::format("{}: {}", name_, e.what()));
  }
}

void Safetensors::release(std::span<const std::byte> part) const {
  if (file_) file_->release(part);
}

Tensor to_tensor(const TensorView& view) { return read_tensor(view, nullptr); }

std::vector<int64_t> to_integers(const TensorView& view) {
  std::vector<int64_t> result(view.bytes.size() * 8 / size_t(bits_of(view.dtype)));
  switch (view.dtype) {
    case Dtype::kI64: decode<int64_t>(view.bytes, result.data(), same); break;
    case Dtype::kI32: decode<int32_t>(view.bytes, result.data(), same); break;
    case Dtype::kU8: decode<uint8_t>(view.bytes, result.data(), same); break;
    case Dtype::kBool: decode<uint8_t>(view.bytes, result.data(), [](uint8_t b) { return b != 0; }); break;
    default:
      throw DataError(fmt::format("tensor {}: dtype {} is valid but not supported here, expected I64, I32, U8 or BOOL",
                                  quoted_name(view.name), name_of(view.dtype)));
  }
  return result;
}

TensorView tensor_view(std::string name, const Tensor& tensor) {
  check(bool(tensor) && tensor.contiguous(), "safetensors: {} must hold numbers, contiguous", quoted_name(name));
  return {std::move(name),
          kRealDtype,
          {tensor.shape.begin(), tensor.shape.end()},
          std::as_bytes(std::span(tensor.data(), size_t(tensor.numel())))};
}

TensorView tensor_view(std::string name, std::span<const int64_t> values) {
  return {std::move(name), Dtype::kI64, {int64_t(values.size())}, std::as_bytes(values)};
}

TensorView tensor_view(std::string name, std::string_view bytes) {
  return {std::move(name), Dtype::kU8, {int64_t(bytes.size())}, std::as_bytes(std::span(bytes.data(), bytes.size()))};
}

std::vector<std::byte> encode(const Tensor& tensor, Dtype dtype) {
  Tensor x = contiguous(tensor);
  std::vector<std::byte> bytes;
  switch (dtype) {
    case Dtype::kF32: encode_as<float>(x, bytes, same); break;
    case Dtype::kF64: encode_as<double>(x, bytes, same); break;
    case Dtype::kF16: encode_as<uint16_t>(x, bytes, [](Real v) { return float_to_half(float(v)); }); break;
    case Dtype::kBF16: encode_as<uint16_t>(x, bytes, [](Real v) { return float_to_bfloat16(float(v)); }); break;
    default: throw Error(fmt::format("safetensors: can't encode as {}, only F32, F64, F16 and BF16", name_of(dtype)));
  }
  return bytes;
}

SafetensorsLayout::SafetensorsLayout(std::vector<TensorView> views, const Metadata& metadata)
    : tensors(std::move(views)) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorView& a, const TensorView& b) {
    return bits_of(a.dtype) != bits_of(b.dtype) ? bits_of(a.dtype) > bits_of(b.dtype) : a.name < b.name;
  });

  header.push_back('{');
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata)
      header += fmt::format("{}{}:{}", header.back() == '{' ? "" : ",", json_string(key), json_string(value));
    header += "}";
  }
  uint64_t end = 0;
  std::map<std::string_view, int> seen;
  for (const TensorView& t : tensors) {
    std::string name = json_string(t.name);
    check(t.name != "__metadata__", "safetensors: no tensor can have the name {}", name);
    check(++seen[t.name] == 1, "safetensors: two tensors have the name {}", name);
    bool valid = std::all_of(t.shape.begin(), t.shape.end(), [](int64_t n) { return n >= 0; });
    int64_t bits = valid ? bits_of(t.dtype, t.shape) : -1;
    check(bits >= 0 && bits % 8 == 0 && uint64_t(bits / 8) == t.bytes.size(),
          "safetensors: {} has {} bytes, but is {} of shape {}", name, t.bytes.size(), name_of(t.dtype),
          shape_text(t.shape));
    header += header.back() == '{' ? "" : ",";
    header += fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{},{}]}}", name, name_of(t.dtype),
                          shape_text(t.shape, t.shape.size()), end, end + t.bytes.size());
    end += t.bytes.size();
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  check(header.size() <= kMaxHeader,
        "safetensors: the header takes {} bytes, at most {} are allowed: large texts belong into tensors",
        header.size(), kMaxHeader);
  size = 8 + header.size() + end;
}

void SafetensorsLayout::write(AtomicFile& file) const {
  uint64_t n = header.size();
  file.write(std::as_bytes(std::span(&n, 1)));
  file.write(header);
  for (const TensorView& t : tensors) file.write(t.bytes);
}

void write_safetensors(const std::filesystem::path& path, std::vector<TensorView> tensors, const Metadata& metadata) {
  SafetensorsLayout layout(std::move(tensors), metadata);
  AtomicFile file(path, layout.size);
  layout.write(file);
  file.commit();
}

}  // namespace rapt::inline RAPT_ABI

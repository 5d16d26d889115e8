#include "values.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>

namespace rapt::inline RAPT_ABI {

namespace {

ValueLine summary(const Operation& o, const Tensor& x, int64_t result) {
  ValueLine line;
  line.pass = o.backward ? "backward" : "forward";
  line.operation = o.name;
  line.module = o.module ? *o.module : "";
  line.where = fmt::format("{}:{}", o.where.file, o.where.line);
  line.result = result;
  line.shape = to_string(x.shape);
  Tensor dense = contiguous(x);
  const Real* p = dense.data();
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a, a number at a time
  double sum = 0;
  bool nan = false;
  line.least = line.most = dense.numel() > 0 ? double(p[0]) : 0;
  for (int64_t i = 0; i < dense.numel(); ++i) {
    uint64_t bits = 0;
    std::memcpy(&bits, p + i, sizeof(Real));
    hash = (hash ^ bits) * 0x100000001b3;
    nan = nan || p[i] != p[i];
    line.least = std::min(line.least, double(p[i]));
    line.most = std::max(line.most, double(p[i]));
    sum += double(p[i]);
  }
  line.hash = hash;
  line.mean = dense.numel() > 0 ? sum / double(dense.numel()) : 0;
  if (nan) line.least = line.most = line.mean = std::numeric_limits<double>::quiet_NaN();
  return line;
}

template <class T>
T number(std::string_view text, const std::string& where, int base = 10) {
  T value{};
  const char* end = text.data() + text.size();
  std::from_chars_result r;
  if constexpr (std::is_floating_point_v<T>) {
    r = std::from_chars(text.data(), end, value);
  } else {
    r = std::from_chars(text.data(), end, value, base);
  }
  check<DataError>(r.ec == std::errc() && r.ptr == end, "{}: \"{}\" is no number", where, text);
  return value;
}

bool near(double a, double b, double tolerance) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return a == b || std::fabs(a - b) <= tolerance * (1 + std::fabs(a));
}

}  // namespace

void ValueLog::end(const Operation& o) {
  for (size_t i = 0; i < o.results.size(); ++i) {
    if (o.results[i]) sink_(summary(o, o.results[i], int64_t(i)));
  }
}

std::string to_text(const ValueLine& v) {
  return fmt::format("{}\t{}\t{}\t{}\t{}\t{}\t{:016x}\t{:.9g}\t{:.9g}\t{:.9g}", v.pass, v.operation, v.module, v.where,
                     v.result, v.shape, v.hash, v.least, v.most, v.mean);
}

std::vector<ValueLine> read_values(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  check<DataError>(bool(in), "{}: the file can't be read", path);
  std::string text;
  std::getline(in, text);
  check<DataError>(text == kValuesHeader, "{}: this is no file of values; --record-values makes one", path);
  std::vector<ValueLine> lines;
  for (int64_t n = 2; std::getline(in, text); ++n) {
    const std::string where = fmt::format("{}, line {}", path, n);
    std::vector<std::string> field(1);
    for (char c : text) {
      if (c == '\t') {
        field.emplace_back();
      } else {
        field.back().push_back(c);
      }
    }
    check<DataError>(field.size() == 10 && (field[0] == "forward" || field[0] == "backward"),
                     "{}: this is no line of values (the file may have been cut off)", where);
    lines.push_back({field[0], field[1], field[2], field[3], number<int64_t>(field[4], where), field[5],
                     number<uint64_t>(field[6], where, 16), number<double>(field[7], where),
                     number<double>(field[8], where), number<double>(field[9], where)});
  }
  check<DataError>(!lines.empty(), "{}: the file holds no values", path);
  return lines;
}

std::optional<size_t> first_difference(const std::vector<ValueLine>& a, const std::vector<ValueLine>& b,
                                       double tolerance) {
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const ValueLine &x = a[i], &y = b[i];
    bool same = x.pass == y.pass && x.operation == y.operation && x.module == y.module && x.result == y.result &&
                x.shape == y.shape;
    bool equal = tolerance > 0 ? near(x.least, y.least, tolerance) && near(x.most, y.most, tolerance) &&
                                     near(x.mean, y.mean, tolerance)
                               : x.hash == y.hash;
    if (!same || !equal) return i;
  }
  if (a.size() != b.size()) return std::min(a.size(), b.size());
  return {};
}

}  // namespace rapt::inline RAPT_ABI

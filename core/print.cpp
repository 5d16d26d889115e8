#include <algorithm>
#include <cmath>

#include "tensor.h"
#include "view.h"

namespace rapt::inline RAPT_ABI {

namespace {

constexpr int64_t kShown = 3;  // values at either end of a row, rows at either end of a matrix

std::string row_text(const Tensor& row) {
  std::string out = "[";
  int64_t n = row.shape[0];
  for (int64_t i = 0; i < n; ++i) {
    if (n > 2 * kShown && i == kShown) {
      out += ", …";
      i = n - kShown;
    }
    out += fmt::format("{}{:.4g}", i ? ", " : "", row.at({i}));
  }
  return out + "]";
}

std::string statistics(const Tensor& x) {
  int64_t nan = 0, inf = 0, finite = 0;
  double sum = 0, squares = 0, low = INFINITY, high = -INFINITY;
  for (Real v : x.to_vector()) {
    if (std::isnan(v)) {
      ++nan;
    } else if (std::isinf(v)) {
      ++inf;
    } else {
      ++finite;
      sum += v;
      squares += double(v) * v;
      low = std::min<double>(low, v);
      high = std::max<double>(high, v);
    }
  }
  std::string out;
  if (finite) {
    out = fmt::format("min {:.4g} max {:.4g} mean {:.4g} norm {:.4g}", low, high, sum / double(finite),
                      std::sqrt(squares));
  }
  if (nan) out += fmt::format("{}{} NaN", out.empty() ? "" : ", ", nan);
  if (inf) out += fmt::format("{}{} Inf", out.empty() ? "" : ", ", inf);
  return out;
}

}  // namespace

std::string to_string(const Tensor& x) {
  if (!x) return "Tensor()";
  if (x.rank() == 0) return fmt::format("Tensor({:.6g})", x.item());
  std::string out = fmt::format("Tensor{}", x.shape);
  if (x.numel() == 0) return out;
  out += fmt::format(" {}\n", statistics(x));
  // the first matrix of a stack stands for the rest
  Tensor m = x.detach();
  while (m.rank() > 2) m = view::select(m, 0, 0);
  if (m.rank() == 1) return out + row_text(m);
  int64_t rows = m.shape[0];
  for (int64_t i = 0; i < rows; ++i) {
    if (rows > 2 * kShown && i == kShown) {
      out += "\n …";
      i = rows - kShown;
    }
    out += i ? "\n " : "[";
    out += row_text(view::select(m, 0, i));
  }
  return out + (x.rank() > 2 ? "] …" : "]");
}

}  // namespace rapt::inline RAPT_ABI

fmt::appender fmt::formatter<rapt::Tensor>::format(const rapt::Tensor& tensor, fmt::format_context& ctx) const {
  std::string text = rapt::to_string(tensor);
  return std::copy(text.begin(), text.end(), ctx.out());
}

#include "debugger.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "../core/kernels/reduce.h"
#include "../core/random.h"
#include "node.h"

// gdb reads this section of a program and, if the program is in a folder it trusts (add-auto-load-safe-path), runs the
// text: it loads the script from where it was built or installed.
#if defined(__ELF__) && defined(RAPT_GDB_SCRIPTS)
asm(".pushsection \".debug_gdb_scripts\", \"MS\",%progbits,1\n"
    ".byte 4\n"
    ".ascii \"rapt-loader\\n\"\n"
    ".ascii \"import os, gdb\\n\"\n"
    ".ascii \"for path in '" RAPT_GDB_SCRIPTS
    "'.split(':'):\\n\"\n"
    ".ascii \"  if os.path.exists(path):\\n\"\n"
    ".ascii \"    gdb.execute('source ' + path)\\n\"\n"
    ".ascii \"    break\\n\"\n"
    ".byte 0\n"
    ".popsection\n");
#endif

namespace rapt::inline RAPT_ABI {

bool detail::keep_values = std::getenv("RAPT_KEEP_VALUES") != nullptr;

void detail::keep(Node& node, std::vector<Tensor> inputs, const Tensor& result) {
  node.kept = std::move(inputs);
  node.kept.push_back(result.detach());
}

[[gnu::noinline]] void detail::node_has_run([[maybe_unused]] const Node& node,
                                            [[maybe_unused]] const std::vector<Tensor>& dx) {
  asm volatile("" : : "r"(&node), "r"(&dx) : "memory");
}

namespace {

constexpr double kStep = sizeof(Real) == 8 ? 1e-4 : 1e-2;       // of the differences, in units of the input's own size
constexpr double kTolerance = sizeof(Real) == 8 ? 1e-7 : 2e-3;  // relative

double dot(const std::vector<Real>& a, const std::vector<Real>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += double(a[i]) * double(b[i]);
  return sum;
}
double norm(const std::vector<Real>& a) { return std::sqrt(dot(a, a)); }

// Normal numbers, without touching the program's generator.
std::vector<Real> directions(int64_t count, uint64_t stream) {
  std::vector<Real> u(static_cast<size_t>(count));
  Random random{1, stream};
  for (int64_t i = 0; i < count; ++i) u[size_t(i)] = Real(random.normal(uint64_t(i)));
  return u;
}

struct NodeCheck {
  const Node& node;
  std::vector<Tensor> inputs;
  std::vector<Real> cotangent;

  // <c, f(inputs)> where input `i` has moved by t · u
  double at(size_t i, const std::vector<Real>& u, double t) const {
    std::vector<Tensor> x = inputs;
    x[i] = clone(inputs[i]);
    Real* p = x[i].mutable_data();
    for (size_t j = 0; j < u.size(); ++j) p[j] += Real(t) * u[j];
    Tensor y;
    node.repeat(x, y);
    return dot(y.to_vector(), cotangent);
  }

  std::string input(size_t i, const Tensor& dx) const {
    std::vector<Real> x = inputs[i].to_vector(), g = dx.to_vector(), u = directions(int64_t(x.size()), 2 + i);
    double rms = norm(x) / std::sqrt(double(std::max<size_t>(x.size(), 1)));
    double size = rms > 0 ? std::min(rms, 1.0) : 1;
    for (Real& v : u) v = Real(v * size);
    double near = (at(i, u, kStep) - at(i, u, -kStep)) / (2 * kStep);
    double far = (at(i, u, 2 * kStep) - at(i, u, -2 * kStep)) / (4 * kStep);
    double numeric = (4 * near - far) / 3, analytic = dot(g, u);
    double typical = norm(g) * norm(u) / std::sqrt(double(std::max<size_t>(g.size(), 1)));
    double scale = std::max({std::abs(analytic), std::abs(numeric), typical, 1e-30});
    double error = std::abs(analytic - numeric) / scale, unsure = std::abs(near - far) / scale;
    const char* verdict = !(error <= kTolerance) ? "WRONG" : "ok";
    if (error > kTolerance && error <= unsure) verdict = "can't tell: not smooth on the scale of the differences";
    if (!std::isfinite(numeric)) verdict = "can't tell: not finite on the scale of the differences";
    return fmt::format("\n  input {} {}: analytic {:.6g}, numeric {:.6g}: {}", i, inputs[i].shape, analytic, numeric,
                       verdict);
  }
};

std::string checked(const Node& node) {
  std::string text = node.describe();
  if (node.is_leaf()) return text + ": is a leaf: it has no backward to check";
  if (node.released) return text + ": was differentiated already, and what it saved is freed";
  if (node.kept.empty()) return text + ": its inputs were not kept";
  NoGrad no_grad;
  NodeCheck check{node, node.kept, {}};
  check.inputs.pop_back();
  for (size_t i = 0; i < check.inputs.size(); ++i) {
    if (check.inputs[i] && !all_finite(check.inputs[i]))
      return fmt::format("{}: its input {} holds numbers that are not finite: nothing to compare", text, i);
  }
  Tensor y;
  std::shared_ptr<Node> again = node.repeat(check.inputs, y);
  if (!again) return fmt::format("{}: {} can't be run a second time, so not checked", text, node.name());
  if (!same_bits(y, node.kept.back()))
    return text + ": gives another result the second time (were its inputs changed in place?), so not checked";
  check.cotangent = directions(y.numel(), 1);
  std::vector<Tensor> dx = again->backward(from_values(y.shape, check.cotangent));
  text += ": its backward against differences, along random directions";
  for (size_t i = 0; i < dx.size() && i < check.inputs.size(); ++i) {
    if (!node.inputs[i] || !dx[i]) continue;
    Tensor g = dx[i].detach();
    const Shape& shape = check.inputs[i].shape;
    text += check.input(i, g.shape == shape ? g : kernels::sum_to(g, shape));
  }
  return text;
}

}  // namespace

[[gnu::used]] const char* detail::check_node(const Node* node) {
  static std::string text;
  try {
    text = checked(*node);
  } catch (const std::exception& error) {
    text = fmt::format("{}: running it a second time failed: {}", node->describe(), error.what());
  }
  return text.c_str();
}

}  // namespace rapt::inline RAPT_ABI

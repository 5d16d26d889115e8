// Kernel smoothing is attention: a curve through noisy points as a weighted mean of them (Nadaraya 1964, Watson 1964).
// Queries are where the curve is wanted, keys where the points are, values what was measured. The bandwidth is learned:
// each point is predicted from all others.
#include <rapt/rapt.h>

#include <cmath>
#include <fstream>
using namespace rapt;

constexpr int64_t kPoints = 120, kColumns = 76, kLines = 21;
constexpr double kNoise = 0.25, kLow = -1.5, kHigh = 1.5;

Tensor curve(const Tensor& x) {
  Tensor y = empty(x.shape);
  for (int64_t i = 0; i < x.numel(); ++i) y.set({i}, Real(std::sin(1.2 * x.at({i})) * std::exp(-0.1 * x.at({i}))));
  return y;
}

// Σ_j K(x − x_j) y_j / Σ_j K(x − x_j), K(d) = exp(−d² / 2h²), for x (N), points (M), y (M), h (1)
Tensor smooth(const Tensor& x, const Tensor& points, const Tensor& y, const Tensor& h, const Mask& mask = {}) {
  auto heads = [](const Tensor& t) { return reshape(t, {1, 1, t.numel(), 1}); };
  auto squares = [](const Tensor& t) { return reshape(t * t, {1, 1, t.numel()}); };
  AttentionOptions options{.mask = mask, .score = gaussian_kernel(squares(x), squares(points), h), .scale = 1};
  return reshape(attention(heads(x), heads(points), heads(y), options), {x.numel()});
}

Tensor mean_square(const Tensor& x) { return mean(x * x); }

int main(int argc, char** argv) {
  manual_seed(8);
  Tensor points = uniform({kPoints}, 0, 10), y = curve(points) + normal({kPoints}, 0, Real(kNoise));
  const Mask others = mask_of([](At at) { return at.key != at.query; });
  auto leave_one_out = [&](const Tensor& h) { return mean_square(smooth(points, points, y, h, others) - y); };

  Tensor log_h = requires_grad(full({1}, Real(std::log(2.0))));  // the logarithm keeps h above 0
  AdamW optimizer({{"log_h", log_h}}, {.learning_rate = 0.05});
  for (int step = 0; step < 200; ++step) {
    Tensor loss = leave_one_out(exp(log_h));
    backward(loss);
    optimizer.step();
    optimizer.zero_gradients();
  }

  const Tensor h = exp(log_h.detach());
  Tensor x = arange(kColumns) * (10.0 / (kColumns - 1)), fit = smooth(x, points, y, h);
  std::vector<std::string> picture(kLines, std::string(kColumns, ' '));
  auto plot = [&](Real at, Real value, char mark) {
    auto line = std::lround((kHigh - double(value)) / (kHigh - kLow) * (kLines - 1));
    auto column = std::lround(double(at) / 10 * (kColumns - 1));
    if (line >= 0 && line < kLines) picture[size_t(line)][size_t(column)] = mark;
  };
  for (int64_t j = 0; j < kPoints; ++j) plot(points.at({j}), y.at({j}), '.');
  for (int64_t i = 0; i < kColumns; ++i) plot(x.at({i}), fit.at({i}), '#');
  for (const std::string& line : picture) fmt::print("{}\n", line);

  const double error = std::sqrt(double(mean_square(fit - curve(x)).item())), best = double(leave_one_out(h).item());
  const double narrow = double(leave_one_out(h * 0.7).item()), wide = double(leave_one_out(h * 1.4).item());
  fmt::print("{} points with noise {}; learned bandwidth {:.3f}; the curve is off by {:.3f}\n", kPoints, kNoise,
             h.item(), error);
  fmt::print("leave-one-out error {:.4f}, with 0.7 of that bandwidth {:.4f}, with 1.4 of it {:.4f}\n", best, narrow,
             wide);

  if (argc > 1) {
    std::ofstream svg(argv[1]);
    auto at = [](Real a, Real b) { return fmt::format("{:.1f},{:.1f}", 70 * double(a), 100 * (kHigh - double(b))); };
    svg << "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 700 300'><g fill='#999'>\n";
    for (int64_t j = 0; j < kPoints; ++j)
      svg << fmt::format("<circle r='3' cx='{:.1f}' cy='{:.1f}'/>\n", 70 * points.at({j}), 100 * (kHigh - y.at({j})));
    svg << "</g><polyline fill='none' stroke='#c30' stroke-width='2' points='";
    for (int64_t i = 0; i < kColumns; ++i) svg << at(x.at({i}), fit.at({i})) << ' ';
    svg << "'/></svg>\n";
  }
  return error < kNoise / 2 && best < narrow && best < wide ? 0 : 1;
}

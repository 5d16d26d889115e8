// A network learns which arm of a spiral a point is on, and draws what it has learned. With a file name it also writes
// a picture (PPM).
#include <rapt/rapt.h>

#include <cmath>
#include <fstream>
#include <numbers>
using namespace rapt;

constexpr int64_t kPoints = 300;

// n points (n, 2) on two arms, and which arm each is on (n)
std::pair<Tensor, Tensor> spiral(int64_t n) {
  Tensor points = empty({n, 2}), arms = empty({n}), noise = normal({n, 2}, 0, Real(0.03));
  for (int64_t i = 0; i < n; ++i) {
    const double t = 0.1 + 0.9 * double(i) / double(n), arm = double(i % 2);
    const double angle = 3 * std::numbers::pi * t + std::numbers::pi * arm;
    points.set({i, 0}, Real(t * std::cos(angle)) + noise.at({i, 0}));
    points.set({i, 1}, Real(t * std::sin(angle)) + noise.at({i, 1}));
    arms.set({i}, Real(arm));
  }
  return {points, arms};
}

int main(int argc, char** argv) {
  manual_seed(4);
  auto [points, arms] = spiral(kPoints);
  auto activation = [](const Tensor& x) { return tanh(x); };
  Sequential net;
  net.add<Linear>("in", 2, 48).add(activation).add<Linear>("hidden", 48, 48).add(activation).add<Linear>("out", 48, 1);
  fmt::print("{}\n\n", to_string(net));

  AdamW optimizer(net.parameters(), {.learning_rate = 1e-2, .weight_decay = 0});
  for (int step = 1; step <= 500; ++step) {
    Tensor score = squeeze(net(points), 1);
    Tensor loss = mean(softplus(score) - arms * score);  // −log of the probability σ(±score)
    backward(loss);
    optimizer.step();
    optimizer.zero_gradients();
    if (step % 100 == 0) fmt::print("step {}: loss {:.4f}\n", step, loss.item());
  }

  EvalMode eval;
  auto right = [&](const Tensor& x, const Tensor& which) {
    Tensor score = squeeze(net(x), 1);
    int64_t n = 0;
    for (int64_t i = 0; i < x.shape[0]; ++i) n += (score.at({i}) > 0) == (which.at({i}) > 0);
    return double(n) / double(x.shape[0]);
  };
  auto [fresh, fresh_arms] = spiral(1000);
  const double learned = right(points, arms), general = right(fresh, fresh_arms);

  // the score at the middle of each cell of a grid over [−1.1, 1.1]²
  auto grid = [&](int64_t rows, int64_t columns) {
    Tensor places = empty({rows * columns, 2});
    for (int64_t i = 0; i < rows * columns; ++i) {
      places.set({i, 0}, Real(2.2 * (double(i % columns) + 0.5) / double(columns) - 1.1));
      places.set({i, 1}, Real(1.1 - 2.2 * (double(i / columns) + 0.5) / double(rows)));
    }
    return reshape(net(places), {rows, columns});
  };
  constexpr int64_t kRows = 24, kColumns = 56;
  Tensor picture = grid(kRows, kColumns);
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t c = 0; c < kColumns; ++c) fmt::print("{}", picture.at({r, c}) > 0 ? '#' : '.');
    fmt::print("\n");
  }
  if (argc > 1) {
    std::ofstream ppm(argv[1], std::ios::binary);
    Tensor pixels = sigmoid(grid(300, 300));
    ppm << "P6\n300 300\n255\n";
    for (Real p : pixels.to_vector()) ppm << char(255 * p) << char(120) << char(255 * (1 - p));
  }
  fmt::print("right: {:.1f} % of the points it saw, {:.1f} % of new ones\n", 100 * learned, 100 * general);
  return learned > 0.99 && general > 0.97 ? 0 : 1;
}

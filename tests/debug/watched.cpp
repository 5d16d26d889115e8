// What the tests of the debuggers look at. Numbers are small, so that their texts are the same on every machine.
#include <rapt/rapt.h>

#include <cstdio>
#include <limits>

using namespace rapt;

namespace {

// Numbers 0.25, 0.5, …: nothing random.
Tensor stairs(const Shape& shape) {
  Tensor x = empty(shape);
  for (int64_t i = 0; i < x.numel(); ++i) x.mutable_data()[i] = Real(0.25 * double(i % 7 + 1) * (i % 2 ? -1 : 1));
  return x;
}

void set(const Tensor& parameter) {
  Tensor target = parameter;
  copy_into(target, stairs(target.shape));
}

struct Head : Module {
  Linear up;
  Tensor slope;
  Head(int64_t in, int64_t out) : up(child<Linear>("up", in, out)), slope(param("slope", ones({out}))) {
    set(up.weight);
    set(up.bias);
  }
  Tensor operator()(const Tensor& x) const {
    Scope scope(path());
    Tensor scores = up(x) * slope;
    return softmax(scores);
  }
};

struct Net : Module {
  Head head;
  Net() : head(child<Head>("head", 4, 3)) {}
  Tensor operator()(const Tensor& x) const {
    Scope scope(path());
    Tensor y = head(x);
    return exp(y * 2);
  }
};

// An operation with a wrong backward.
struct Crooked {
  static constexpr auto name = "crooked";
  Saved x;
  Tensor forward(std::span<const Tensor> in) {
    x = Saved(in[0]);
    return in[0] * in[0];
  }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const { return {dy * x.get() * 1.9}; }
};

[[gnu::noinline]] void look_here() { std::fflush(stdout); }
[[gnu::noinline]] void start_here() { std::fflush(stdout); }

}  // namespace

int main() {
  start_here();
  const Real nan = std::numeric_limits<Real>::quiet_NaN(), inf = std::numeric_limits<Real>::infinity();
  Net net;
  Tensor nothing;
  Tensor one = scalar(2.5);
  Tensor row = arange(5);
  Tensor cube = from_values({2, 3, 4}, arange(24).to_vector());
  Tensor turned = view::transpose(cube, 0, 2);
  Tensor wide = from_values({20, 30}, arange(600).to_vector());
  Tensor broken = from_values({4}, {1, nan, inf, 3});
  [[maybe_unused]] Shape shape = {5, 6, 7};
  std::vector<Tensor> several = {one, row};
  Tensor table = stairs({1, 3});
  AttentionOptions options = {.mask = causal() & (window(2) | !global(1)),
                              .score = softcap(30) | relative_bias(table),
                              .normalizer = softmax_with_sink(zeros({1})),
                              .dropout = 0.25};
  AttentionOptions plain;
  HookHandle handle, expired;
  expired = add_hook(requires_grad(ones({2})), [](const Tensor& g) { return g; });

  Tensor x = stairs({2, 4});
  for (int step = 1; step <= 3; ++step) {
    Tensor y = net(step < 3 ? x : x * 1e38 * 1e300);
    Tensor q = reshape(net.head.up(x), {1, 1, 2, 3});
    Tensor attended = attention(q, q, q, options);
    Tensor loss = mean(y * y) + sum(attended) * 0 + sum(record(Crooked{}, {net.head.slope}));
    if (step == 1) handle = add_hook(y, [](const Tensor& g) { return g; });
    look_here();
    backward(loss);
    look_here();  // now y's node has been released
    x.set({1, 2}, x.at({1, 2}) * 2);
    net.zero_gradients();
  }
  return 0;
}

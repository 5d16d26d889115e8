// Prints a Markdown table of attention variants: time, memory, and whether threads change a bit.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <ctime>
#include <functional>
#include <string>
#include <thread>

#include "../autograd/ops.h"
#include "../core/parallel.h"
#include "../core/random.h"

namespace rapt {
namespace {

/// One call at length N: leaves, and what makes the output of them.
struct Call {
  std::vector<Tensor> inputs;  // q, k, v and captured tensors
  Tensor dy;
  std::function<Tensor()> run;
};

struct Variant {
  std::string name;
  std::function<Tensor(const std::vector<Tensor>&, int64_t)> run;  // of q, k, v, tables
  std::function<std::vector<Tensor>(int64_t)> tables = [](int64_t) { return std::vector<Tensor>{}; };
  int64_t heads = 1;
};

constexpr int64_t kDim = 64;

Call make_call(const Variant& variant, int64_t n) {
  manual_seed(1);
  Call c;
  const Shape shape{1, variant.heads, n, kDim};
  for (int i = 0; i < 3; ++i) c.inputs.push_back(normal(shape));
  for (const Tensor& t : variant.tables(n)) c.inputs.push_back(t);
  for (Tensor& x : c.inputs) x = requires_grad(x);
  c.dy = normal(shape);
  c.run = [inputs = c.inputs, n, f = variant.run] { return f(inputs, n); };
  return c;
}

void forward_and_backward(Call& c) {
  backward(c.run(), c.dy);
  for (const Tensor& x : c.inputs) set_gradient(x, {});
}

bool processor_time = false;

// By the clock, or of the processor: std::clock adds up all threads, and stands still while others have the cores.
double seconds_now() {
  if (processor_time) return double(std::clock()) / CLOCKS_PER_SEC;
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double seconds_of(const std::function<void()>& f) {
  const double begin = seconds_now();
  f();
  return seconds_now() - begin;
}

// The best of at most three, one if it takes long.
double best_time(const std::function<void()>& f) {
  double best = seconds_of(f);
  for (int n = 1; n < 3 && best < 1; ++n) best = std::min(best, seconds_of(f));
  return best;
}

struct Result {
  double forward = 0, both = 0;  // seconds
  double megabytes = 0;          // besides inputs and dy, at most, forward and backward
};

Result measure(const Variant& variant, int64_t n) {
  Result r;
  auto work = [&] {
    Call c = make_call(variant, n);
    const int64_t inputs = memory_stats().in_use;
    reset_peak_memory();
    const double first = seconds_of([&] { forward_and_backward(c); });  // also finds the memory for the next ones
    r.megabytes = double(memory_stats().peak - inputs) / (1 << 20);
    r.both = first > 10 ? first : best_time([&] { forward_and_backward(c); });
    r.forward = best_time([&] {
      NoGrad no_grad;
      c.run();
    });
  };
  // Threads keep the memory of their tiles. New ones begin without, so that each variant is charged for its own.
  std::thread(work).join();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  release_cached_memory();
  return r;
}

std::vector<std::vector<Real>> numbers(const Variant& variant, int64_t n, int thread_count) {
  set_threads(thread_count);
  Call c = make_call(variant, n);
  Tensor y = c.run();
  backward(y, c.dy);
  std::vector<std::vector<Real>> all{y.to_vector()};
  for (const Tensor& x : c.inputs) all.push_back(gradient(x) ? gradient(x).to_vector() : std::vector<Real>{});
  return all;
}

bool same_bits(const Variant& variant, int64_t n) {
  const int before = threads();
  auto one = numbers(variant, n, 1);
  bool same = true;
  for (int t : {2, 3}) {
    auto other = numbers(variant, n, t);
    for (size_t i = 0; i < one.size(); ++i)
      same = same && std::memcmp(one[i].data(), other[i].data(), one[i].size() * sizeof(Real)) == 0;
  }
  set_threads(before);
  return same;
}

using Inputs = const std::vector<Tensor>&;

template <class F>
Variant with_options(const std::string& name, F options, std::function<std::vector<Tensor>(int64_t)> tables = {},
                     int64_t heads = 1) {
  Variant v;
  v.name = name;
  v.heads = heads;
  if (tables) v.tables = std::move(tables);
  v.run = [options](Inputs x, int64_t n) { return attention(x[0], x[1], x[2], options(x, n)); };
  return v;
}

template <class F>
Variant scored(const std::string& name, F score, std::function<std::vector<Tensor>(int64_t)> tables = {}) {
  return with_options(
      name, [score](Inputs x, int64_t n) { return AttentionOptions{.mask = causal(), .score = score(x, n)}; },
      std::move(tables));
}

template <class F>
Variant normalized(const std::string& name, F normalizer, std::function<std::vector<Tensor>(int64_t)> tables = {},
                   int64_t heads = 1) {
  return with_options(
      name,
      [normalizer](Inputs x, int64_t n) { return AttentionOptions{.mask = causal(), .normalizer = normalizer(x, n)}; },
      std::move(tables), heads);
}

Tensor unit(const Tensor& x) { return x / sqrt(sum(x * x, {-1}, true) + 1e-6); }
Tensor feature(const Tensor& x) { return relu(x) + exp(-relu(-x)); }  // elu + 1

std::function<std::vector<Tensor>(int64_t)> fixed(const Shape& shape, Real value) {
  return [shape, value](int64_t) { return std::vector<Tensor>{full(shape, value)}; };
}

std::vector<Variant> all_variants() {
  std::vector<Variant> all;
  all.push_back(with_options("plain, causal", [](Inputs, int64_t) { return AttentionOptions{.mask = causal()}; }));
  all.push_back(
      with_options("window 256", [](Inputs, int64_t) { return AttentionOptions{.mask = causal() & window(255)}; }));
  all.push_back(with_options("16 documents", [](Inputs, int64_t n) {
    std::vector<int32_t> ids;
    for (int64_t j = 0; j < n; ++j) ids.push_back(int32_t(j * 16 / n));
    return AttentionOptions{.mask = causal() & document(Tokens({1, n}, std::move(ids)))};
  }));
  auto masked = [&](const std::string& name, auto mask) {
    all.push_back(with_options(name, [mask](Inputs, int64_t n) { return AttentionOptions{.mask = mask(n)}; }));
  };
  masked("prefix 256", [](int64_t) { return prefix(256); });
  masked("chunked 256", [](int64_t) { return causal() & chunked(256); });
  masked("dilated 2, window 255", [](int64_t) { return causal() & (dilated(2) | window(255)); });
  masked("block list, own and first", [](int64_t n) {
    const int64_t blocks = (n + 63) / 64;
    std::vector<int32_t> listed(size_t(blocks * blocks), 0);
    for (int64_t q = 0; q < blocks; ++q) listed[size_t(q * blocks)] = listed[size_t(q * blocks + q)] = 1;
    return causal() & block_list(Tokens({blocks, blocks}, std::move(listed)), 64);
  });
  masked("padding, a quarter", [](int64_t n) {
    std::vector<int32_t> pad(size_t(n), 0);
    std::fill_n(pad.begin(), n / 4, 1);
    return causal() & key_padding(Tokens({1, n}, std::move(pad)));
  });
  all.push_back(scored("softcap", [](Inputs, int64_t) { return softcap(30); }));
  all.push_back(scored(
      "ALiBi, learned", [](Inputs x, int64_t) { return alibi(x[3]); }, fixed({1}, Real(0.01))));
  all.push_back(scored(
      "T5", [](Inputs x, int64_t) { return t5_bias(x[3], 128, false); }, fixed({1, 32}, Real(0.1))));
  all.push_back(scored(
      "bias per distance", [](Inputs x, int64_t) { return relative_bias(x[3]); },
      [](int64_t n) {
        return std::vector<Tensor>{normal({1, 2 * n - 1})};
      }));
  all.push_back(scored(
      "temperature", [](Inputs x, int64_t) { return temperature(x[3]); }, fixed({1}, 1)));
  all.push_back(scored(
      "bias per pair", [](Inputs x, int64_t) { return bias(x[3]); },
      [](int64_t n) {
        return std::vector<Tensor>{normal({n, n})};
      }));
  all.push_back(scored(
      "forget gate", [](Inputs x, int64_t) { return forget_gates(x[3]); },
      [](int64_t n) {
        return std::vector<Tensor>{uniform({1, 1, n}, Real(-0.1), 0)};
      }));
  all.push_back(scored(
      "bias per key", [](Inputs x, int64_t) { return bias(x[3]); },
      [](int64_t n) {
        return std::vector<Tensor>{normal({1, 1, 1, n})};
      }));
  all.push_back(scored(
      "lambda, one table",
      [](Inputs x, int64_t) {
        return score_modifier([](auto s, At at, auto t) { return s * (1 + Real(0.1) * tanh(t[at.key])); }, x[3]);
      },
      [](int64_t n) { return std::vector<Tensor>{normal({n})}; }));
  auto bandwidth = fixed({1}, Real(8));
  all.push_back(with_options(
      "Gaussian kernel",
      [](Inputs x, int64_t) {
        return AttentionOptions{
            .mask = causal(), .score = gaussian_kernel(squared_norm(x[0]), squared_norm(x[1]), x[3]), .scale = 1};
      },
      bandwidth));
  all.push_back(with_options(
      "Laplace kernel",
      [](Inputs x, int64_t) {
        return AttentionOptions{
            .mask = causal(), .score = laplace_kernel(squared_norm(x[0]), squared_norm(x[1]), x[3]), .scale = 1};
      },
      bandwidth));
  all.push_back(with_options(
      "Epanechnikov kernel",
      [](Inputs x, int64_t) {
        return AttentionOptions{.mask = causal(),
                                .score = epanechnikov_kernel(squared_norm(x[0]), squared_norm(x[1]), x[3]),
                                .normalizer = relu_ratio(1),
                                .scale = 1};
      },
      fixed({1}, Real(12))));
  all.push_back(normalized(
      "sink", [](Inputs x, int64_t) { return softmax_with_sink(x[3]); }, fixed({1}, 0)));
  all.push_back(normalized("plus one", [](Inputs, int64_t) { return softmax_plus_one(1); }));
  all.push_back(normalized("sigmoid", [](Inputs, int64_t) { return sigmoid_weights(); }));
  all.push_back(normalized("signed softmax", [](Inputs, int64_t) { return signed_softmax(); }));
  all.push_back(normalized("relu²", [](Inputs, int64_t) { return relu_weights(2); }));
  all.push_back(with_options("dropout 0.1", [](Inputs, int64_t) {
    return AttentionOptions{.mask = causal(), .dropout_state = WeightDropout{0.1, 7, 0}};
  }));
  all.push_back(with_options(
      "Transformer-XL",
      [](Inputs x, int64_t) {
        return AttentionOptions{.mask = causal(), .relative_queries = x[3], .relative_keys = x[4]};
      },
      [](int64_t n) {
        return std::vector<Tensor>{normal({1, 1, n, kDim}), normal({1, 2 * n - 1, kDim})};
      }));
  all.push_back(with_options(
      "Shaw, reach 16",
      [](Inputs x, int64_t) {
        Score keys = score_modifier(
            [](auto s, At at, auto t) {
              return s + t(at.batch, at.head, at.row, std::clamp<int64_t>(at.key - at.query, -16, 16) + 16);
            },
            matmul(x[0] * 0.125, transpose(x[3], 0, 1)));
        return AttentionOptions{.mask = causal(), .score = keys, .relative_values = x[4]};
      },
      [](int64_t) {
        return std::vector<Tensor>{normal({33, kDim}), normal({33, kDim})};
      }));
  all.push_back(normalized("inverted", [](Inputs, int64_t) { return inverted_softmax(); }));
  all.push_back(normalized("top-k 32", [](Inputs, int64_t) { return top_k(32); }));
  all.push_back(normalized("hard", [](Inputs, int64_t) { return hard_attention(); }));
  all.push_back(normalized("entmax 1.5", [](Inputs, int64_t) { return entmax(1.5); }));
  all.push_back(with_options("stick-breaking", [](Inputs, int64_t) {
    return AttentionOptions{.mask = strictly_causal(), .normalizer = stick_breaking()};
  }));
  all.push_back(normalized(
      "contextual positions", [](Inputs x, int64_t) { return contextual_positions(matmul(x[0], x[3])); },
      fixed({kDim, 64}, Real(0.01))));
  all.push_back(normalized(
      "talking heads (2 heads)", [](Inputs x, int64_t) { return talking_heads(x[3], x[4]); },
      [](int64_t) {
        return std::vector<Tensor>{eye(2), eye(2)};
      },
      2));
  Variant linear{"linear", [](Inputs x, int64_t) {
                   return linear_attention(feature(x[0]), feature(x[1]), x[2], {.normalize = true});
                 }};
  Variant retention{"retention", [](Inputs x, int64_t) {
                      return decay_attention(x[0], x[1], x[2], full({1, 1}, Real(-0.03)));
                    }};
  auto per_position = [](Real low, Real high) {
    return [low, high](int64_t n) { return std::vector<Tensor>{uniform({1, 1, n}, low, high)}; };
  };
  Variant delta{"delta rule", [](Inputs x, int64_t) { return delta_rule(x[0], unit(x[1]), x[2], x[3]); },
                per_position(Real(0.1), Real(0.9))};
  Variant gated{
      "gated delta rule", [](Inputs x, int64_t) { return delta_rule(x[0], unit(x[1]), x[2], x[3], x[4]); },
      [](int64_t n) {
        return std::vector<Tensor>{uniform({1, 1, n}, Real(0.1), Real(0.9)), uniform({1, 1, n}, Real(-0.1), 0)};
      }};
  for (const Variant& v : {linear, retention, delta, gated}) all.push_back(v);
  return all;
}

int usage() {
  fmt::print(
      "usage: attention_table [N …] [--only NAME] [--seconds S] [--processor]\n"
      "  N            lengths, 4096 16384 without\n"
      "  --only       variants whose name contains NAME\n"
      "  --seconds    a variant that will take longer at a length, forward and backward, is left out; 60\n"
      "  --processor  processor time of all threads and not the clock's, for machines that do other work\n");
  return 2;
}

}  // namespace

int table(int argc, char** argv) {
  std::vector<int64_t> lengths;
  std::string only;
  double limit = 60;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool more = i + 1 < argc;
    if (word == "--only" && more)
      only = argv[++i];
    else if (word == "--seconds" && more)
      limit = std::strtod(argv[++i], nullptr);
    else if (word == "--processor")
      processor_time = true;
    else if (const int64_t n = std::strtoll(word.c_str(), nullptr, 10); n > 0)
      lengths.push_back(n);
    else
      return usage();
  }
  if (lengths.empty()) lengths = {4096, 16384};
  std::ranges::sort(lengths);

  fmt::print("{} threads; one head of width {}; {} forward / forward and backward / MB\n\n", threads(), kDim,
             processor_time ? "processor ms" : "ms");
  std::string head = "| variant |", rule = "|---|";
  for (int64_t n : lengths) {
    head += fmt::format(" N = {} |", n);
    rule += "---:|";
  }
  fmt::print("{} same bits |\n{}---|\n", head, rule);
  for (const Variant& v : all_variants()) {
    if (v.name.find(only) == v.name.npos) continue;
    std::string row = fmt::format("| {} |", v.name);
    // What comes is told from two lengths before it, the first two much shorter.
    int64_t n1 = 512, n2 = 1024;
    double t1 = measure(v, n1).both, t2 = measure(v, n2).both;
    for (int64_t n : lengths) {
      const double power = std::clamp(std::log(t2 / t1) / std::log(double(n2) / double(n1)), 1.0, 2.0);
      if (t2 * std::pow(double(n) / double(n2), power) > limit) {
        row += " – |";
        continue;
      }
      const Result r = measure(v, n);
      row += fmt::format(" {:.0f} / {:.0f} / {:.1f} |", r.forward * 1e3, r.both * 1e3, r.megabytes);
      if (n > n2) n1 = n2, t1 = t2, n2 = n, t2 = r.both;
    }
    fmt::print("{} {} |\n", row, same_bits(v, 1000) ? "yes" : "NO");
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace rapt

int main(int argc, char** argv) { return rapt::table(argc, argv); }

#include "work.h"

#include <chrono>
#include <cstdlib>

#include "../core/parallel.h"
#include "../core/random.h"
#include "../nn/gpt.h"
#include "../optim/adamw.h"
#include "../optim/clip.h"

namespace rapt {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

Tokens random_tokens(int64_t batch, int64_t length, int64_t vocabulary, uint64_t seed) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < batch * length; ++i) ids.push_back(int32_t(Random{seed, 0}.below(vocabulary, uint64_t(i))));
  return Tokens({batch, length}, ids);
}

GptConfig gpt2(int64_t layers, int64_t heads, int64_t dim, int64_t context, int64_t vocabulary) {
  return {.vocabulary = vocabulary, .context = context, .layers = layers, .heads = heads, .dim = dim};
}

Work step(const std::vector<int64_t>& a) {
  const int64_t batch = a[4];
  GptConfig config = gpt2(a[0], a[1], a[2], a[3], a[5]);
  auto gpt = std::make_shared<Gpt>(config);
  auto optimizer = std::make_shared<AdamW>(gpt->parameters(),
                                           AdamWConfig{.learning_rate = 1e-3, .beta2 = 0.99, .weight_decay = 0.1});
  Tokens x = random_tokens(batch, config.context, config.vocabulary, 1);
  Tokens y = random_tokens(batch, config.context, config.vocabulary, 2);
  Work w;
  // As nanoGPT counts: 6 for each weight in a product, 12 L E T for attention, for every token.
  double weights = double(gpt->parameter_count()) - double(config.context * config.dim);
  w.operations = double(batch * config.context) *
                 (6 * weights + 12 * double(config.layers) * double(config.dim) * double(config.context));
  w.repeat = [=](Times& times) {
    double begin = now();
    backward(gpt->loss(x, y));
    clip_gradient_norm(gpt->parameters(), 1);
    optimizer->step();
    optimizer->zero_gradients();
    times["step"].push_back(now() - begin);
  };
  return w;
}

Work attention_work(const std::vector<int64_t>& a, const std::string& variant) {
  const int64_t B = a[0], H = a[1], T = a[2], D = a[3];
  AttentionOptions options;
  options.mask = causal();
  Tensor table;
  if (variant == "alibi") {
    options.score = alibi(table = requires_grad(from_values({H}, std::vector<Real>(size_t(H), Real(0.1)))));
  } else if (variant == "t5") {
    options.score = t5_bias(table = requires_grad(zeros({H, 32})), 128, false);
  } else if (variant == "softcap") {
    options.score = softcap(30);
  } else if (variant == "dropout") {
    options.dropout = 0.1;
  } else if (variant == "window") {
    options.mask = causal() & window(256);
  } else {
    check<UsageError>(variant == "plain", "no variant '{}'; there are plain, alibi, t5, softcap, dropout, window",
                      variant);
  }
  Tensor q = requires_grad(normal({B, H, T, D})), k = requires_grad(normal({B, H, T, D})),
         v = requires_grad(normal({B, H, T, D})), dy = normal({B, H, T, D});
  Work w;
  w.operations = 3.5 * 2.0 * double(B * H * T * T * D);  // half of 4 B H T² D forward, 2.5 times that backward
  w.repeat = [=](Times& times) {
    double t0 = now();
    Tensor y = attention(q, k, v, options);
    double t1 = now();
    backward(y, dy);
    double t2 = now();
    times["forward"].push_back(t1 - t0);
    times["backward"].push_back(t2 - t1);
    for (const Tensor& x : {q, k, v, table}) {
      if (x) set_gradient(x, {});
    }
  };
  return w;
}

// The layer of a GPT, as in the table of implementations by Sebastian Raschka.
struct Layer : Module {
  std::unique_ptr<AttentionLayer> attention;
  Layer(int64_t dim, int64_t heads, int64_t context)
      : attention(child("attention", make_attention("mha", {.dim = dim, .heads = heads, .context = context}))) {}
};

Work layer(const std::vector<int64_t>& a) {
  const int64_t B = a[0], T = a[1], E = a[2], H = a[3];
  auto model = std::make_shared<Layer>(E, H, T);
  Tensor x = requires_grad(normal({B, T, E})), dy = ones({B, T, E});
  Work w;
  w.operations = double(B * T) * (6.0 * 4 * double(E * E) + 6.0 * double(E * T));
  w.repeat = [=](Times& times) {
    double t0 = now();
    Tensor y = (*model->attention)(x);
    double t1 = now();
    backward(y, dy);
    double t2 = now();
    times["forward"].push_back(t1 - t0);
    times["forward + backward"].push_back(t2 - t0);
    set_gradient(x, {});
    for (const NamedTensor& p : model->parameters()) set_gradient(p.tensor, {});
  };
  return w;
}

Work decode(const std::vector<int64_t>& a) {
  GptConfig config = gpt2(a[0], a[1], a[2], a[3], a[4]);
  auto gpt = std::make_shared<Gpt>(config);
  auto cache = std::make_shared<std::vector<KeyValueCache>>(gpt->make_cache());
  gpt->next(random_tokens(1, config.context / 2, config.vocabulary, 1), *cache);
  Tokens one = random_tokens(1, 1, config.vocabulary, 2);
  Work w;
  w.bytes = double(gpt->parameter_count()) * sizeof(Real);
  w.repeat = [=](Times& times) {
    double begin = now();
    gpt->next(one, *cache);
    times["token"].push_back(now() - begin);
  };
  return w;
}

// ---- the machine ----

constexpr int kVectors = 24;  // enough to hide the latency of a multiply-add
using Wide [[gnu::vector_size(64)]] = float;

[[gnu::noinline]] float multiply_add(int64_t rounds) {
  Wide x[kVectors], a = Wide{} + 0.999999F, b = Wide{} + 1e-7F;
  for (int j = 0; j < kVectors; ++j) x[j] = Wide{} + float(j);  // else the compiler makes one of all
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 24  // in registers
    for (int j = 0; j < kVectors; ++j) x[j] = x[j] * a + b;
  }
  float sum = 0;
  for (Wide& v : x) sum += v[0];
  return sum;
}

Work machine() {
  const int64_t n = int64_t{1} << 26;  // 256 MB
  auto numbers = std::make_shared<Tensor>(ones({n})), more = std::make_shared<Tensor>(ones({n})),
       sum = std::make_shared<Tensor>(ones({n}));
  const int64_t rounds = 1 << 20;
  Work w;
  const int64_t workers = threads();
  w.operations = double(workers) * double(rounds) * kVectors * 16 * 2;
  w.bytes = double(n) * sizeof(Real);
  w.repeat = [=](Times& times) {
    std::vector<float> sums(size_t(workers), 0.0F);
    double t0 = now();
    parallel_tasks(workers, [&](int64_t i) { sums[size_t(i)] = multiply_add(rounds); });
    double t1 = now();
    const Real* x = numbers->data();
    parallel_for(n, n / workers, [&](int64_t begin, int64_t end) {
      Wide partial[8] = {};
      for (int64_t i = begin; i < end; i += 128) {
        for (int j = 0; j < 8; ++j) partial[j] += *reinterpret_cast<const Wide*>(x + i + int64_t{16} * j);
      }
      for (Wide& v : partial) sums[size_t(begin * workers / n)] += v[0];
    });
    double t2 = now();
    check(sums[0] != 0, "machine: the loops were left out");
    const Real* y = more->data();
    Real* z = sum->mutable_data();
    parallel_for(n, n / workers, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) z[i] = x[i] + Real(3) * y[i];
    });
    double t3 = now();
    times["multiply-add"].push_back(t1 - t0);
    times["read"].push_back(t2 - t1);
    times["triad"].push_back(t3 - t2);  // as STREAM counts: two read, one written
  };
  return w;
}

}  // namespace

Work make_work(const std::vector<std::string>& words) {
  check<UsageError>(!words.empty(), "expected: step | attention | layer | decode | machine, and its numbers");
  std::string kind = words[0], variant = "plain";
  std::vector<int64_t> numbers;
  for (size_t i = 1; i < words.size(); ++i) {
    char* end = nullptr;
    int64_t value = std::strtol(words[i].c_str(), &end, 10);
    if (*end) {
      variant = words[i];
    } else {
      check<UsageError>(value > 0, "{}: numbers must be positive, got {}", kind, value);
      numbers.push_back(value);
    }
  }
  std::map<std::string, size_t> needed{{"step", 6}, {"attention", 4}, {"layer", 4}, {"decode", 5}, {"machine", 0}};
  check<UsageError>(needed.count(kind), "no work called '{}'", kind);
  check<UsageError>(numbers.size() == needed[kind], "{} takes {} numbers, got {}", kind, needed[kind], numbers.size());
  manual_seed(1);
  if (kind == "step") return step(numbers);
  if (kind == "attention") return attention_work(numbers, variant);
  if (kind == "layer") return layer(numbers);
  if (kind == "decode") return decode(numbers);
  return machine();
}

}  // namespace rapt

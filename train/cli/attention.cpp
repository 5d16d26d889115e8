#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "../../autograd/node.h"
#include "../../core/parallel.h"
#include "../../data/formats/safetensors.h"
#include "../../nn/attention/spec_call.h"
#include "commands.h"

namespace rapt::cli {

namespace {

struct AttentionArguments {
  std::string spec = "mha", in, out;
  bool backward = false, dense = false, explain = false, bench = false, words = false;
  int threads = 0;
};

bool is_integer(Dtype dtype) {
  return dtype == Dtype::kI64 || dtype == Dtype::kI32 || dtype == Dtype::kU8 || dtype == Dtype::kBool;
}

bool is_real(Dtype dtype) {
  return dtype == Dtype::kF32 || dtype == Dtype::kF64 || dtype == Dtype::kF16 || dtype == Dtype::kBF16;
}

Shape shape_of(const TensorView& view) {
  check<DataError>(view.shape.size() <= size_t(Shape::kMaxRank), "{} has {} dimensions; at most {} are supported",
                   view.name, view.shape.size(), Shape::kMaxRank);
  Shape shape;
  for (int64_t size : view.shape) shape.push_back(size);
  return shape;
}

// Numbers of any size as small ones: equal ones stay equal, their order stays, and 0 stays 0. More no word asks of
// them.
std::vector<int32_t> renumbered(const std::vector<int64_t>& values) {
  std::vector<int64_t> sorted = values;
  sorted.push_back(0);
  std::ranges::sort(sorted);
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  auto place = [&](int64_t value) { return std::ranges::lower_bound(sorted, value) - sorted.begin(); };
  std::vector<int32_t> ids;
  for (const auto zero = place(0); int64_t value : values) ids.push_back(int32_t(place(value) - zero));
  return ids;
}

// The tensors that words ask for; numbers become leaves that want a gradient. What no word reads may be anything.
SpecTensors tensors_of(const Safetensors& file) {
  SpecTensors tensors;
  tensors.read_real = [&file](const std::string& name) -> std::optional<Tensor> {
    const TensorView* view = file.find(name);
    if (!view) return std::nullopt;
    const Shape shape = shape_of(*view);
    check<DataError>(is_real(view->dtype) || is_integer(view->dtype),
                     "{} must be F32, F64, F16, BF16, I64, I32, U8 or BOOL, but is {}", name, name_of(view->dtype));
    if (is_real(view->dtype)) return requires_grad(file.tensor(name));
    std::vector<Real> values;
    for (int64_t v : file.integers(name)) values.push_back(Real(v));
    return from_values(shape, values);
  };
  tensors.read_integer = [&file](const std::string& name) -> std::optional<Tokens> {
    const TensorView* view = file.find(name);
    if (!view) return std::nullopt;
    const Shape shape = shape_of(*view);
    check<DataError>(is_integer(view->dtype), "{} must be I64, I32, U8 or BOOL, but is {}", name, name_of(view->dtype));
    return Tokens(shape, renumbered(file.integers(name)));
  };
  return tensors;
}

double seconds_of(const std::function<void()>& f) {
  auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Best of a few, for at least a quarter of a second.
double best_time(const std::function<void()>& f) {
  f();
  double best = 1e30, total = 0;
  for (int n = 0; n < 3 || total < 0.25; ++n) {
    double t = seconds_of(f);
    best = std::min(best, t);
    total += t;
  }
  return best;
}

void bench(const std::string& spec, const SpecTensors& tensors, bool has_tiles) {
  auto forward = [&](bool dense) {
    NoGrad no_grad;
    return spec_call(spec, tensors).run(dense).out;
  };
  const int first = has_tiles ? 0 : 1;
  Tensor dy = ones(forward(!has_tiles).shape);
  auto both = [&](bool dense) { backward(spec_call(spec, tensors).run(dense).out, dy); };
  const char* names[] = {"tiled", "dense"};
  double times[2][2];
  for (int dense = first; dense < 2; ++dense) {
    times[dense][0] = best_time([&] { forward(dense); });
    times[dense][1] = best_time([&] { both(dense); });
    fmt::print("{}: forward {:.3f} ms, forward and backward {:.3f} ms\n", names[dense], times[dense][0] * 1e3,
               times[dense][1] * 1e3);
  }
  if (!has_tiles) {
    fmt::print("there is no tiled form to compare with; {} threads\n", threads());
    return;
  }
  fmt::print("tiled takes {:.3f} and {:.3f} of the dense time; {} threads\n", times[0][0] / times[1][0],
             times[0][1] / times[1][1], threads());
}

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

// d… of each tensor that was read, from dout and dlse.
void add_gradients(const SpecCall& call, const AttentionResult& result, const SpecTensors& tensors, bool has_dlse,
                   const std::string& spec, NamedTensors& results) {
  check<DataError>(call.without_gradient.empty(), "{}", call.without_gradient);
  const std::string who = "--backward";
  Tensor dout = tensors.real(who, "dout", "(B, H, N, Dv)").detach();
  check<DataError>(dout.shape == result.out.shape, "dout must have the shape of out, {}, but is {}", result.out.shape,
                   dout.shape);
  Tensor objective = sum(result.out * dout);
  if (has_dlse) {
    check<DataError>(call.has_lse(), "there is a dlse, but {} has no log-sum-exp", spec);
    Tensor dlse = tensors.real(who, "dlse", "(B, H, N)").detach();
    check<DataError>(dlse.shape == result.lse.shape, "dlse must have the shape of lse, {}, but is {}", result.lse.shape,
                     dlse.shape);
    Tensor finite = clone(result.lse.detach());  // rows without keys have lse −∞, and no gradient
    for (int64_t i = 0; i < finite.numel(); ++i) {
      Real& value = finite.mutable_data()[i];
      value = Real(std::isfinite(value));
    }
    objective = objective + sum(where(finite, result.lse * dlse, 0));
  }
  backward(objective);
  for (const std::string& name : tensors.used) {
    auto found = tensors.reals.find(name);
    if (found == tensors.reals.end() || !found->second.node || name == "dout" || name == "dlse") continue;
    const Tensor& g = gradient(found->second);
    results.emplace_back("d" + name, g ? contiguous(g) : zeros(found->second.shape));
  }
}

NamedTensors compute(const AttentionArguments& a, const Safetensors& file) {
  SpecTensors tensors = tensors_of(file);
  SpecCall call = spec_call(a.spec, tensors);
  check<UsageError>(a.dense || call.has_tiles(),
                    "attention \"{}\": tiles have no relative terms for the normaliser {}; give --dense", a.spec,
                    call.options.normalizer.name());
  if (a.explain) fmt::print("{}\n", call.explain(a.dense));
  NamedTensors results;
  if (!a.out.empty()) {
    AttentionResult result = call.run(a.dense);
    results.emplace_back("out", contiguous(result.out));
    if (result.lse) results.emplace_back("lse", contiguous(result.lse));
    if (a.backward) add_gradients(call, result, tensors, file.find("dlse") != nullptr, a.spec, results);
  }
  if (a.bench) bench(a.spec, tensors_of(file), call.has_tiles());  // its gradients add up: not to those of the results
  return results;
}

int run(const AttentionArguments& a) {
  if (a.words) {
    fmt::print("words of --spec, joined by +, with [the tensors they read]:\n{}", describe_spec_words());
    return kDone;
  }
  check<UsageError>(!a.in.empty(), "attention: --in is missing: a safetensors file with q, k and v");
  check<UsageError>(!a.out.empty() || a.explain || a.bench,
                    "attention: nothing to do; give --out FILE for the results, --explain or --bench");
  if (a.threads > 0) set_threads(a.threads);
  const Safetensors file = Safetensors::open(a.in);
  NamedTensors results;
  try {
    results = compute(a, file);
  } catch (const UsageError&) {
    throw;
  } catch (const Error& error) {  // what is missing or doesn't fit is the file's fault
    throw DataError(fmt::format("{}: {}", a.in, error.what()));
  }
  if (a.out.empty()) return kDone;
  std::vector<TensorView> views;
  views.reserve(results.size());
  for (const auto& [name, tensor] : results) views.push_back(tensor_view(name, tensor));
  write_safetensors(a.out, views, {{"spec", a.spec}, {"kernel", a.dense ? "dense" : "tiled"}});
  return kDone;
}

}  // namespace

Command attention_command(CLI::App& program) {
  auto arguments = std::make_shared<AttentionArguments>();
  AttentionArguments& a = *arguments;
  CLI::App* app = program.add_subcommand("attention", "Run any attention variant on tensors from a file");
  app->add_option("--spec", a.spec, "words joined by +, such as causal+softcap:30+alibi; see --words");
  app->add_option("--in", a.in,
                  "safetensors file with q (B, H, N, D), k (B, Hkv, M, D), v (B, Hkv, M, Dv), and the "
                  "tensors of the words; for --backward dout (B, H, N, Dv), and if wanted dlse (B, H, N)");
  app->add_option("--out", a.out,
                  "safetensors file for out, lse and, with --backward, dq, dk, dv and d… of each tensor");
  app->add_flag("--backward", a.backward, "also compute the gradients, from dout");
  app->add_flag("--dense", a.dense, "with whole matrices instead of tiles");
  app->add_flag("--explain", a.explain, "say what will run: tiles, operations, memory, tasks");
  app->add_flag("--bench", a.bench, "time it against the dense twin");
  app->add_flag("--words", a.words, "list the words of --spec");
  app->add_option("--threads", a.threads, "threads to compute with")->check(positive())->default_str("all cores");
  return {app, [arguments] { return run(*arguments); }};
}

}  // namespace rapt::cli

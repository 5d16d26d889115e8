#include <rapt/autograd/ops.h>
#include <rapt/autograd/ops/recurrence.h>
#include <rapt/nn/attention/kernel.h>
#include <rapt/nn/attention/recurrent.h>

#include <functional>
#include <map>

#include "golden.h"

// Attention and its variants against PyTorch's numbers, made by tools/golden_attention.py.

namespace rapt {
namespace {

using NamedInputs = std::map<std::string, Tensor>;

const Json& attention_golden() {
  static const Json json = Json::parse(std::ifstream(RAPT_TEST_FOLDER "/golden/attention.json"));
  return json;
}

constexpr double kGoldenTolerance = sizeof(Real) == 8 ? 1e-9 : 1e-5;

Tensor squares(const Tensor& x) { return sum(x * x, {-1}); }

AttentionOptions shaw(NamedInputs& x) {
  AttentionOptions o;
  const Tensor table = matmul(x["q"], transpose(x["key_table"], 0, 1)) / std::sqrt(double(x["q"].shape[3]));
  o.score = score_modifier(
      [](auto s, At at, auto t) {
        return s + t(at.batch, at.head, at.row, std::clamp<int64_t>(at.key - at.query, -2, 2) + 2);
      },
      table);
  o.relative_values = x["value_table"];
  return o;
}

// Transformer-XL adds one bias to the queries of the content, another to those of the distance.
Tensor transformer_xl(NamedInputs& x) {
  const Tensor content = x["q"] + unsqueeze(x["u"], 1), distance = x["q"] + unsqueeze(x["w"], 1);
  AttentionOptions options;
  options.relative_queries = distance;
  options.relative_keys = x["r"];
  return attention(content, x["k"], x["v"], options);
}

// The module with the weights and the features of the file.
Tensor performer(NamedInputs& x) {
  Performer attend(4, 2, {.features = x["features"].shape[0], .common = {.chunk = 2}});
  attend.features = x["features"].detach();
  std::vector<NamedTensor> given;
  for (const char* name : {"q", "k", "v", "proj"}) given.push_back({std::string(name) + ".weight", x[name].detach()});
  load_parameters(attend.parameters(), given);
  for (const NamedTensor& p : attend.parameters()) x[p.name.substr(0, p.name.find('.'))] = p.tensor;
  return attend(x["x"]);
}

constexpr int64_t kGoldenChunk = 2;  // of 5 positions

using Formula = std::function<Tensor(NamedInputs&)>;
const std::map<std::string, Formula>& formulas() {
  using I = NamedInputs&;
  static const std::map<std::string, Formula> all{
      {"transformer-xl", transformer_xl},
      {"linear", [](I x) { return linear_attention(x["q"], x["k"], x["v"], {.chunk = kGoldenChunk}); }},
      {"linear, normalized",
       [](I x) {
         return linear_attention(exp(x["q"]), exp(x["k"]), x["v"], {.normalize = true, .chunk = kGoldenChunk});
       }},
      {"retention", [](I x) { return decay_attention(x["q"], x["k"], x["v"], x["log_decay"], kGoldenChunk); }},
      {"gated linear", [](I x) { return decay_attention(x["q"], x["k"], x["v"], x["log_decay"], kGoldenChunk); }},
      {"delta", [](I x) { return delta_rule(x["q"], x["k"], x["v"], x["beta"], {}, kGoldenChunk); }},
      {"gated delta", [](I x) { return delta_rule(x["q"], x["k"], x["v"], x["beta"], x["log_decay"], kGoldenChunk); }},
      {"performer", performer},
  };
  return all;
}

using Options = std::function<AttentionOptions(NamedInputs&)>;
const std::map<std::string, Options>& spellings() {
  using I = NamedInputs&;
  static const std::map<std::string, Options> all{
      {"sdpa", [](I) { return AttentionOptions{}; }},
      {"sdpa, causal at the top left", [](I) { return AttentionOptions{.mask = causal_top_left()}; }},
      {"sdpa, 2 heads of keys and values for 4", [](I) { return AttentionOptions{}; }},
      {"sdpa, bias", [](I x) { return AttentionOptions{.score = bias(x["bias"])}; }},
      {"softcap", [](I x) { return AttentionOptions{.score = softcap(x["cap"])}; }},
      {"alibi", [](I x) { return AttentionOptions{.score = alibi(x["slopes"])}; }},
      {"sink", [](I x) { return AttentionOptions{.normalizer = softmax_with_sink(x["sink"])}; }},
      {"sigmoid", [](I x) { return AttentionOptions{.score = bias(x["bias"]), .normalizer = sigmoid_weights()}; }},
      {"gaussian",
       [](I x) {
         return AttentionOptions{.score = gaussian_kernel(squares(x["q"]), squares(x["k"]), x["bandwidth"]),
                                 .scale = 1};
       }},
      {"t5", [](I x) { return AttentionOptions{.score = t5_bias(x["table"], 10, true), .scale = 1}; }},
      {"t5, causal",
       [](I x) { return AttentionOptions{.mask = causal(), .score = t5_bias(x["table"], 10, false), .scale = 1}; }},
      {"shaw", shaw},
      {"talking heads", [](I x) { return AttentionOptions{.normalizer = talking_heads(x["before"], x["after"])}; }},
      {"entmax 1.5",
       [](I) {
         return AttentionOptions{.score = score_modifier([](auto s, At) { return 2 * s; }), .normalizer = entmax(1.5)};
       }},
      {"sparsemax", [](I) { return AttentionOptions{.normalizer = entmax(2)}; }},
      {"stick-breaking", [](I) { return AttentionOptions{.mask = strictly_causal(), .normalizer = stick_breaking()}; }},
      {"top 3", [](I) { return AttentionOptions{.normalizer = top_k(3)}; }},
      {"inverted", [](I) { return AttentionOptions{.normalizer = inverted_softmax()}; }},
      {"signed", [](I) { return AttentionOptions{.normalizer = signed_softmax()}; }},
      {"window of 2, causal", [](I) { return AttentionOptions{.mask = causal() & window(2)}; }},
      {"documents 0 0 1 1 2",
       [](I) {
         return AttentionOptions{.mask = document(Tokens({1, 5}, {0, 0, 1, 1, 2}))};
       }},
      {"padding 0 1 0 0 1",
       [](I) {
         return AttentionOptions{.mask = key_padding(Tokens({1, 5}, {0, 1, 0, 0, 1}))};
       }},
      {"temperature", [](I x) { return AttentionOptions{.score = temperature(x["factor"])}; }},
      {"distance table", [](I x) { return AttentionOptions{.score = relative_bias(x["table"])}; }},
      {"forget", [](I x) { return AttentionOptions{.mask = causal(), .score = forget_gates(x["log_gates"])}; }},
      {"contextual positions",
       [](I x) {
         return AttentionOptions{.mask = causal(),
                                 .normalizer = contextual_positions(matmul(x["q"], transpose(x["positions"], 0, 1)))};
       }},
      {"plus one", [](I x) { return AttentionOptions{.normalizer = softmax_plus_one(x["q"].shape[1])}; }},
      {"relu 2", [](I) { return AttentionOptions{.normalizer = relu_weights(2)}; }},
      {"entmax 1.3",
       [](I) {
         return AttentionOptions{.score = score_modifier([](auto s, At) { return 2 * s; }), .normalizer = entmax(1.3)};
       }},
      {"hard", [](I) { return AttentionOptions{.normalizer = hard_attention()}; }},
      {"laplace", [](I x) { return kernel_options(SmoothingKernel::laplace, x["q"], x["k"], x["bandwidth"]); }},
      {"epanechnikov",
       [](I x) { return kernel_options(SmoothingKernel::epanechnikov, x["q"], x["k"], x["bandwidth"]); }},
      {"boxcar", [](I x) { return kernel_options(SmoothingKernel::boxcar, x["q"], x["k"], x["bandwidth"]); }},
  };
  return all;
}

TEST(AttentionGolden, VariantsAgreeWithPyTorch) {
  size_t compared = 0;
  for (const Json& c : attention_golden().at("variants")) {
    const std::string name = c.at("case");
    SCOPED_TRACE(name);
    NamedInputs x;
    for (const auto& [key, value] : c.at("inputs").items()) x[key] = requires_grad(golden_tensor(value));
    Tensor y;
    if (formulas().contains(name)) {
      y = formulas().at(name)(x);
    } else {
      ASSERT_TRUE(spellings().contains(name));
      y = attention(x["q"], x["k"], x["v"], spellings().at(name)(x));
    }
    expect_golden(y.detach(), c.at("output"), kGoldenTolerance);
    backward(sum(y * golden_tensor(c.at("cotangent"))));
    for (const auto& [key, value] : c.at("gradients").items()) {
      SCOPED_TRACE(key);
      expect_golden(gradient(x[key]), value, kGoldenTolerance);
    }
    ++compared;
  }
  EXPECT_EQ(compared, spellings().size() + formulas().size());
}

TEST(AttentionGolden, BucketsOfHuggingFace) {
  const Json& t5 = attention_golden().at("t5");
  for (size_t i = 0; i < t5.at("distances").size(); ++i) {
    const int64_t distance = t5.at("distances")[i];
    EXPECT_EQ(t5_bucket(distance, 32, 128, true), t5.at("buckets")[i].get<int64_t>()) << distance;
    EXPECT_EQ(t5_bucket(distance, 32, 128, false), t5.at("causal_buckets")[i].get<int64_t>()) << distance;
  }
}

}  // namespace
}  // namespace rapt

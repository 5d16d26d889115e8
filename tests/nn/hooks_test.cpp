#include <gtest/gtest.h>
#include <rapt/core/random.h>
#include <rapt/nn/attention/multi_head.h>
#include <rapt/nn/gpt.h>

#include <exception>
#include <map>
#include <stdexcept>

#include "../expect.h"

// Hooks of modules, freezing, and a module as text.

namespace rapt {
namespace {

struct HookedGated : Module {
  Linear up, gate;
  HookedGated(int64_t d, int64_t h) : up(child<Linear>("up", d, h)), gate(child<Linear>("gate", d, h)) {}
  Tensor operator()(const Tensor& input) const {
    return run([&](const Tensor& x) { return up(x) * silu(gate(x)); }, input);
  }
};

GptConfig small() {
  GptConfig c;
  c.vocabulary = 11;
  c.context = 8;
  c.layers = 2;
  c.heads = 2;
  c.dim = 8;
  return c;
}

const Tokens kTokens({1, 3}, {1, 2, 3});

TEST(ModuleHooks, SeeInputsAndOutput) {
  HookedGated model(3, 4);
  Tensor x = normal({2, 3}), seen_in, seen_out;
  std::string path = "?";
  auto before = model.add_hook_before([&](const std::string& at, std::span<Tensor> inputs) {
    path = at;
    ASSERT_EQ(inputs.size(), 1u);
    seen_in = inputs[0];
  });
  auto after = model.add_hook_after([&](const std::string&, Tensor& y) { seen_out = y; });
  Tensor y = model(x);
  EXPECT_EQ(path, "");
  EXPECT_EQ(seen_in.data(), x.data());
  EXPECT_EQ(seen_out.data(), y.data());
  before.remove();
  before.remove();  // again does nothing
  after.remove();
  seen_in = seen_out = {};
  model(x);
  EXPECT_FALSE(seen_in);
  EXPECT_FALSE(seen_out);
}

TEST(ModuleHooks, ReplaceInputsAndOutput) {
  HookedGated model(3, 4);
  Tensor x = normal({2, 3}), other = normal({2, 3});
  const std::vector<Real> expected = (model(other) * 10).to_vector();
  model.add_hook_before([&](const std::string&, std::span<Tensor> inputs) { inputs[0] = other; });
  model.add_hook_after([](const std::string&, Tensor& y) { y = y * 5; });
  model.add_hook_after([](const std::string&, Tensor& y) { y = y * 2; });  // in the order of registration
  EXPECT_EQ(model(x).to_vector(), expected);
  backward(sum(model(x)));  // gradients go through what a hook did
  EXPECT_TRUE(gradient(model.up.weight));
}

TEST(ModuleHooks, BelongToTheModuleWhereverItIsMoved) {
  int calls = 0;
  auto count = [&](const std::string&, Tensor&) { ++calls; };
  HookedGated model(3, 4);
  ModuleHookHandle handle = model.up.add_hook_after(count);
  HookedGated there = std::move(model);
  there(normal({1, 3}));
  EXPECT_EQ(calls, 1);
  handle.remove();
  there(normal({1, 3}));
  EXPECT_EQ(calls, 1);
  {
    HookedGated brief(3, 4);
    handle = brief.add_hook_after(count);
  }
  handle.remove();  // of a module that is gone
}

TEST(ModuleHooks, ReachPartsByName) {
  manual_seed(1);
  Gpt model(small());
  std::vector<std::string> log;
  for (std::string part : {"token_embedding", "blocks.1.attention", "blocks.0", "blocks.1.mlp.down", "norm", ""}) {
    model.add_hook_before([&](const std::string& path,
                              std::span<Tensor> x) { log.push_back("<" + path + ">" + std::to_string(x.size())); },
                          part);
    model.add_hook_after([&](const std::string& path, Tensor&) { log.push_back("</" + path + ">"); }, part);
  }
  EvalMode eval;  // hooks are called whether or not anything is recorded
  model(kTokens);
  EXPECT_EQ(log,
            (std::vector<std::string>{"<>0", "<token_embedding>0", "</token_embedding>", "<blocks.0>1", "</blocks.0>",
                                      "<blocks.1.attention>1", "</blocks.1.attention>", "<blocks.1.mlp.down>1",
                                      "</blocks.1.mlp.down>", "<norm>1", "</norm>", "</>"}));
  expect_contains(error_of([&] { model.add_hook_after({}, "blocks.1.atention"); }), "mean blocks.1.attention?");
}

TEST(ModuleHooks, OfEveryKindOfAttention) {
  for (const char* words : {"mha", "gqa:kv=1", "kernel:gaussian", "moba:block=2,count=1", "mla", "differential",
                            "linear", "performer", "retention", "gla", "delta", "gated-delta"}) {
    GptConfig c = small();
    c.dim = 16;
    c.attention = words;
    Gpt model(c);
    int calls = 0;
    model.blocks[0].attention->add_hook_after([&](const std::string&, Tensor&) { ++calls; });
    model(kTokens);
    EXPECT_EQ(calls, 1) << words;
  }
  MultiHeadAttention layer(8, 2);
  size_t inputs = 0;
  layer.add_hook_before([&](const std::string&, std::span<Tensor> x) { inputs = x.size(); });
  layer.add_hook_after([](const std::string&, Tensor& y) { y = y * 0; });
  Tensor x = normal({1, 3, 8});
  EXPECT_EQ(layer(x, x, x).output.to_vector(), std::vector<Real>(24, 0));
  EXPECT_EQ(inputs, 3u);
}

// In training and in sampling: an adapter that is added by hooks must be met in both.
TEST(ModuleHooks, AreCalledByLossAndNextAsByTheWholeModel) {
  const Tokens tokens({1, 5}, {1, 2, 3, 1, 0});
  for (const char* attention : {"mha", "gqa:kv=1+rope", "mla", "differential", "retention", "mha+sink"}) {
    SCOPED_TRACE(attention);
    GptConfig config = small();
    config.attention = attention;
    manual_seed(5);
    Gpt model(config);
    std::map<std::string, int> calls;
    std::vector<std::string> parts{"", "token_embedding", "blocks.0", "blocks.0.attention", "blocks.1.mlp.up", "norm"};
    if (model.position_embedding) parts.push_back("position_embedding");
    if (std::string(attention) == "mla") parts.push_back("blocks.0.attention.kv_up");
    for (const std::string& part : parts) {
      model.add_hook_after([&calls](const std::string& path, Tensor& y) { ++calls[path], y = y * 1.5; }, part);
    }
    const Tensor all = model(tokens);
    model.loss(tokens, tokens);
    std::vector<KeyValueCache> cache = model.make_cache();
    model.next(Tokens({1, 4}, {1, 2, 3, 1}), cache);
    const Tensor next = model.next(Tokens({1, 1}, {0}), cache);
    for (const std::string& part : parts) EXPECT_EQ(calls[part], 4) << part;
    EXPECT_LE(relative_difference(next, select(all.detach(), 1, 4)), 1e-5);
  }
}

TEST(ModuleHooks, AreRefusedWhereNothingIsCalled) {
  GptConfig config = small();
  config.attention = "mha+t5";
  Gpt model(config);
  const std::string message =
      error_of([&] { model.add_hook_after([](const std::string&, Tensor&) {}, "blocks.0.attention.t5"); });
  expect_contains(message, "blocks.0.attention.t5 (");
  expect_contains(message, "is never called with a tensor");
}

TEST(ModuleHooks, ThatLeaveNothingAreNamed) {
  HookedGated model(3, 4);
  ModuleHookHandle hook = model.up.add_hook_after([](const std::string&, Tensor& y) { y = {}; });
  expect_contains(error_of([&] { model(ones({1, 3})); }), "a hook after up left an empty tensor");
  hook.remove();
  model.up.add_hook_before([](const std::string&, std::span<Tensor> x) { x[0] = {}; });
  expect_contains(error_of([&] { model(ones({1, 3})); }), "a hook before up left input 0 empty");
}

TEST(ModuleHooks, MayRemoveThemselves) {
  HookedGated model(3, 4);
  int calls = 0;
  ModuleHookHandle hook;
  hook = model.add_hook_after([&](const std::string&, Tensor&) {
    ++calls;
    hook.remove();
  });
  model(normal({1, 3}));
  model(normal({1, 3}));
  EXPECT_EQ(calls, 1);
}

TEST(ModuleHooks, OneThatThrowsIsNamedWithItsModule) {
  Gpt model(small());
  auto hook = model.add_hook_after([](const std::string&, Tensor&) { throw std::out_of_range("no such thing"); },
                                   "blocks.1.mlp");
  try {
    model(kTokens);
    FAIL() << "the hook threw";
  } catch (const Error& error) {
    expect_contains(error.what(), "a hook after blocks.1.mlp threw: no such thing");
    EXPECT_THROW(std::rethrow_if_nested(error), std::out_of_range);  // the hook's own
  }
  EXPECT_FALSE(current_module());
  hook.remove();
  model(kTokens);
}

TEST(TensorHooks, OneThatThrowsIsNamedWithItsOperation) {
  Tensor x = requires_grad(ones({2}));
  const int line = __LINE__ + 1;
  Tensor y = x * 3;
  add_hook(y, [](const Tensor&) -> Tensor { throw std::out_of_range("no such thing"); });
  try {
    backward(sum(y));
    FAIL() << "the hook threw";
  } catch (const Error& error) {
    expect_contains(error.what(), "a hook on mul (");
    expect_contains(error.what(), fmt::format("hooks_test.cpp:{}", line));
    expect_contains(error.what(), "threw: no such thing");
    EXPECT_THROW(std::rethrow_if_nested(error), std::out_of_range);
  }
}

TEST(Module, FreezingLeavesItOut) {
  HookedGated model(3, 4);
  model.gate.freeze();
  EXPECT_EQ(trainable(model.parameters()).size(), 2u);
  backward(sum(model(ones({2, 3}))));
  EXPECT_TRUE(gradient(model.up.weight));
  EXPECT_FALSE(gradient(model.gate.weight));
  model.freeze(false);
  backward(sum(model(ones({2, 3}))));
  EXPECT_TRUE(gradient(model.gate.weight));
}

TEST(Module, AsText) {
  struct Model : Module {
    HookedGated gated;
    Tensor scale;
    Dropout drop;
    Model()
        : gated(child<HookedGated>("parts.gated", 3, 4)),
          scale(param("scale", ones({4}))),
          drop(child<Dropout>("drop", 0.5)) {}
  };
  Model model;
  model.gated.up.freeze();
  EXPECT_EQ(to_string(model),
            "Model: 36 parameters\n"
            "  scale (4,)\n"
            "  parts.gated: HookedGated, 32\n"
            "    up: Linear, 16\n"
            "      weight (4, 3) frozen\n"
            "      bias (4,) frozen\n"
            "    gate: Linear, 16\n"
            "      weight (4, 3)\n"
            "      bias (4,)\n"
            "  drop: Dropout, 0");
  EXPECT_EQ(to_string(model.gated.gate), "Linear: 16 parameters\n  weight (4, 3)\n  bias (4,)");
  const std::string gpt = to_string(Gpt(small()));
  expect_contains(gpt, "blocks.1: TransformerBlock, ");
  expect_contains(gpt, "\n    attention: GroupedQueryAttention, ");
}

}  // namespace
}  // namespace rapt

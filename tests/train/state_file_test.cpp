#include "../../train/state_file.h"

#include <gtest/gtest.h>

#include "../../core/random.h"
#include "../../nn/layers.h"
#include "../data/files.h"

namespace rapt {
namespace {

std::vector<Real> all(const Module& m) {
  std::vector<Real> values;
  for (const NamedTensor& p : m.parameters()) {
    for (Real v : p.tensor.to_vector()) values.push_back(v);
  }
  return values;
}

using rapt_test::message_of;
using rapt_test::TempFolder;

TEST(StateFile, HoldsAModelUnderDottedNames) {
  TempFolder folder;
  manual_seed(1);
  Mlp saved(3, 5), other(3, 5);
  save_state(folder / "model.safetensors", saved.parameters(), {{"made by", "a test"}});
  EXPECT_NE(all(saved), all(other));
  LoadReport report = load_state(folder / "model.safetensors", other.parameters());
  EXPECT_EQ(all(saved), all(other));
  EXPECT_TRUE(report.complete());
  EXPECT_EQ(report.loaded, (std::vector<std::string>{"up.weight", "up.bias", "down.weight", "down.bias"}));
  Safetensors file = Safetensors::open(folder / "model.safetensors");
  EXPECT_EQ(file.metadata().at("made by"), "a test");
  EXPECT_EQ(file.tensors().size(), 4u);
}

TEST(StateFile, StrictlyOrPartly) {
  TempFolder folder;
  const auto path = folder / "model.safetensors";
  manual_seed(1);
  Mlp model(3, 5);
  Linear turned(5, 3);
  const std::vector<int64_t> step{7};
  Tensor down_bias = ones({3});
  write_safetensors(
      path, {tensor_view("up.weight", turned.weight), tensor_view("down.bias", down_bias), tensor_view("step", step)});
  const std::vector<Real> before = all(model);
  const std::string error = message_of([&] { load_state(path, model.parameters()); });
  EXPECT_EQ(error, path.string() +
                       ": load_parameters: the values do not fit the model:\n"
                       "  misshapen: up.weight is (3, 5) instead of (5, 3); transposed?\n"
                       "  missing: up.bias (5,)\n"
                       "  missing: down.weight (3, 5)\n"
                       "  unexpected: step (1,)");
  EXPECT_EQ(all(model), before);
  LoadReport report = load_state(path, model.parameters(), {.partly = true});
  EXPECT_EQ(report.loaded, (std::vector<std::string>{"down.bias"}));
  EXPECT_EQ(model.down.bias.to_vector(), std::vector<Real>({1, 1, 1}));
  EXPECT_FALSE(report.complete());
  message_of([&] { load_state(folder / "missing.safetensors", model.parameters()); });
}

}  // namespace
}  // namespace rapt

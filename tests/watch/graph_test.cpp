#include "../../watch/graph.h"

#include <gtest/gtest.h>

#include <limits>

#include "../../nn/layers.h"
#include "../expect.h"

namespace rapt {
namespace {

struct Part : Module {
  Linear up, down;
  Part() : up(child<Linear>("up", 4, 8)), down(child<Linear>("down", 8, 4)) {}
  Tensor operator()(const Tensor& x) const {
    Scope scope(path());
    return x + down(relu(up(x)));
  }
};
struct Net : Module {
  Part first, second;
  Net() : first(child<Part>("blocks.0")), second(child<Part>("blocks.1")) {}
  Tensor operator()(const Tensor& x) const { return second(first(x)); }
};

std::string dot(GraphDrawing drawing) {
  Net net;
  GraphLog log;
  backward(mean(net(ones({2, 4}))));
  return log.dot(drawing);
}

int count(const std::string& text, const std::string& part) {
  int n = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; ++at) ++n;
  return n;
}

TEST(Graph, IsCollapsedByModule) {
  std::string text = dot({});
  EXPECT_EQ(count(text, "shape="), 3) << text;  // two blocks and the mean
  expect_contains(text, "\"module blocks.0\" -> \"module blocks.1\";");
  EXPECT_EQ(count(text, "->"), 2) << text;
  expect_contains(text, "blocks.1\\n4 operations, 76 parameters\\nof gradient norm");
}

TEST(Graph, ExpandsAModuleAndItsOperations) {
  std::string text = dot({.expand = {"blocks.1"}});
  expect_contains(text, "\"module blocks.0\" -> \"module blocks.1.up\";");
  expect_contains(text, "label=\"relu\\n(2, 8)");
  text = dot({.expand = {"blocks.1.up"}});
  expect_contains(text, "label=\"linear\\n(2, 8)");
  expect_contains(text, "label=\"blocks.1.up.weight\\n(8, 4)");
}

TEST(Graph, ShowsEverythingAtDepthZero) {
  std::string text = dot({.depth = 0});
  EXPECT_EQ(count(text, "shape=box"), 0);
  EXPECT_EQ(count(text, "label=\"linear"), 4);
  EXPECT_EQ(count(text, "shape=ellipse"), 4 + 2 + 2 + 1 + 8);  // linear, relu, add, mean, parameters
}

TEST(Graph, NamesAnUnknownModule) {
  try {
    dot({.expand = {"block.1"}});
    FAIL();
  } catch (const UsageError& error) {
    expect_contains(error.what(), "no module \"block.1\", did you mean \"blocks.1\"?");
  }
}

TEST(Graph, ColoursByTheGradientThatArrives) {
  Tensor x = requires_grad(ones({4}));
  GraphLog log;
  backward(sum(tanh(x) * 1000), ones({}));
  std::string text = log.dot({});
  expect_contains(text, "label=\"mul\\n(4,)\\ngradient norm 2\"");
  expect_contains(text, "label=\"tanh\\n(4,)\\ngradient norm 2e+03\", shape=ellipse, fillcolor=\"#ff6659\"");
  expect_contains(text, "label=\"sum\\n()\\ngradient norm 1\", shape=ellipse, fillcolor=\"#66a6ff\"");
}

}  // namespace
}  // namespace rapt

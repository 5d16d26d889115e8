#include <gtest/gtest.h>
#include <rapt/autograd/ops.h>
#include <rapt/core/random.h>
#include <rapt/core/view.h>

#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "../expect.h"
#include "leaf.h"

namespace rapt {
namespace {

void expect_values(const Tensor& x, std::vector<double> expected) {
  ASSERT_TRUE(bool(x));
  std::vector<Real> values = x.to_vector();
  ASSERT_EQ(values.size(), expected.size());
  for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(values[i], expected[i], 1e-5) << "element " << i;
}

// y = 2x, and what backward is told is added to a log.
struct LoggedTwice {
  static constexpr auto name = "twice";
  std::vector<int>* log = nullptr;
  int id = 0;
  Tensor forward(std::span<const Tensor> x) { return view::slice(x[0] * 2, 0, 0, x[0].shape[0]); }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const {
    if (log) log->push_back(id);
    return {dy * 2};
  }
};

TEST(Engine, GradientOfAProduct) {
  Tensor a = leaf({2, 3}), b = leaf({5, 7});
  backward(sum(a * b));
  expect_values(gradient(a), {5, 7});
  expect_values(gradient(b), {2, 3});
}

TEST(Engine, DiamondsAreSummed) {
  Tensor x = leaf({3});
  Tensor y = x * x;  // the same input twice
  Tensor left = y * 2, right = y * y;
  backward(sum(left + right));  // 2x² + x⁴
  expect_values(gradient(x), {4 * 3 + 4 * 27});
}

// Every node runs once, after all of its consumers: with a depth-first walk this would take 2^60 steps.
TEST(Engine, LadderOfDiamonds) {
  Tensor x = leaf({1});
  Tensor y = x;
  for (int i = 0; i < 60; ++i) y = y * 0.25 + y * 0.75;
  backward(sum(y));
  expect_values(gradient(x), {1});
}

TEST(Engine, RunsNewestFirstAndEachOnce) {
  std::vector<int> log;
  Tensor x = leaf({1});
  Tensor a = record(LoggedTwice{&log, 1}, {x});
  Tensor b = record(LoggedTwice{&log, 2}, {a});
  Tensor c = record(LoggedTwice{&log, 3}, {a});
  Tensor unused = record(LoggedTwice{&log, 4}, {b});
  backward(sum(b * c + b));
  EXPECT_EQ(log, (std::vector<int>{3, 2, 1}));
}

TEST(Engine, CallsAddToLeaves) {
  Tensor x = leaf({3});
  backward(sum(x * x));
  backward(sum(x * x));
  expect_values(gradient(x), {12});
  set_gradient(x, {});
  EXPECT_FALSE(gradient(x));
  backward(sum(x * 5));
  expect_values(gradient(x), {5});
}

TEST(Engine, LeafItselfIsTheLoss) {
  Tensor x = leaf({3});
  backward(x);
  backward(x);
  expect_values(gradient(x), {2});
}

// A gradient that somebody still holds is not written to, nor does a leaf share its gradient with another.
TEST(Engine, GradientsDoNotAlias) {
  Tensor a = leaf({1, 2}), b = leaf({3, 4});
  Tensor dy = from_values({2}, {1, 1});
  backward(a + b, dy);
  Tensor held = gradient(a);
  EXPECT_NE(gradient(a).storage, gradient(b).storage);
  EXPECT_NE(gradient(a).storage, dy.storage);
  backward(a * 10, dy);
  expect_values(held, {1, 1});
  expect_values(gradient(a), {11, 11});
  expect_values(gradient(b), {1, 1});
  expect_values(dy, {1, 1});
}

// The first gradient to arrive is taken as it is; adding to one of stride 0 must not add to all its elements.
TEST(Engine, SumsGradientsOfAnyStrides) {
  Tensor w = from_values({2, 2}, {1, 2, 3, 4});
  Tensor x = requires_grad(zeros({2, 2}));
  Tensor y = x * 1;
  Tensor older = sum(y * w);
  backward(older + sum(y));  // sum's gradient comes first
  expect_values(gradient(x), {2, 3, 4, 5});
  set_gradient(x, {});
  Tensor z = x * 1;
  older = sum(z * w);
  backward(older + sum(transpose(z, 0, 1) * w));
  expect_values(gradient(x), {2, 5, 5, 8});
}

TEST(Engine, RetainedGradient) {
  Tensor x = leaf({2});
  Tensor y = x * x;
  Tensor z = y * 3;
  retain_gradient(y);
  backward(sum(z));
  expect_values(gradient(y), {3});
  EXPECT_FALSE(gradient(z));  // not asked for
  expect_values(gradient(x), {12});
  EXPECT_THROW(gradient(scalar(1)), Error);
  EXPECT_THROW(retain_gradient(scalar(1)), Error);
}

TEST(Engine, GivenGradient) {
  Tensor x = leaf({1, 2});
  backward(x * x, from_values({2}, {10, 100}));
  expect_values(gradient(x), {20, 400});
  std::string error = error_of([&] { backward(x * x, ones({3})); });
  expect_contains(error, "(3,) instead of (2,)");
}

TEST(Engine, BroadcastingIsUndone) {
  Tensor row = requires_grad(ones({3})), column = requires_grad(ones({2, 1})), one = requires_grad(scalar(2));
  backward(sum(row * column * one));
  expect_values(gradient(row), {4, 4, 4});
  expect_values(gradient(column), {6, 6});
  expect_values(gradient(one), {6});
  EXPECT_EQ(gradient(column).shape, Shape({2, 1}));
  EXPECT_EQ(gradient(one).shape, Shape({}));
}

TEST(Hook, SeesTheCompleteGradientOnce) {
  Tensor x = leaf({3});
  Tensor y = x * 1;
  int calls = 0;
  add_hook(y, [&](const Tensor& g) {
    ++calls;
    expect_values(g, {2 + 5 + 1});
    return Tensor();  // only looks
  });
  backward(sum(y * 2 + y * 5 + y));
  EXPECT_EQ(calls, 1);
  expect_values(gradient(x), {8});
}

TEST(Hook, ChangesTheGradient) {
  Tensor x = leaf({3});
  Tensor y = x * 2;
  retain_gradient(y);
  add_hook(y, [](const Tensor& g) { return g * 10; });
  add_hook(y, [](const Tensor& g) { return g + 1; });  // in the order of registration
  backward(sum(y));
  expect_values(gradient(y), {11});
  expect_values(gradient(x), {22});
}

TEST(Hook, OnALeaf) {
  Tensor x = leaf({3});
  HookHandle hook = add_hook(x, [](const Tensor& g) { return g * -1; });
  backward(sum(x * 2 + x * 3));
  expect_values(gradient(x), {-5});
  hook.remove();
  hook.remove();  // again does nothing
  backward(sum(x * 2));
  expect_values(gradient(x), {-3});
}

TEST(Hook, HandleMayOutliveTheTensor) {
  HookHandle hook;
  {
    Tensor x = leaf({3});
    hook = add_hook(x, [](const Tensor& g) { return g; });
  }
  hook.remove();
  EXPECT_THROW(add_hook(scalar(1), [](const Tensor& g) { return g; }), Error);
}

TEST(Hook, MayRemoveItselfWhileItRuns) {
  Tensor x = leaf({1});
  HookHandle hook;
  int calls = 0;
  hook = add_hook(x, [&](const Tensor& g) {
    ++calls;
    hook.remove();
    return g;
  });
  backward(sum(x));
  backward(sum(x));
  EXPECT_EQ(calls, 1);
}

TEST(Hook, OfTheWrongShapeIsRefused) {
  Tensor x = leaf({1, 2});
  Tensor y = x * 2;
  add_hook(y, [](const Tensor&) { return zeros({3}); });
  std::string error = error_of([&] { backward(sum(y)); });
  expect_contains(error, "mul");
  expect_contains(error, "(3,) instead of (2,)");
}

// Sums that were half made when a hook threw must not show up in the next pass.
TEST(Hook, ExceptionLeavesTheGraphClean) {
  Tensor a = leaf({1}), b = leaf({1});
  Tensor shared = a * 2;
  Tensor thrower = b * 3;
  bool angry = true;
  add_hook(thrower, [&](const Tensor& g) {
    if (angry) throw std::runtime_error("hook");
    return g;
  });
  // `late` runs first and leaves a gradient waiting in `shared`, then thrower's hook throws
  Tensor late = thrower + shared;
  EXPECT_THROW(backward(sum(late)), std::runtime_error);
  for (const Tensor& t : {a, b, shared, thrower}) {
    EXPECT_FALSE(t.node->incoming);
    EXPECT_FALSE(t.node->queued);
    EXPECT_FALSE(gradient(t));
  }
  angry = false;
  backward(sum(shared * 5 + thrower));
  expect_values(gradient(a), {10});
  expect_values(gradient(b), {3});
}

TEST(NoGrad, RecordsNothing) {
  Tensor x = leaf({3});
  {
    NoGrad no_grad;
    EXPECT_FALSE(recording());
    EXPECT_FALSE((x * 2).node);
    {
      NoGrad inner;
      EXPECT_FALSE(recording());
    }
    EXPECT_FALSE(recording());
  }
  EXPECT_TRUE(recording());
  EXPECT_TRUE(bool((x * 2).node));
  EXPECT_FALSE((scalar(1) * scalar(2)).node);  // nothing wants a gradient
  EXPECT_FALSE((x.detach() * 2).node);
}

TEST(NoGrad, EndsWithAnException) {
  try {
    NoGrad no_grad;
    throw std::runtime_error("");
  } catch (const std::runtime_error&) {}
  EXPECT_TRUE(recording());
}

TEST(NoGrad, BackwardRecordsNothing) {
  Tensor x = leaf({3});
  bool recorded = true;
  add_hook(x, [&](const Tensor& g) {
    recorded = recording();
    return g;
  });
  backward(sum(x * x));
  EXPECT_FALSE(recorded);
  EXPECT_FALSE(gradient(x).node);
  EXPECT_TRUE(recording());
}

TEST(Refused, SecondBackwardThroughAUsedGraph) {
  Tensor x = leaf({3});
  int line = __LINE__ + 1;
  Tensor y = exp(x);
  Tensor loss = sum(y);
  backward(loss);
  std::string again = error_of([&] { backward(loss); });
  expect_contains(again, "sum");
  expect_contains(again, fmt::format("engine_test.cpp:{}", line + 1));
  // and by another way into the used part
  std::string part = error_of([&] { backward(sum(y * 2)); });
  expect_contains(part, "exp");
  expect_contains(part, fmt::format("engine_test.cpp:{}", line));
  expect_contains(part, "run the forward again");
}

TEST(Refused, ChangedSavedTensor) {
  Tensor x = leaf({3}), w = leaf({2});
  int line = __LINE__ + 1;
  Tensor y = x * w;
  w.set({0}, 7);
  std::string error = error_of([&] { backward(sum(y)); });
  expect_contains(error, "mul");
  expect_contains(error, fmt::format("engine_test.cpp:{}", line));
  expect_contains(error, "changed in place");
  expect_contains(error, "(1,)");
}

// A view shares its numbers with what was saved; only what is read matters.
TEST(Refused, ChangedSavedTensorThroughAView) {
  Tensor x = leaf({1, 2}), w = from_values({2}, {3, 4});
  Tensor y = x * w;
  Tensor part = view::slice(w, 0, 0, 1);
  fill(part, 9);
  EXPECT_THROW(backward(sum(y)), Error);

  Tensor fixed = from_values({2}, {3, 4});
  Tensor z = x * fixed;
  x.set({0}, 100);  // d z / d x does not read x
  backward(sum(z));
  expect_values(gradient(x), {3, 4});
}

TEST(Refused, LossOfSeveralElements) {
  Tensor x = leaf({1, 2});
  std::string error = error_of([&] { backward(x * 2); });
  expect_contains(error, "must be a scalar");
  expect_contains(error, "mul");
  expect_contains(error, "(2,)");
  EXPECT_THROW(backward(scalar(1)), Error);  // depends on nothing
  EXPECT_THROW(backward(requires_grad(zeros({0}))), Error);
}

TEST(Refused, RequiresGradOfAResult) {
  Tensor x = leaf({1});
  EXPECT_THROW(requires_grad(x * 2), Error);
  EXPECT_THROW(requires_grad(Tensor()), Error);
  Tensor again = requires_grad(x);
  EXPECT_EQ(again.node, x.node);
}

struct WrongCount {
  static constexpr auto name = "wrong_count";
  Tensor forward(std::span<const Tensor> x) { return clone(x[0]); }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const { return {dy}; }
};
struct WrongShape {
  static constexpr auto name = "wrong_shape";
  Tensor forward(std::span<const Tensor> x) { return clone(x[0]); }
  std::vector<Tensor> backward(const Tensor&, Needs) const { return {zeros({3})}; }
};
struct SmallerShape {
  static constexpr auto name = "smaller_shape";
  Tensor forward(std::span<const Tensor> x) { return clone(x[0]); }
  std::vector<Tensor> backward(const Tensor&, Needs) const { return {scalar(1)}; }
};

TEST(Refused, GradientsOfTheWrongNumberOrShape) {
  Tensor x = leaf({1, 2});
  std::string count = error_of([&] { backward(sum(record(WrongCount{}, {x, x}))); });
  expect_contains(count, "wrong_count");
  expect_contains(count, "1 gradients for 2 inputs");
  std::string shape = error_of([&] { backward(sum(record(WrongShape{}, {x}))); });
  expect_contains(shape, "wrong_shape");
  expect_contains(shape, "(3,)");
  expect_contains(shape, "(2,)");
  EXPECT_THROW(backward(sum(record(SmallerShape{}, {x}))), Error);
}

// The second gradient only.
struct Forgets {
  static constexpr auto name = "forgets";
  Tensor forward(std::span<const Tensor> x) { return x[0] * x[1]; }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const { return {Tensor(), dy}; }
  std::vector<Tensor> backward_recorded(const Tensor& dy, Needs, Attach) const { return {Tensor(), dy}; }
};

TEST(Refused, AnEmptyGradientThatIsWanted) {
  Tensor x = leaf({1, 2}), w = leaf({3, 4});
  const int line = __LINE__ + 1;
  auto forgets = [&] { return record(Forgets{}, {x * 1, w}); };
  for (bool again : {false, true}) {
    std::string error = error_of([&] { backward(sum(forgets()), {.create_graph = again}); });
    expect_contains(error,
                    fmt::format("backward of forgets (tests/autograd/engine_test.cpp:{}): gradient 0 is empty", line));
    expect_contains(error, "its input mul (tests/autograd/engine_test.cpp:");
    expect_contains(error, "(2,) wants one");
  }
  freeze(x);  // now it wants none
  backward(sum(forgets()));
  expect_values(gradient(w), {1, 1});
}

struct GivesNothing {
  static constexpr auto name = "nothing";
  Tensor forward(std::span<const Tensor>) { return {}; }
  std::vector<Tensor> backward(const Tensor&, Needs) const { return {}; }
};

TEST(Refused, EmptyTensors) {
  expect_contains(error_of([] { record(GivesNothing{}, {ones({2})}); }), "nothing: forward returned an empty tensor");
  expect_contains(error_of([] { sum(Tensor()); }), "sum: input 0 is an empty tensor");
  expect_contains(error_of([] { ones({2}) * Tensor(); }), "mul: input 1 is an empty tensor");
}

// Whatever an operation throws, the error says where it was.
TEST(Refused, OtherExceptionsAreNamed) {
  auto throwing = [](bool forward) {
    return record(
        "careless", {requires_grad(ones({2}))},
        [=](std::span<const Tensor> x) {
          if (forward) throw std::out_of_range("no such thing");
          return x[0] * 1;
        },
        [](const Tensor&, std::span<const Tensor>, const Tensor&) -> std::vector<Tensor> {
          throw std::out_of_range("no such thing");
        });
  };
  expect_contains(error_of([&] { throwing(true); }), "careless (tests/autograd/engine_test.cpp:");
  Tensor y = sum(throwing(false));
  try {
    backward(y);
    FAIL() << "its backward threw";
  } catch (const Error& error) {
    expect_contains(error.what(), "backward of careless (");
    expect_contains(error.what(), "threw: no such thing");
    EXPECT_THROW(std::rethrow_if_nested(error), std::out_of_range);
  }
}

TEST(Refused, TooManyInputs) {
  std::vector<Tensor> inputs(33, leaf({1}));
  EXPECT_THROW(record(WrongCount{}, std::span<const Tensor>(inputs)), Error);
  NoGrad no_grad;  // without a graph any number will do
  EXPECT_NO_THROW(record(WrongCount{}, std::span<const Tensor>(inputs)));
}

TEST(Graph, LongChainIsDroppedWithoutRecursion) {
  Tensor x = leaf({1});
  Tensor y = x;
  for (int i = 0; i < 300000; ++i) y = -y;
  std::weak_ptr<Node> last = y.node;
  y = {};
  EXPECT_TRUE(last.expired());
  EXPECT_EQ(x.node.use_count(), 1);
}

TEST(Graph, LongChainIsDifferentiated) {
  Tensor x = leaf({1});
  Tensor y = x;
  for (int i = 0; i < 300000; ++i) y = -y;
  backward(sum(y));
  expect_values(gradient(x), {1});
  y = {};
  EXPECT_EQ(x.node.use_count(), 1);
}

// A chain in which each link also hangs on a second path.
TEST(Graph, LongBraidIsDropped) {
  Tensor x = leaf({1});
  Tensor y = x, older = x;
  for (int i = 0; i < 100000; ++i) {
    Tensor next = y + older;
    older = y;
    y = next;
  }
  y = older = {};
  EXPECT_EQ(x.node.use_count(), 1);
}

TEST(Graph, BackwardLetsGoOfWhatWasSaved) {
  Tensor x = leaf({1, 2}), w = from_values({2}, {3, 4});
  Tensor y = x * w;
  EXPECT_EQ(w.storage.use_count(), 2);
  backward(sum(y));
  EXPECT_EQ(w.storage.use_count(), 1);  // though y still lives
  EXPECT_EQ(x.node.use_count(), 1);
}

TEST(Graph, SourceLineIsTheCallers) {
  Tensor a = leaf({1}), b = leaf({2});
  int line = __LINE__;
  std::vector<Tensor> results{
      a * b,                       //
      1 - a,                       //
      -a,                          //
      exp(a),                      //
      sum(a, {0}),                 //
      maximum(a, 0.5),             //
      record(LoggedTwice{}, {a}),  //
      reshape(a, {1, 1}),          //
      split(a, 1, 0).front()       //
  };
  for (size_t i = 0; i < results.size(); ++i) {
    const Node& node = *results[i].node;
    EXPECT_EQ(node.where.line, line + 2 + int(i)) << node.describe();
    EXPECT_NE(std::string(node.where.file).find("engine_test.cpp"), std::string::npos) << node.describe();
  }
  EXPECT_STREQ(results[0].node->name(), "mul");
}

TEST(Graph, ModulePathIsThatOfTheScope) {
  Tensor x = leaf({1});
  auto path = std::make_shared<std::string>("attention");
  Tensor y, z;
  {
    Scope scope(path);
    y = x * 2;
    {
      Scope inner(std::make_shared<std::string>("attention.key"));
      z = x * 3;
    }
    EXPECT_EQ(*current_module(), "attention");
  }
  EXPECT_FALSE(current_module());
  *path = "blocks.3.attention";  // a parent gives the rest of the name later
  expect_contains(y.node->describe(), "in blocks.3.attention)");
  expect_contains(z.node->describe(), "in attention.key)");
  EXPECT_EQ((x * 2).node->describe().find(", in"), std::string::npos);

  backward(sum(y));
  expect_contains(error_of([&] { backward(sum(y * 2)); }), "in blocks.3.attention)");
  Scope scope(path);
  expect_contains(error_of([&] { ones({2}) + ones({3}); }), "(in blocks.3.attention)");
}

TEST(Graph, BranchesWithoutGradientAreNotFollowed) {
  Tensor x = leaf({1}), constant = from_values({1}, {4});
  Tensor y = x * constant;
  ASSERT_EQ(y.node->inputs.size(), 2u);
  EXPECT_EQ(y.node->inputs[0], x.node);
  EXPECT_FALSE(y.node->inputs[1]);
}

}  // namespace
}  // namespace rapt

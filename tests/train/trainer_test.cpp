#include "../../train/trainer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "../../core/parallel.h"
#include "../../core/random.h"
#include "../../data/stories.h"
#include "../../nn/gpt.h"
#include "../../optim/adamw.h"
#include "../../optim/sgd.h"
#include "../../train/evaluate.h"
#include "../expect.h"

namespace rapt {
namespace {

// A small model on the stories, trained by batches of `batch` windows.
struct Setting {
  Tokenizer tokenizer;
  TokenStream tokens;
  Gpt model;
  AdamW optimizer;

  static GptConfig config(int64_t vocabulary) {
    GptConfig c;
    c.vocabulary = vocabulary;
    c.context = 32;
    c.layers = 2;
    c.heads = 2;
    c.dim = 32;
    return c;
  }
  explicit Setting(std::string text = make_stories(1, 20'000).text)
      : tokenizer(Tokenizer::characters(text)),
        tokens(tokenizer, text),
        model((manual_seed(1), config(tokenizer.vocabulary_size()))),
        optimizer(model.parameters(), {.learning_rate = 3e-3}) {}

  Trainer trainer(int64_t batch, int64_t accumulate, double clip = 1) {
    TrainBatches batches{tokens.span(), batch, 32, accumulate, 1};
    return {model.parameters(),
            optimizer,
            {.accumulate = accumulate,
             .clip = clip,
             .seed = 1,
             .learning_rate = [](int64_t) { return 3e-3; },
             .batch = [batches](int64_t step, int64_t micro) { return batches.batch(step, micro); },
             .loss = [this](const Batch& b) { return model.loss(b.x, b.y); }},
            0};
  }
  std::vector<Real> weights() const {
    std::vector<Real> all;
    for (const NamedTensor& p : model.parameters()) {
      std::vector<Real> values = p.tensor.to_vector();
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }
};

TEST(Trainer, TheLossStartsAtThatOfGuessingAndFalls) {
  Setting setting;
  Trainer trainer = setting.trainer(8, 1);
  double first = trainer.step().loss, last = 0;
  EXPECT_NEAR(first, std::log(double(setting.tokenizer.vocabulary_size())), 0.1);
  trainer.run(150, [&](const StepReport& report) {
    last = report.loss;
    return true;
  });
  EXPECT_EQ(trainer.steps_done(), 150);
  EXPECT_LT(last, 0.75 * first);
}

TEST(Trainer, NoStepAfterTheFirstAsksTheSystemForMemory) {
  const int restored = threads();
  for (int count : {1, 2, 8}) {
    set_threads(count);
    Setting setting;
    Trainer trainer = setting.trainer(8, 2);
    trainer.step();
    const int64_t before = memory_stats().new_blocks;
    for (int i = 0; i < 5; ++i) trainer.step();
    EXPECT_EQ(memory_stats().new_blocks, before) << count << " threads";
  }
  set_threads(restored);
}

TEST(Trainer, GradientsAreAveragedOverTheBatchesOfAStep) {
  Setting whole, parts;
  Trainer one = whole.trainer(8, 1, 0), four = parts.trainer(2, 4, 0);
  StepReport a = one.step(), b = four.step();
  EXPECT_NEAR(a.loss, b.loss, 1e-5);
  EXPECT_NEAR(a.gradient_norm, b.gradient_norm, 1e-4 * a.gradient_norm);
  EXPECT_EQ(a.tokens, b.tokens);
}

TEST(Trainer, DivergenceNamesStepAndParameterAndLeavesTheWeights) {
  Setting setting;
  Trainer trainer = setting.trainer(4, 1);
  trainer.step();
  Tensor weight = setting.model.blocks[1].mlp.up.weight;
  weight.set({0, 0}, NAN);
  std::vector<Real> before = setting.weights();
  try {
    trainer.step();
    FAIL() << "a weight was NaN";
  } catch (const DivergedError& error) {
    std::string what = error.what();
    EXPECT_NE(what.find("step 2"), std::string::npos) << what;
    EXPECT_NE(what.find("blocks.1.mlp.up.weight"), std::string::npos) << what;
    EXPECT_NE(what.find("matrices"), std::string::npos) << what;
  }
  std::vector<Real> after = setting.weights();
  ASSERT_EQ(before.size(), after.size());
  for (size_t i = 0; i < before.size(); ++i) {
    if (std::isnan(before[i])) continue;
    ASSERT_EQ(before[i], after[i]);
  }
}

TEST(Trainer, StopsWhenTold) {
  Setting setting;
  Trainer trainer = setting.trainer(2, 1);
  trainer.run(100, [](const StepReport& report) { return report.step < 3; });
  EXPECT_EQ(trainer.steps_done(), 3);
}

// A schedule, a data source and a look at the gradients of one's own, in lines y = 2x + 1.
TEST(Trainer, TakesAnyScheduleDataAndCallback) {
  manual_seed(1);
  Linear line(1, 1);
  SGD optimizer(line.parameters());
  std::vector<double> rates;
  std::vector<int64_t> looked;
  auto squared = [&](const Batch& b) {
    Tensor error = line(b.inputs) - b.targets;
    return mean(error * error);
  };
  auto points = [](int64_t step, int64_t) {
    manual_seed(uint64_t(step));
    Tensor x = normal({32, 1});
    return Batch{.x = {}, .y = {}, .inputs = x, .targets = x * 2 + 1};
  };
  auto look = [&](int64_t step) {
    looked.push_back(step);
    EXPECT_TRUE(gradient(line.weight));
    if (step == 0) set_gradient(line.weight, zeros({1, 1}));  // and changes it
  };
  Trainer trainer(line.parameters(), optimizer,
                  {.learning_rate = [](int64_t step) { return step < 100 ? 0.1 : 0.01; },
                   .batch = points,
                   .loss = squared,
                   .after_backward = look});
  const Real before = line.weight.item();
  rates.push_back(trainer.step().learning_rate);
  EXPECT_EQ(line.weight.item(), before);
  trainer.run(110, [&](const StepReport& report) {
    rates.push_back(report.learning_rate);
    return true;
  });
  EXPECT_EQ(rates.front(), 0.1);
  EXPECT_EQ(rates.back(), 0.01);
  EXPECT_EQ(looked.size(), 110u);
  EXPECT_EQ(looked.back(), 109);
  EXPECT_NEAR(line.weight.item(), 2, 1e-3);
  EXPECT_NEAR(line.bias.item(), 1, 1e-3);
}

TEST(Trainer, NamesALeafOfAModuleThatIsNoParameter) {
  struct Scaled : Module {
    Linear line;
    Tensor scale = requires_grad(ones({1}));
    Scaled() : line(child<Linear>("line", 1, 1)) {}
    Tensor operator()(const Tensor& x) const { return line(x) * scale; }
  };
  Scaled model;
  AdamW optimizer(model.parameters(), {.learning_rate = 0.1});
  Trainer trainer(model.parameters(), optimizer,
                  {.learning_rate = [](int64_t) { return 0.1; },
                   .batch =
                       [](int64_t, int64_t) {
                         return Batch{.x = {}, .y = {}, .inputs = ones({2, 1})};
                       },
                   .loss = [&](const Batch& b) { return mean(model(b.inputs)); }});
  std::string error = error_of([&] { trainer.run(3, [](const StepReport&) { return true; }); });
  expect_contains(error, "a leaf of requires_grad, (1,) (made in Scaled at tests/train/trainer_test.cpp:");
  EXPECT_EQ(trainer.steps_done(), 1);
}

TEST(Evaluate, CountsEveryTokenOnceWhateverTheBatch) {
  Setting setting;
  TokenSpan part = setting.tokens.span().part(0, 1000);
  Evaluation a = evaluate(setting.model, {part, 1, 32, 0}, setting.tokenizer);
  Evaluation b = evaluate(setting.model, {part, 7, 32, 0}, setting.tokenizer);
  EXPECT_EQ(a.tokens, 999);
  EXPECT_EQ(b.tokens, 999);
  EXPECT_NEAR(a.loss, b.loss, 1e-5);
  EXPECT_NEAR(a.bits_per_byte, a.loss / std::log(2.0), 1e-9);  // the stories are ASCII: a byte a character
}

}  // namespace
}  // namespace rapt

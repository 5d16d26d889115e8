#include "../../train/config.h"

#include <gtest/gtest.h>

#include "../../train/report.h"

namespace rapt {
namespace {

TEST(Config, SurvivesJson) {
  RunConfig config;
  config.text = "a \"quoted\" path.txt";
  config.layers = 7;
  config.lr = 0.1 + 0.2;
  config.bias = true;
  config.schedule = "wsd";
  EXPECT_EQ(config_from_json(to_json(config), "here"), config);
}

TEST(Config, JsonIsReadStrictly) {
  std::string good = to_json(RunConfig{});
  auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  EXPECT_NO_THROW(config_from_json(good, "here"));
  EXPECT_THROW(config_from_json(with("\"layers\": 3", "\"layers\": 3.5"), "here"), DataError);
  EXPECT_THROW(config_from_json(with("\"layers\": 3", "\"layers\": 0"), "here"), DataError);
  EXPECT_THROW(config_from_json(with("\"layers\"", "\"layer\""), "here"), DataError);
  EXPECT_THROW(config_from_json(with("{", "{\"more\": 1, "), "here"), DataError);
}

TEST(Config, TheLearningRateSuitsTheOptimizer) {
  RunConfig config;
  config.optimizer = "adamw";
  EXPECT_EQ(resolved(config).lr, 1e-3);
  EXPECT_EQ(resolved(config).min_lr, 1e-5);
  config.lr = 0.5;
  config.min_lr = 0;
  EXPECT_EQ(resolved(config), config);
}

TEST(Config, TheNearestWordIsFoundUnlessItIsFar) {
  std::vector<std::string> known{"--layers", "--heads", "--lr"};
  EXPECT_EQ(nearest("--layrs", known), "--layers");
  EXPECT_EQ(nearest("--hedas", known), "--heads");
  EXPECT_EQ(nearest("--something-else", known), "");
}

TEST(Report, NumbersAndTimesAreShort) {
  EXPECT_EQ(short_number(7), "7");
  EXPECT_EQ(short_number(1234), "1.23k");
  EXPECT_EQ(short_number(48'321), "48.3k");
  EXPECT_EQ(short_number(999'700), "1.00M");
  EXPECT_EQ(short_number(2.1e6), "2.10M");
  EXPECT_EQ(clock_time(7), "0:07");
  EXPECT_EQ(clock_time(754), "12:34");
  EXPECT_EQ(clock_time(3723), "1:02:03");
}

}  // namespace
}  // namespace rapt

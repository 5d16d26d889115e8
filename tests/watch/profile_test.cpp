#include "../../watch/profile.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "../../autograd/ops.h"
#include "../train/program.h"

namespace rapt {
namespace {

// Two modules, forward and backward.
void work() {
  Tensor w = requires_grad(uniform({8, 8}));
  Tensor x = uniform({16, 8});
  auto path = [](const char* name) { return std::make_shared<const std::string>(name); };
  for (const char* block : {"blocks.0", "blocks.1"}) {
    Scope outer(path(block));
    x = x + 1;
    Scope inner(path((std::string(block) + ".mlp").c_str()));
    x = matmul(tanh(x), w);
  }
  backward(sum(x));
}

nlohmann::json trace_of(const Profile& profile) {
  test::TemporaryFolder folder;
  profile.write_trace(folder / "trace.json");
  return nlohmann::json::parse(test::read_file(folder / "trace.json"));
}

TEST(Profile, WritesSlicesThatNest) {
  Profile profile;
  work();
  auto events = trace_of(profile).at("traceEvents");
  std::vector<std::string> names;
  struct Span {
    double begin, end;
  };
  std::vector<Span> slices;
  for (const auto& e : events) {
    if (e.at("ph") != "X") continue;
    names.push_back(e.at("name"));
    double begin = e.at("ts"), duration = e.at("dur");
    slices.push_back({begin, begin + duration});
    const bool own =
        e.contains("args") && e.at("args").at("where").get<std::string>().find("profile_test") != std::string::npos;
    if (e.at("name") == "matmul" && own) {
      EXPECT_EQ(e.at("args").at("operations"), 2 * 16 * 8 * 8);
      EXPECT_EQ(e.at("args").at("bytes"), (16 * 8 + 8 * 8 + 16 * 8) * int64_t(sizeof(Real)));
      EXPECT_EQ(e.at("args").at("shape"), "(16, 8)");
    }
  }
  for (const char* name : {"blocks", "blocks.0", "blocks.1", "blocks.0.mlp", "matmul", "tanh", "add",
                           "backward of matmul", "backward of tanh"}) {
    EXPECT_NE(std::ranges::find(names, name), names.end()) << name;
  }
  EXPECT_EQ(std::ranges::find(names, "backward of leaf"), names.end());
  const double rounding = 0.002;  // microseconds
  for (const Span& a : slices) {
    for (const Span& b : slices) {
      bool apart = a.end <= b.begin + rounding || b.end <= a.begin + rounding;
      bool a_in_b = a.begin >= b.begin - rounding && a.end <= b.end + rounding;
      bool b_in_a = b.begin >= a.begin - rounding && b.end <= a.end + rounding;
      EXPECT_TRUE(apart || a_in_b || b_in_a);
    }
  }
}

TEST(Profile, TablesMergeNumberedModulesAndCountCalls) {
  Profile profile;
  work();
  std::string tables = profile.tables();
  auto row = [&](const std::string& begin) {
    size_t at = tables.find("\n" + begin);
    EXPECT_NE(at, std::string::npos) << begin << " is not in:\n" << tables;
    return at == std::string::npos ? "" : tables.substr(at + 1, tables.find('\n', at + 1) - at - 1);
  };
  EXPECT_EQ(row("    * ").substr(32, 10), "         6");  // calls of both blocks and what is in them
  EXPECT_EQ(row("      mlp ").substr(32, 10), "         4");
  EXPECT_EQ(row("matmul ").substr(32, 10), "         2");
  EXPECT_EQ(row("tanh ").substr(32, 10), "         2");
  EXPECT_NE(tables.find("outside of operations"), std::string::npos);
}

// An operation made of others.
struct Composed {
  static constexpr auto name = "composed";
  Tensor forward(std::span<const Tensor> x) { return matmul(x[0], x[0]); }
  std::vector<Tensor> backward(const Tensor& dy, Needs) const { return {dy}; }
};

TEST(Profile, CountsAnOperationMadeOfOthersOnce) {
  Profile profile;
  record(Composed{}, {ones({4, 4})});
  std::string tables = profile.tables();
  EXPECT_EQ(tables.find("\nmatmul"), std::string::npos) << tables;
  auto trace = trace_of(profile);
  for (const auto& e : trace.at("traceEvents")) {
    if (e.at("name") == "composed") {
      EXPECT_EQ(e.at("args").at("operations"), 2 * 4 * 4 * 4) << "the sum of its parts";
    }
  }
}

TEST(Profile, SurvivesAnOperationThatThrows) {
  Profile profile;
  EXPECT_THROW(matmul(ones({2, 3}), ones({2, 3})), Error);
  exp(ones({2}));
  EXPECT_NE(profile.tables().find("\nexp "), std::string::npos);
}

TEST(Profile, KeepsNoMoreEventsThanAsked) {
  Profile all, three(3);
  work();
  int operations = 0;
  auto trace = trace_of(all);
  for (const auto& e : trace.at("traceEvents")) operations += e.contains("args") && e.at("ph") == "X";
  EXPECT_EQ(trace_of(three).at("otherData").at("operations left out at the end"), operations - 3);
}

TEST(Profile, SaysWhenTheTraceCantBeWritten) {
  Profile profile;
  EXPECT_THROW(profile.write_trace("/nowhere/trace.json"), DataError);
}

}  // namespace
}  // namespace rapt

#include <gtest/gtest.h>
#include <rapt/data/formats/weights_folder.h>

#include "files.h"

namespace rapt {
namespace {

using namespace rapt_test;

// a and b in one file, c in another.
struct Sharded : TempFolder {
  Tensor a = from_values({2}, {1, 2}), b = from_values({1, 2}, {3, 4}), c = from_values({}, {5});

  Sharded() {
    write_safetensors(*this / "1.safetensors", {tensor_view("a", a), tensor_view("b", b)});
    write_safetensors(*this / "2.safetensors", {tensor_view("c", c), tensor_view("not in the map", a)});
    map(R"({"a":"1.safetensors","b":"1.safetensors","c":"2.safetensors"})");
  }
  void map(const std::string& weight_map) {
    put(*this / "model.safetensors.index.json", R"({"metadata":{"total_size":20},"weight_map":)" + weight_map + "}");
  }
  std::string refusal() {
    return message_of([&] { WeightsFolder::open(path); });
  }
};

TEST(WeightsFolder, OneFile) {
  TempFolder folder;
  Tensor a = from_values({2}, {1, 2});
  write_safetensors(folder / "model.safetensors", {tensor_view("a", a)});
  put(folder / "model.safetensors.index.json", "not looked at");
  WeightsFolder weights = WeightsFolder::open(folder.path);
  EXPECT_EQ(weights.names(), (std::vector<std::string>{"a"}));
  EXPECT_EQ(weights.tensor("a").to_vector(), a.to_vector());
  EXPECT_EQ(weights.find("b"), nullptr);
  EXPECT_HAS(message_of([&] { weights.tensor("b"); }), "model.safetensors: there is no tensor \"b\"");
}

TEST(WeightsFolder, SeveralFiles) {
  Sharded folder;
  WeightsFolder first = WeightsFolder::open(folder.path);
  WeightsFolder weights = first;
  EXPECT_EQ(weights.names(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(weights.tensor("a").to_vector(), folder.a.to_vector());
  EXPECT_EQ(weights.tensor("b").to_vector(), folder.b.to_vector());
  EXPECT_EQ(weights.tensor("c").item(), 5);
  EXPECT_EQ(weights.find("not in the map"), nullptr);
}

TEST(WeightsFolder, RejectsABadIndex) {
  Sharded folder;
  for (const char* file :
       {"../1.safetensors", "/etc/1.safetensors", "sub/1.safetensors", "sub\\\\1.safetensors", "..", ""}) {
    folder.map(R"({"a":")" + std::string(file) + "\"}");
    EXPECT_HAS(folder.refusal(),
               "model.safetensors.index.json: /weight_map/a: expected the name of a file in the same");
  }
  folder.map(R"({"a":"3.safetensors"})");
  EXPECT_HAS(folder.refusal(), "3.safetensors: can't open the file");
  folder.map(R"({"a":"2.safetensors"})");
  EXPECT_HAS(folder.refusal(), "/weight_map/a: expected the tensor in \"2.safetensors\", which has none");
  folder.map(R"({"a":1})");
  EXPECT_HAS(folder.refusal(), "/weight_map/a: expected a string, found 1");
  folder.map("[]");
  EXPECT_HAS(folder.refusal(), "/weight_map: expected an object");
  put(folder / "model.safetensors.index.json", "{}");
  EXPECT_HAS(folder.refusal(), "the key \"weight_map\" is missing");
  std::filesystem::remove(folder / "model.safetensors.index.json");
  EXPECT_HAS(folder.refusal(), "model.safetensors: can't open the file: No such file");
}

TEST(WeightsFolder, ExpectsExactlyTheTensorsOfAModel) {
  Sharded folder;
  WeightsFolder weights = WeightsFolder::open(folder.path);
  WeightsFolder::Shapes shapes = {{"a", {2}}, {"b", {1, 2}}, {"c", {}}};
  weights.expect(shapes);

  shapes.erase("c");
  weights.expect(shapes, [](std::string_view name) { return name == "c"; });
  std::string message = message_of([&] { weights.expect(shapes); });
  EXPECT_EQ(message, weights.name() + ": the tensors are not those of the model:\n  unexpected: \"c\"");

  EXPECT_HAS(message_of([&] {
               weights.expect({{"a", {3}}, {"b", {1, 2}}, {"c", {}}});
             }),
             "shape of \"a\": expected [3], found [2]");
  shapes = {{"a", {2, 1}}, {"b", {1, 2}}, {"x", {7}}, {"y", {}}};
  message = message_of([&] { weights.expect(shapes); });
  EXPECT_EQ(message,
            weights.name() +
                ": the tensors are not those of the model:\n  missing: \"x\" [7]\n  missing: \"y\" []\n  shape of "
                "\"a\": expected [2,1], found [2]\n  unexpected: \"c\"");
}

}  // namespace
}  // namespace rapt

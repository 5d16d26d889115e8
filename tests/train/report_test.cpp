#include "../../train/report.h"

#include <unistd.h>

#include <cerrno>

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "../../data/formats/atomic_file.h"
#include "program.h"

namespace rapt::test {
namespace {

// What happens to the calls of write, in turn: bytes written before the disk is full, or −1 for all.
std::vector<int> room_of_the_disk;

TEST(RunLog, WritesWhatDidNotFitWhenThereIsRoomAgain) {
  TemporaryFolder folder;
  SystemCalls real = system_calls();
  std::vector<std::string> warnings;
  std::vector<std::string> contents;
  {
    RunLog log(folder / "log.jsonl", 0);
    room_of_the_disk = {-1, 20, 0, 0, 200, 0, 0, -1};
    system_calls().write = [](int fd, const void* bytes, size_t size) -> ssize_t {
      int room = room_of_the_disk.front();
      room_of_the_disk.erase(room_of_the_disk.begin());
      if (room != 0) return ::write(fd, bytes, room < 0 ? size : std::min(size, size_t(room)));
      errno = ENOSPC;
      return -1;
    };
    for (int64_t step = 1; step <= 6; ++step) {
      std::string warning = log.write({.step = step, .loss = 1.5}, 100, std::nullopt);
      if (!warning.empty()) warnings.push_back(warning);
      contents.push_back(read_file(folder / "log.jsonl"));
    }
    system_calls() = real;
  }
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("no line for step 2"), std::string::npos) << warnings[0];
  for (const std::string& text : contents) EXPECT_TRUE(text.ends_with("}\n")) << text;
  auto steps = [](const std::string& text) {
    std::vector<int> all;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) all.push_back(nlohmann::json::parse(line).at("step"));
    return all;
  };
  EXPECT_EQ(steps(contents[1]), std::vector({1}));
  EXPECT_EQ(steps(contents[2]), std::vector({1}));
  EXPECT_EQ(steps(contents[3]), std::vector({1, 2, 3})) << "two of the three lines fitted";
  EXPECT_EQ(steps(contents[4]), std::vector({1, 2, 3}));
  EXPECT_EQ(steps(contents[5]), std::vector({1, 2, 3, 4, 5, 6}));
}

}  // namespace
}  // namespace rapt::test

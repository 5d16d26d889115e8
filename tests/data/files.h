#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <string_view>

#include <rapt/core/check.h>
#include <rapt/data/formats/safetensors.h>

/// What tests of files need: a folder that goes away, whole files, and what an error says.
namespace rapt_test {

struct TempFolder {
  std::filesystem::path path;

  TempFolder() {
    static int count = 0;
    // In memory where possible: some file systems wait for the disk whenever a file replaces another one.
    std::filesystem::path memory = "/dev/shm";
    path = (::access(memory.c_str(), W_OK) == 0 ? memory : std::filesystem::temp_directory_path()) /
           ("rapt-test-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
    std::filesystem::remove_all(path);
    std::filesystem::create_directories(path);
  }
  ~TempFolder() { std::filesystem::remove_all(path); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  std::filesystem::path operator/(std::string_view name) const { return path / name; }

  /// The names of all files in it.
  std::set<std::string> names() const {
    std::set<std::string> result;
    for (const auto& entry : std::filesystem::directory_iterator(path)) result.insert(entry.path().filename().string());
    return result;
  }
};

inline std::string contents(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void put(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), std::streamsize(bytes.size()));
}

/// The text of the E that f throws; "" and a failure when it throws none.
template <class E = rapt::DataError, class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  }
  ADD_FAILURE() << "expected an error";
  return "";
}

/// Whether a message has this part; for EXPECT_HAS, which shows both when it has not.
inline bool has(const std::string& message, const std::string& part) { return message.find(part) != std::string::npos; }

inline std::string bytes_of(const rapt::TensorView& view) {
  return {reinterpret_cast<const char*>(view.bytes.data()), view.bytes.size()};
}

}  // namespace rapt_test

#define EXPECT_HAS(text, part) EXPECT_PRED2(rapt_test::has, text, part)

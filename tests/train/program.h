#pragma once
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace rapt::test {

/// A folder that is gone when the test ends.
struct TemporaryFolder {
  std::filesystem::path path;
  TemporaryFolder() {
    static int count = 0;
    path = std::filesystem::temp_directory_path() /
           ("rapt-test-" + std::to_string(getpid()) + "-" + std::to_string(count++));
    std::filesystem::create_directories(path);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::permissions(path, std::filesystem::perms::owner_all, ignored);
    std::filesystem::remove_all(path, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string operator/(const std::string& name) const { return (path / name).string(); }
};

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

inline void make_file(const std::filesystem::path& path, const std::string& contents) {
  std::ofstream(path, std::ios::binary) << contents;
}

/// A text that a tiny model learns in seconds.
inline std::string little_text() {
  std::string text;
  for (int i = 0; i < 120; ++i) text += "the cat sat on the mat and the dog lay by the log. ";
  return text;
}

struct Result {
  int code = -1;  ///< exit code; 128 + n when signal n ended it
  std::string out, err;
};

/// Runs the rapt program with these shell words in `folder`, between other commands of the shell.
inline Result rapt(const TemporaryFolder& folder, const std::string& arguments, const std::string& before = "",
                   const std::string& after = "") {
  std::string out = folder / "stdout.txt", err = folder / "stderr.txt";
  std::string command = "cd '" + folder.path.string() + "'; " + before + " '" + RAPT_PROGRAM "' " + arguments + " > '" +
                        out + "' 2> '" + err + "' < /dev/null " + after;
  int status = std::system(command.c_str());
  Result result;
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  result.out = read_file(out);
  result.err = read_file(err);
  return result;
}

}  // namespace rapt::test

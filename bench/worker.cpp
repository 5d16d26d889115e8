// One piece of work (see work.h), repeated on request: what bench/compare.py runs in turns with the same work in other
// frameworks. Prints a line of JSON when it is ready, and one for each number n read from stdin: the least and the
// median seconds of n repetitions of each part.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "../core/gemm.h"
#include "work.h"

namespace rapt {
namespace {

double resident_peak() {  // in MB
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmHWM:", 0) == 0) return std::stod(line.substr(6)) * 1024e-6;
  }
  return 0;
}

void run(const std::vector<std::string>& words) {
  Work work = make_work(words);
  fmt::print("{{\"ready\": true, \"operations\": {:.0f}, \"bytes\": {:.0f}, \"blas\": \"{}\"}}\n", work.operations,
             work.bytes, blas_description());
  std::fflush(stdout);
  for (int64_t n = 0; std::cin >> n;) {
    Times times;
    for (int64_t i = 0; i < n; ++i) work.repeat(times);
    std::string parts;
    for (auto& [name, t] : times) {
      std::sort(t.begin(), t.end());
      parts += fmt::format("\"{}\": [{:.9f}, {:.9f}], ", name, t[0], t[t.size() / 2]);
    }
    fmt::print("{{{}\"peak\": {:.1f}}}\n", parts, resident_peak());
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace rapt

int main(int argc, char** argv) {
  try {
    rapt::run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    fmt::print(stderr, "rapt_work: {}\n", error.what());
    return 2;
  }
}

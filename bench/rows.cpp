// The work of the comparison with peers, by rapt alone.
#include <benchmark/benchmark.h>

#include <iterator>
#include <sstream>

#include "work.h"

namespace rapt {
namespace {

void row(benchmark::State& state, const std::string& words) {
  std::istringstream in(words);
  Work work = make_work({std::istream_iterator<std::string>(in), {}});
  Times times;
  work.repeat(times);  // the first one asks the system for memory
  times.clear();
  for (auto _ : state) work.repeat(times);
  for (const auto& [part, seconds] : times) {
    double sum = 0;
    for (double s : seconds) sum += s;
    state.counters[part + ", ms"] = 1e3 * sum / double(seconds.size());
  }
  if (work.operations > 0) {
    state.counters["GF/s"] =
        benchmark::Counter(work.operations * 1e-9 * double(state.iterations()), benchmark::Counter::kIsRate);
  }
}

const bool registered = [] {
  for (const char* words : {"step 4 4 128 64 12 65", "step 6 6 384 256 8 65", "step 12 12 768 64 4 50304",
                            "attention 12 4 64 32", "attention 8 6 256 64", "attention 1 12 1024 64",
                            "attention 1 12 4096 64", "layer 8 1024 768 12", "decode 12 12 768 1024 50304"}) {
    benchmark::RegisterBenchmark(words, row, words)->UseRealTime()->Unit(benchmark::kMillisecond);
  }
  return true;
}();

}  // namespace
}  // namespace rapt

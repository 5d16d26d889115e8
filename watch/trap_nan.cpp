#include "trap_nan.h"

#include <link.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cfenv>
#include <csignal>
#include <cstring>
#include <utility>

#include "../core/parallel.h"

namespace rapt::inline RAPT_ABI {

struct TrapNan::Former {
  struct sigaction action;
};

namespace {

constexpr int kTraps = FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW;

// All that the handler reads. It runs in whichever thread trapped, so this is not per thread.
std::atomic<bool> in_use = false, reported = false;
std::atomic<const Operation*> current = nullptr;
std::atomic<const char*> last = nullptr;  // the name of the operation before, for what traps between two

/// Where code lies in memory, noted beforehand: a handler may not ask the loader.
struct LoadedFile {
  uintptr_t begin = 0, end = 0, base = 0;
  std::array<char, 512> path{};
};
std::array<LoadedFile, 64> files;
size_t file_count = 0;

int note_file(dl_phdr_info* info, size_t, void*) {
  for (int i = 0; i < info->dlpi_phnum && file_count < files.size(); ++i) {
    const auto& part = info->dlpi_phdr[i];
    if (part.p_type != PT_LOAD || !(part.p_flags & PF_X)) continue;
    LoadedFile& file = files[file_count++];
    file.base = info->dlpi_addr;
    file.begin = file.base + part.p_vaddr;
    file.end = file.begin + part.p_memsz;
    file.path = {};
    if (info->dlpi_name && *info->dlpi_name) {
      std::strncpy(file.path.data(), info->dlpi_name, file.path.size() - 1);
    } else if (readlink("/proc/self/exe", file.path.data(), file.path.size() - 1) < 0) {
      std::strcpy(file.path.data(), "the program");
    }
  }
  return 0;
}

// Text to standard error with nothing but write(2).
struct Writer {
  std::array<char, 2048> text;
  size_t size = 0;

  void add(const char* s) {
    while (*s && size < text.size()) text[size++] = *s++;
  }
  void add(uint64_t n, unsigned base = 10) {
    char digits[24];
    int i = 0;
    do digits[i++] = "0123456789abcdef"[n % base];
    while (n /= base);
    while (i > 0 && size < text.size()) text[size++] = digits[--i];
  }
  void add(const Operation& o) {
    if (o.backward) add("backward of ");
    add(o.name), add(" ("), add(o.where.file), add(":"), add(uint64_t(o.where.line));
    if (o.module && !o.module->empty()) add(", in "), add(o.module->c_str());
    add(")");
  }
  void flush() const {
    for (size_t at = 0; at < size;) {
      ssize_t n = ::write(STDERR_FILENO, text.data() + at, size - at);
      if (n <= 0) return;
      at += size_t(n);
    }
  }
};

const char* accident(int code) {
  switch (code) {
    case FPE_FLTINV:
      return "an invalid operation (∞ − ∞, 0 · ∞, 0/0, the root or logarithm of a negative number) made a NaN";
    case FPE_FLTDIV: return "a division by zero made an Inf";
    case FPE_FLTOVF: return "an overflow made an Inf";
    case FPE_INTDIV: return "an integer was divided by zero";
    default: return "an arithmetic error";
  }
}

void on_trap(int signal, siginfo_t* info, void*) {
  while (reported.exchange(true)) pause();  // another thread trapped too; the program ends when the first has told
  Writer w;
  w.add("rapt: "), w.add(accident(info->si_code)), w.add("\n  in ");
  if (const Operation* o = current.load()) {
    w.add(*o);
    for (int depth = 0; o->outer && depth < 4; ++depth) w.add("\n  part of "), w.add(*(o = o->outer));
  } else {
    w.add("no operation: in the optimizer, or whatever ran ");
    if (const char* name = last.load())
      w.add("after "), w.add(name);
    else
      w.add("before the first");
  }
  auto at = uintptr_t(info->si_addr);
  for (size_t i = 0; i < file_count; ++i) {
    if (at < files[i].begin || at >= files[i].end) continue;
    w.add("\n  instruction's line: addr2line -Cfie "), w.add(files[i].path.data());
    w.add(" 0x"), w.add(at - files[i].base, 16);
  }
  w.add("\n");
  w.flush();
  // the instruction runs again when this returns, and its signal takes the default course
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  sigaction(signal, &action, nullptr);
}

// In this thread and in those of the pool that it works with; threads that are started later inherit it.
void in_every_thread(int (*set)(int)) {
  parallel_tasks(threads(), [&](int64_t) {
    std::feclearexcept(FE_ALL_EXCEPT);
    set(kTraps);
  });
}

}  // namespace

TrapNan::TrapNan() : former_(std::make_unique<Former>()) {
  check(!in_use.exchange(true), "trap_nan: it is on already");
  file_count = 0;
  dl_iterate_phdr(note_file, nullptr);
  current = nullptr;
  last = nullptr;
  struct sigaction action {};
  action.sa_sigaction = on_trap;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGFPE, &action, &former_->action);
  if (feenableexcept(kTraps) < 0) {
    sigaction(SIGFPE, &former_->action, nullptr);
    in_use = false;
    throw Error("trap_nan: this processor can't trap floating-point exceptions; use check_finite");
  }
  in_every_thread(feenableexcept);
}

TrapNan::~TrapNan() {
  fedisableexcept(kTraps);  // here too: LLVM's OpenMP gives a thread its former mode back at the end of a region
  in_every_thread(fedisableexcept);
  sigaction(SIGFPE, &former_->action, nullptr);
  current = nullptr;
  in_use = false;
}

void TrapNan::begin(const Operation& operation) { current = &operation; }
void TrapNan::end(const Operation& operation) {
  last = operation.name;
  current = operation.outer;
}

}  // namespace rapt::inline RAPT_ABI

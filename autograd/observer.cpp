#include "observer.h"

#include <exception>
#include <utility>

namespace rapt::inline RAPT_ABI {

constinit thread_local Observer* detail::observers = nullptr;

namespace {
thread_local const Operation* innermost = nullptr;
}

Observer::Observer() : next_(std::exchange(detail::observers, this)) {}

Observer::~Observer() {
  Observer** at = &detail::observers;
  while (*at && *at != this) at = &(*at)->next_;
  if (*at) *at = next_;
}

std::string Operation::describe() const {
  std::string text = fmt::format("{}{} ({}:{}", backward ? "backward of " : "", name, where.file, where.line);
  if (module && !module->empty()) text += fmt::format(", in {}", *module);
  return text + ")";
}

void ObservedOperation::begin(const Operation& operation) {
  operation_ = operation;
  operation_.outer = std::exchange(innermost, &operation_);
  active_ = true;
  for (Observer* o = detail::observers; o; o = o->next_) o->begin(operation_);
}

void ObservedOperation::tell_end(std::span<const Tensor> results, const Node* node) {
  active_ = false;
  innermost = operation_.outer;
  operation_.results = results;
  operation_.node = node;
  std::exception_ptr failure;
  for (Observer* o = detail::observers; o; o = o->next_) {
    try {
      o->end(operation_);
    } catch (...) {
      if (!failure) failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

void ObservedOperation::fail() {
  innermost = operation_.outer;
  for (Observer* o = detail::observers; o; o = o->next_) o->failed(operation_);
}

}  // namespace rapt::inline RAPT_ABI

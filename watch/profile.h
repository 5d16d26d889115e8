#pragma once
#include <chrono>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "../autograd/observer.h"

namespace rapt::inline RAPT_ABI {

/// While it lives, notes when each operation of this thread ran, forward and backward, what it read and wrote, and how
/// many floating-point operations it took, where the operation knows (matrix products, attention, the loss). An
/// operation that others are parts of counts as one in the tables, with the sum of its parts' operations.
class Profile final : public Observer {
 public:
  /// The first `most_events` operations are kept for the trace; the tables count all.
  explicit Profile(size_t most_events = 200'000);

  void begin(const Operation& operation) override;
  void end(const Operation& operation) override;
  void failed(const Operation&) override { running_.pop_back(); }

  /// Two tables, by module (a module's time includes that of its parts, and numbers in paths are merged into *) and by
  /// operation: calls, time, share of the whole, GF/s, and memory that the calls kept; and what was not in any
  /// operation.
  std::string tables() const;
  /// JSON trace events for ui.perfetto.dev or chrome://tracing: nested by module, with bytes, operations and shapes.
  /// Throws DataError.
  void write_trace(const std::string& path) const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Running {
    Clock::time_point start;
    int64_t memory;
    double parts = 0;  // operations of those inside
  };
  struct Event {
    int name, module, where;
    bool backward, part;  // part of another operation
    double start, duration, operations;
    int64_t bytes, memory;
    Shape shape;
  };
  struct Total {
    int64_t calls = 0;
    double forward = 0, backward = 0, operations = 0, counted = 0;  // counted: seconds of what has operations
    int64_t kept = 0;
  };
  int intern(std::string_view text);
  void count(Total& total, const Event& event, int64_t kept) const;
  std::string table(const char* title, const std::map<std::string, Total>& totals, double whole, bool tree) const;

  size_t most_events_;
  int64_t dropped_ = 0;
  Clock::time_point began_ = Clock::now();
  std::vector<Running> running_;
  std::vector<Event> events_;
  std::map<std::string, int, std::less<>> ids_;
  std::vector<std::string> texts_;
  std::unordered_map<uint64_t, double> backward_cost_;  // by the sequence of nodes that wait for their backward
  std::map<std::string, Total> by_operation_, by_module_;
};

}  // namespace rapt::inline RAPT_ABI

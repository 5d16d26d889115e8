#pragma once
#include <memory>

#include "../autograd/observer.h"

namespace rapt::inline RAPT_ABI {

/// While it lives, the very instruction that makes the first NaN or Inf stops the program, in whatever thread: invalid
/// operations, divisions by zero and overflows raise SIGFPE. The handler writes the operation of rapt that is running,
/// its module, its source line and the instruction's address to standard error, and then lets the signal take its
/// course: the program ends by SIGFPE (a shell shows 136), with a core file where those are on; in a debugger it stops
/// at the instruction.
///
/// Infinities that are written down as constants, as in masks, are no accident and trap nothing. A NaN that was there
/// before (loaded from a file, say) traps where it is first compared, or not at all: CheckFinite finds those. One at a
/// time. Threads that exist already and are not OpenMP's stay as they were. Throws where the processor can't trap.
class TrapNan final : public Observer {
 public:
  TrapNan();
  ~TrapNan() override;

  void begin(const Operation& operation) override;
  void end(const Operation& operation) override;
  void failed(const Operation& operation) override { end(operation); }

 private:
  struct Former;
  std::unique_ptr<Former> former_;  // the handler there was before
};

}  // namespace rapt::inline RAPT_ABI

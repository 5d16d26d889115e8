#pragma once
#include "../autograd/observer.h"

namespace rapt::inline RAPT_ABI {

/// What CheckFinite throws.
struct NotFiniteError : Error {
  using Error::Error;
};

/// While it lives, the first operation of this thread, forward or backward, whose result holds NaN or Inf throws
/// NotFiniteError: it names the operation, its source line and module, how many numbers are bad and where the first one
/// is, and which of its inputs were bad already (a weight, say, since every operation before was fine).
///
/// −∞ is let through on the way forward where it is a value and no accident: from where, pad and attention_lse, and in
/// what is computed from it. Every result is read once more, which costs a few percent.
class CheckFinite final : public Observer {
 public:
  void end(const Operation& operation) override;
};

}  // namespace rapt::inline RAPT_ABI

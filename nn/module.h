#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "../autograd/ops.h"

namespace rapt::inline RAPT_ABI {

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

/// A part of a model: its parameters under dotted names, its own and those of its parts, in the order they were made.
/// A name is given once, where the thing is made:
///
///     struct Gated : Module {
///       Linear up, gate;
///       Gated(int64_t d, int64_t h) : up(child<Linear>("up", d, h)), gate(child<Linear>("gate", d, h)) {}
///       Tensor operator()(const Tensor& x) const { return up(x) * silu(gate(x)); }
///     };
///
/// Tensors are handles, so the list *is* the state of the model. Modules can be moved, not copied: sharing weights is
/// written out. Begin operator() with `Scope scope(path());` to have its operations named in errors and in the
/// debugger.
class Module {
 public:
  Module(Module&&) = default;
  Module& operator=(Module&&) = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  const std::vector<NamedTensor>& parameters() const { return parameters_; }
  int64_t parameter_count() const;  ///< numbers in all of them
  /// Where the module stands in the model that it is a child of, such as "blocks.3.attention"; empty at the root.
  ModulePath path() const { return paths_.front(); }
  /// Drops every parameter's gradient.
  void zero_gradients() const;

 protected:
  Module();
  ~Module() = default;  // never owned through this base; see AttentionLayer for one that can be

  /// Registers a parameter that starts as `value`; gradients flow to it.
  Tensor param(const std::string& name, const Tensor& value);

  /// The same for a part whose kind is chosen at run time.
  template <class M>
  std::unique_ptr<M> child(const std::string& name, std::unique_ptr<M> part) {
    adopt(name, *part);
    return part;
  }

  /// Makes a part of this module; its parameters appear as "name.…". Store what it returns.
  template <class M, class... Args>
  M child(const std::string& name, Args&&... args) {
    M part(std::forward<Args>(args)...);
    adopt(name, part);
    return part;
  }

 private:
  void adopt(const std::string& name, const Module& part);
  void add(const std::string& name, const Tensor& tensor);

  std::vector<NamedTensor> parameters_;
  std::vector<std::shared_ptr<std::string>> paths_;  // this module's own first, then those of all its parts
};

/// Copies tensors by name into the parameters. Throws one Error that lists everything missing, unexpected and
/// misshapen, and changes nothing then.
void load_parameters(std::span<const NamedTensor> parameters, std::span<const NamedTensor> values);

/// While it lives, modules of this thread evaluate (no dropout) and nothing is recorded.
class EvalMode {
 public:
  EvalMode();
  ~EvalMode();
  EvalMode(const EvalMode&) = delete;
  EvalMode& operator=(const EvalMode&) = delete;

 private:
  bool outer_;
  NoGrad no_grad_;
};
bool training();  ///< whether no EvalMode lives

/// An optimizer says that it updates this parameter.
void claim_parameter(const Tensor& parameter);
/// Parameters that received a gradient though no optimizer has claimed them, each named once. Usually `child` was
/// forgotten somewhere.
std::vector<std::string> unclaimed_parameters();

}  // namespace rapt::inline RAPT_ABI

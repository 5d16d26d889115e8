#pragma once
#include <array>
#include <concepts>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <typeinfo>
#include <vector>

#include "../autograd/ops.h"
#include "state.h"

namespace rapt::inline RAPT_ABI {

/// Called with what a module was given, before it runs; may put other tensors in their place. `path` is the module's.
/// Inputs that are no tensors, such as tokens, are not in the list.
using BeforeHook = std::function<void(const std::string& path, std::span<Tensor> inputs)>;
/// Called with a module's result; may put another in its place.
using AfterHook = std::function<void(const std::string& path, Tensor& output)>;

namespace detail {

/// What stays in its place when a module is moved.
struct ModulePart {
  std::string path;  // in the model, completed by the parents
  std::string kind;  // the name of its type
  bool is_child = false;
  bool called = true;  // false: of a kind that has no operator()
  std::vector<std::pair<uint64_t, BeforeHook>> before;
  std::vector<std::pair<uint64_t, AfterHook>> after;

  void run_before(std::span<Tensor> inputs) const;
  void run_after(Tensor& output) const;
};

std::string kind_of(const std::type_info& type);  // "Linear"

}  // namespace detail

/// A registered hook of a module; remove() takes it off. Copies are handles on the same hook.
struct ModuleHookHandle {
  std::weak_ptr<detail::ModulePart> part;
  uint64_t id = 0;
  void remove();
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
/// written out. To have its operations named in errors and in the debugger, and hooks called, a module runs its body
/// through run(), as all of the library's do:
///
///       Tensor operator()(const Tensor& input) const {
///         return run([&](const Tensor& x) { return up(x) * silu(gate(x)); }, input);
///       }
///
/// (Where there is nothing to hook, such as a method beside operator(), `Scope scope(path());` is enough for the
/// names.)
class Module {
 public:
  Module(Module&&) = default;
  Module& operator=(Module&&) = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  const std::vector<NamedTensor>& parameters() const { return parameters_; }
  int64_t parameter_count() const;  ///< numbers in all of them
  /// Where the module stands in the model that it is a child of, such as "blocks.3.attention"; empty at the root.
  ModulePath path() const { return {parts_.front(), &parts_.front()->path}; }
  /// Drops every parameter's gradient.
  void zero_gradients() const;
  /// Freezes (or thaws) every parameter: operations take them for constants, and optimizers leave them alone.
  void freeze(bool frozen = true) const;

  /// Calls `hook` at every call of this module, or of the part called `part` ("blocks.3.attention", seen from here):
  /// of operator(), and of what stands for it (step() of a layer of attention, loss() and next() of a Gpt, whose result
  /// is what a hook sees).
  /// Hooks run in the order they were added, also under NoGrad. One that throws stops the call with an Error that names
  /// the module; the hook's own exception is nested in it. Throws when there is no such part, or it is never called.
  ModuleHookHandle add_hook_before(BeforeHook hook, const std::string& part = {}) const;
  ModuleHookHandle add_hook_after(AfterHook hook, const std::string& part = {}) const;
  bool has_hooks() const { return !parts_.front()->before.empty() || !parts_.front()->after.empty(); }

 protected:
  Module();
  struct NeverCalled {};
  explicit Module(NeverCalled) : Module() { parts_.front()->called = false; }  ///< has no operator(), so takes no hooks
  ~Module() = default;  // never owned through this base; see AttentionLayer for one that can be

  /// Registers a parameter that starts as `value`; gradients flow to it.
  Tensor param(const std::string& name, const Tensor& value, Where where = Where::here());

  /// The same for a part whose kind is chosen at run time.
  template <class M>
  std::unique_ptr<M> child(const std::string& name, std::unique_ptr<M> part) {
    M& made = *part;
    adopt(name, made, typeid(made));
    return part;
  }

  /// Makes a part of this module; its parameters appear as "name.…". Store what it returns. The part must be complete:
  /// parameters that it adds later would not be known here, and are refused.
  template <class M, class... Args>
  M child(const std::string& name, Args&&... args) {
    M part(std::forward<Args>(args)...);
    adopt(name, part, typeid(M));
    return part;
  }

  /// The body of operator(): body(inputs...) under this module's name, between its hooks.
  template <class Body, class... Inputs>
  auto run(Body&& body, const Inputs&... inputs) const {
    static_assert((std::same_as<Inputs, Tensor> && ...), "run: inputs are tensors; capture everything else");
    Scope scope(path());
    const std::shared_ptr<detail::ModulePart>& part = parts_.front();
    if (part->before.empty() && part->after.empty()) return body(inputs...);
    std::array<Tensor, sizeof...(Inputs)> given{inputs...};
    part->run_before(given);
    auto result = std::apply(body, given);
    if constexpr (requires { part->run_after(result); }) {
      part->run_after(result);
    } else {
      part->run_after(result.output);  // of a result with more than the output
    }
    return result;
  }

 private:
  void adopt(const std::string& name, Module& part, const std::type_info& type);
  void add(const std::string& name, const Tensor& tensor);
  void check_new(const std::string& name, const char* what) const;
  std::shared_ptr<detail::ModulePart> part_to_hook(const std::string& name) const;
  friend std::string module_tree(const Module& module, const std::type_info& type);

  std::vector<NamedTensor> parameters_;
  std::vector<std::shared_ptr<detail::ModulePart>> parts_;  // this module's own first, then those of all its parts
};

/// The module as a tree: each part with its type, number of parameters and, for its own parameters, the shapes.
std::string module_tree(const Module& module, const std::type_info& type);
template <std::derived_from<Module> M>
std::string to_string(const M& module) {
  return module_tree(module, typeid(module));
}

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
/// What no optimizer has claimed and received a gradient in the same backward pass as one of `of` did: name and shape,
/// the line that made it, the operation that used it and the module that was in. Usually `child` or `param` was
/// forgotten somewhere. Asked at each step of an optimizer. Leaves that are no parameters may be inputs whose gradients
/// are of interest: such a one is named when it still holds the gradient of an earlier step, which piles up to nothing
/// useful.
std::vector<std::string> unclaimed_parameters(std::span<const NamedTensor> of);

}  // namespace rapt::inline RAPT_ABI

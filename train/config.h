#pragma once
#include <cstdint>
#include <limits>
#include <string>

#include "../core/nearest.h"
#include "../nn/gpt.h"

namespace rapt::inline RAPT_ABI {

/// Everything that decides what a run computes, under the names of the command line's flags. The defaults train on the
/// built-in corpus.
struct RunConfig {
  std::string text;  ///< path; empty: the built-in stories
  std::string tokenizer = "characters";
  int64_t layers = 3;
  int64_t heads = 6;
  int64_t dim = 96;
  int64_t context = 128;
  std::string attention = "mha+rope+qk-norm";
  std::string position = "auto";
  std::string norm = "layer";
  std::string mlp = "gelu";
  bool bias = false;
  double dropout = 0;

  int64_t batch = 12;
  int64_t accumulate = 1;
  int64_t steps = 2800;
  std::string optimizer = "muon";
  double lr = 0;       ///< 0: what suits the optimizer, see resolved()
  double min_lr = -1;  ///< −1: a hundredth of lr
  int64_t warmup = 10;
  std::string schedule = "linear";
  double weight_decay = 0.01;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double clip = 1;
  int64_t seed = 1;

  int64_t eval_every = 1000;
  int64_t eval_batches = 0;
  int64_t sample_every = 0;

  bool operator==(const RunConfig&) const = default;
};

/// A flag as the command line, the configuration file and error messages know it.
struct ConfigField {
  const char* name;
  const char* help;
  bool of_model = false;  ///< a run that is resumed must keep it
  double least = 0, most = std::numeric_limits<double>::infinity();
};

/// Calls visit(field, value…) for every field, with its value in each of the configurations: the one list of flags.
template <class Visit, class... Config>
void visit_fields(Visit visit, Config&... c) {
  using F = ConfigField;
  visit(F{"tokenizer", "how text becomes tokens: characters or bytes", true}, c.tokenizer...);
  visit(F{"layers", "transformer blocks", true, 1}, c.layers...);
  visit(F{"heads", "attention heads in each block; must divide dim", true, 1}, c.heads...);
  visit(F{"dim", "width of the residual stream", true, 1}, c.dim...);
  visit(F{"context", "tokens that the model sees at once", true, 1}, c.context...);
  visit(F{"attention", "words joined by +, such as gqa:kv=2+rope+window:256; see --list-attention", true},
        c.attention...);
  visit(F{"position",
          "position embedding: learned, sinusoidal or none; auto: learned unless the attention has positions", true},
        c.position...);
  visit(F{"norm", "layer or rms", true}, c.norm...);
  visit(F{"mlp", "gelu, gelu-tanh, relu, relu2, silu, swiglu or geglu", true}, c.mlp...);
  visit(F{"bias", "biases in linear layers and norms", true}, c.bias...);
  visit(F{"dropout", "probability of dropping a number while training", false, 0, 1}, c.dropout...);
  visit(F{"batch", "windows in a batch", false, 1}, c.batch...);
  visit(F{"accumulate", "batches whose gradients are averaged before a step", false, 1}, c.accumulate...);
  visit(F{"steps", "optimizer steps", false, 1}, c.steps...);
  visit(F{"optimizer", "adamw, muon or sgd", true}, c.optimizer...);
  visit(F{"lr", "learning rate at its peak; 0: what suits the optimizer: muon 0.05, adamw 0.001, sgd 0.1", false, 0},
        c.lr...);
  visit(F{"min-lr", "learning rate at the end of the schedule; -1: a hundredth of lr", false, -1}, c.min_lr...);
  visit(F{"warmup", "steps of linear warm-up", false, 0}, c.warmup...);
  visit(F{"schedule", "constant, linear, cosine or wsd (warmup-stable-decay)"}, c.schedule...);
  visit(F{"weight-decay", "decoupled decay of matrices", false, 0}, c.weight_decay...);
  visit(F{"beta1", "decay of the first moment, or momentum", false, 0, 1}, c.beta1...);
  visit(F{"beta2", "decay of the second moment", false, 0, 1}, c.beta2...);
  visit(F{"clip", "largest global norm of the gradient; 0: no clipping", false, 0}, c.clip...);
  visit(F{"seed", "of the weights, the batches and dropout", false, 0}, c.seed...);
  visit(F{"eval-every", "steps between validations, each with a checkpoint; 0: at the end only", false, 0},
        c.eval_every...);
  visit(F{"eval-batches", "batches of a validation; 0: the whole split", false, 0}, c.eval_batches...);
  visit(F{"sample-every", "steps between samples; 0: at the end only", false, 0}, c.sample_every...);
}

/// The configuration with a value in place of each that was left to the program (lr, min_lr).
RunConfig resolved(RunConfig config);

/// Throws UsageError for values out of range, unknown names, and heads that do not divide dim.
void check_config(const RunConfig& config);

/// Throws UsageError when the blocks' weights, their gradients and the optimizer's state alone are more than this
/// machine has memory.
void check_memory(const RunConfig& config);

GptConfig model_config(const RunConfig& config, int64_t vocabulary);

/// The configuration as JSON text with every value, and back; from_json is strict and throws DataError naming `where`.
std::string to_json(const RunConfig& config);
RunConfig config_from_json(const std::string& json, const std::string& where);

}  // namespace rapt::inline RAPT_ABI

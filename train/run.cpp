#include "run.h"

#include "../core/random.h"
#include "../data/stories.h"
#include "../optim/adamw.h"
#include "../optim/muon.h"
#include "../optim/sgd.h"
#include "trainer.h"

namespace rapt::inline RAPT_ABI {

namespace {

// With Muon, the learning rate is that of the hidden matrices; the rest is left to AdamW at a part of it.
constexpr double kMuonRatio = 0.15;
constexpr double kMuonMomentum = 0.95;

Gpt make_model(const RunConfig& config, const Tokenizer& tokenizer) {
  check_config(config);
  manual_seed(uint64_t(config.seed));
  return Gpt(model_config(config, tokenizer.vocabulary_size()));
}

std::unique_ptr<Optimizer> make_optimizer(const RunConfig& c, const Gpt& model) {
  if (c.optimizer == "sgd") {
    return std::make_unique<SGD>(model.parameters(),
                                 SGDConfig{.learning_rate = c.lr, .momentum = c.beta1, .weight_decay = c.weight_decay});
  }
  AdamWConfig adamw{.learning_rate = c.lr, .beta1 = c.beta1, .beta2 = c.beta2, .weight_decay = c.weight_decay};
  if (c.optimizer == "muon") {
    adamw.learning_rate = kMuonRatio * c.lr;
    return std::make_unique<Muon>(
        model.parameters(),
        MuonConfig{.learning_rate = c.lr, .momentum = kMuonMomentum, .weight_decay = c.weight_decay, .adamw = adamw});
  }
  return std::make_unique<AdamW>(model.parameters(), adamw);
}

std::vector<NamedTensor> tensors_below(const Safetensors& file, const std::string& prefix) {
  std::vector<NamedTensor> found;
  for (const TensorView& view : file.tensors()) {
    if (view.name.starts_with(prefix)) found.push_back({view.name.substr(prefix.size()), file.tensor(view.name)});
  }
  return found;
}

// A run's config.json and its checkpoints are of one model.
void check_same_model(const RunConfig& checkpoint, const std::string& name, const RunConfig& config) {
  std::string differences;
  visit_fields(
      [&](const ConfigField& field, const auto& has, const auto& wanted) {
        if (field.of_model && has != wanted) {
          differences += fmt::format("\n  {} {} (in config.json: {})", field.name, has, wanted);
        }
      },
      checkpoint, config);
  check<DataError>(differences.empty(), "{}: the checkpoint is of another configuration than the run:{}", name,
                   differences);
}

void check_weights(const Checkpoint& checkpoint) {
  for (const NamedTensor& weight : tensors_below(checkpoint.file, "model.")) {
    check<DataError>(all_finite(weight.tensor), "the weight {} is not finite", weight.name);
  }
}

}  // namespace

Run::Run(const RunConfig& c, Tokenizer t)
    : config(resolved(c)),
      tokenizer(std::move(t)),
      model(make_model(config, tokenizer)),
      optimizer(make_optimizer(config, model)) {}

Run Run::load(const std::filesystem::path& folder, const std::function<void(RunConfig&)>& adjust) {
  check<DataError>(std::filesystem::is_directory(folder), "{}: there is no such run folder", folder.string());
  std::optional<Checkpoint> checkpoint = load_latest(folder, check_weights);
  check<DataError>(checkpoint.has_value(), "{}: the folder holds no checkpoint", folder.string());
  const std::string& name = checkpoint->file.name();
  RunConfig config = config_from_json(checkpoint->text("config"), name + ": config");
  RunConfig beside = config;
  std::error_code ignored;
  try {
    if (std::filesystem::exists(folder / "config.json", ignored)) beside = load_config(folder / "config.json");
  } catch (const DataError& error) {  // the checkpoint has it as well
    checkpoint->notes.push_back(fmt::format("the configuration is taken from {}: {}", name, error.what()));
  }
  check_same_model(config, name, beside);
  if (adjust) adjust(config);
  Run run(config, Tokenizer::from_string(checkpoint->text("tokenizer")));
  try {
    load_parameters(run.model.parameters(), tensors_below(checkpoint->file, "model."));
    run.optimizer->load_state(tensors_below(checkpoint->file, "optimizer."));
  } catch (const Error& error) {
    throw DataError(fmt::format("{}: {}", name, error.what()));
  }
  run.step = checkpoint->step;
  run.best_loss = checkpoint->number("best_loss");
  run.text_hash = uint64_t(checkpoint->integer("text.hash"));
  run.notes = checkpoint->notes;
  return run;
}

void Run::save(CheckpointFolder& folder, bool best) {
  for (const NamedTensor& p : model.parameters()) {
    if (all_finite(p.tensor)) continue;
    throw DivergedError(fmt::format("training diverged at step {}: {}; no checkpoint is made of it", step,
                                    first_not_finite(model.parameters())));
  }
  std::vector<NamedTensor> state = optimizer->state();
  std::vector<TensorView> tensors;
  for (const NamedTensor& p : model.parameters()) tensors.push_back(tensor_view("model." + p.name, p.tensor));
  for (const NamedTensor& s : state) tensors.push_back(tensor_view("optimizer." + s.name, s.tensor));
  Metadata metadata{{"config", to_json(config)},
                    {"tokenizer", tokenizer.to_string()},
                    {"text.hash", std::to_string(int64_t(text_hash))},
                    {"best_loss", exact_text(best_loss)}};
  for (std::string& note : folder.save(step, std::move(tensors), std::move(metadata), best)) {
    notes.push_back(std::move(note));
  }
}

RunConfig load_config(const std::filesystem::path& path) {
  MappedFile file(path);
  std::span<const std::byte> bytes = file.bytes();
  return config_from_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
}

Text run_text(const RunConfig& config) {
  if (!config.text.empty()) {
    try {
      return Text::open(config.text);
    } catch (const DataError& error) {
      throw DataError(fmt::format(
          "{}; the run names this text{}; another place can be given: rapt train --resume RUN TEXT, rapt eval RUN TEXT",
          error.what(),
          std::filesystem::path(config.text).is_relative() ? ", relative to the folder where it was started" : ""));
    }
  }
  return Text::from_string(make_stories(kStoriesSeed, kStoriesBytes).text, "the built-in stories");
}

}  // namespace rapt::inline RAPT_ABI

#include "one_step.h"

#include <charconv>

namespace rapt::inline RAPT_ABI {

namespace {

namespace fs = std::filesystem;

constexpr const char* kKind = "one training step";

// Text of the file's metadata.
const std::string& text_of(const Safetensors& file, const std::string& key) {
  auto found = file.metadata().find(key);
  check<DataError>(found != file.metadata().end(), "{}: \"{}\" is missing; this is no step that training has kept",
                   file.name(), key);
  return found->second;
}

Tokens tokens_of(const Safetensors& file, const std::string& name, int64_t vocabulary) {
  const TensorView& view = file.at(name);
  check<DataError>(view.shape.size() == 2, "{}: {} must be (B, T)", file.name(), name);
  std::vector<int32_t> ids;
  for (int64_t id : to_integers(view)) {
    check<DataError>(id >= 0 && id < vocabulary, "{}: {} holds the token {}, but there are {}", file.name(), name, id,
                     vocabulary);
    ids.push_back(int32_t(id));
  }
  return Tokens({view.shape[0], view.shape[1]}, std::move(ids));
}

OneStep load_kept(const fs::path& path) {
  Safetensors file = Safetensors::open(path);
  check<DataError>(text_of(file, "kind") == kKind, "{}: this is no step that training has kept", file.name());
  RunConfig config = config_from_json(text_of(file, "config"), file.name() + ": config");
  OneStep step{Run(config, Tokenizer::from_string(text_of(file, "tokenizer"))), {}};
  const std::string& done = text_of(file, "step");
  auto [end, error] = std::from_chars(done.data(), done.data() + done.size(), step.run.step);
  check<DataError>(error == std::errc() && end == done.data() + done.size() && step.run.step >= 0,
                   "{}: the step is \"{}\", which is no number", file.name(), done);
  std::vector<NamedTensor> weights;
  for (const TensorView& view : file.tensors()) {
    if (view.name.starts_with("model.")) weights.push_back({view.name.substr(6), file.tensor(view.name)});
  }
  try {
    load_parameters(step.run.model.parameters(), weights);
  } catch (const Error& e) {
    throw DataError(fmt::format("{}: {}", file.name(), e.what()));
  }
  for (int64_t i = 0; i < config.accumulate; ++i) {
    auto part = [&](const char* name) {
      return tokens_of(file, fmt::format("batch.{}.{}", i, name), step.run.tokenizer.vocabulary_size());
    };
    step.batches.push_back({part("x"), part("y")});
    check<DataError>(
        step.batches.back().x.shape == step.batches.back().y.shape && step.batches.back().x.shape[1] <= config.context,
        "{}: batch {} has inputs {} and targets {}, which don't fit together or the context {}", file.name(), i,
        step.batches.back().x.shape, step.batches.back().y.shape, config.context);
  }
  return step;
}

OneStep next_step(const fs::path& folder) {
  OneStep step{Run::load(folder), {}};
  Text text = run_text(step.run.config);
  TokenStream tokens(step.run.tokenizer, text.view());
  TrainBatches all =
      train_batches(step.run.config, split_tokens(tokens.span(), kValidationFraction, step.run.config.context).train);
  for (int64_t i = 0; i < all.micro_steps; ++i) step.batches.push_back(all.batch(step.run.step, i));
  return step;
}

}  // namespace

TrainBatches train_batches(const RunConfig& c, TokenSpan train) {
  return {train, c.batch, c.context, c.accumulate, uint64_t(c.seed)};
}

TrainerOptions trainer_options(const Run& run, std::function<Batch(int64_t, int64_t)> batch) {
  const RunConfig& c = run.config;
  return {.accumulate = c.accumulate,
          .clip = c.clip,
          .seed = uint64_t(c.seed),
          .learning_rate = {},
          .batch = std::move(batch),
          .loss = [&run](const Batch& b) { return run.model.loss(b.x, b.y); }};
}

OneStep OneStep::load(const fs::path& path) {
  std::error_code ignored;
  check<DataError>(fs::exists(path, ignored), "{}: there is no such file or folder", path.string());
  return fs::is_directory(path, ignored) ? next_step(path) : load_kept(path);
}

StepGradients OneStep::gradients() const {
  return step_gradients(trainer_options(run, [this](int64_t, int64_t micro) { return batches[size_t(micro)]; }),
                        run.step);
}

fs::path save_step(const fs::path& folder, const Run& run, const TrainBatches& batches) {
  std::vector<TensorView> tensors;
  for (const NamedTensor& p : run.model.parameters()) tensors.push_back(tensor_view("model." + p.name, p.tensor));
  std::vector<std::vector<int64_t>> ids;
  ids.reserve(size_t(2 * batches.micro_steps));
  for (int64_t i = 0; i < batches.micro_steps; ++i) {
    Batch batch = batches.batch(run.step, i);
    for (const auto& [name, tokens] : {std::pair("x", &batch.x), std::pair("y", &batch.y)}) {
      ids.emplace_back(tokens->ids.begin(), tokens->ids.end());
      tensors.push_back(tensor_view(fmt::format("batch.{}.{}", i, name), ids.back()));
      tensors.back().shape = {tokens->shape[0], tokens->shape[1]};
    }
  }
  fs::path path = folder / fmt::format("step-{:08}.safetensors", run.step + 1);
  write_safetensors(path, std::move(tensors),
                    {{"kind", kKind},
                     {"config", to_json(run.config)},
                     {"tokenizer", run.tokenizer.to_string()},
                     {"step", std::to_string(run.step)}});
  return path;
}

}  // namespace rapt::inline RAPT_ABI

#include "config.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "../data/formats/json.h"

namespace rapt::inline RAPT_ABI {

namespace {

void check_name(const char* flag, const std::string& value, const std::vector<std::string>& known) {
  if (std::ranges::find(known, value) != known.end()) return;
  std::string near = nearest(value, known), all;
  for (const std::string& name : known) all += (all.empty() ? "" : ", ") + name;
  throw UsageError(fmt::format("--{}: there is no \"{}\"{}; known are {}", flag, value,
                               near.empty() ? "" : fmt::format(", did you mean \"{}\"?", near), all));
}

}  // namespace

RunConfig resolved(RunConfig c) {
  if (c.lr == 0) c.lr = c.optimizer == "muon" ? 0.05 : c.optimizer == "sgd" ? 0.1 : 1e-3;
  if (c.min_lr < 0) c.min_lr = c.lr / 100;
  return c;
}

void check_config(const RunConfig& config) {
  visit_fields(
      [](const ConfigField& field, const auto& value) {
        if constexpr (std::is_arithmetic_v<std::decay_t<decltype(value)>>) {
          check<UsageError>(std::isfinite(double(value)) && double(value) >= field.least && double(value) <= field.most,
                            "--{}: {} is out of range; it must be at least {}{}", field.name, value, field.least,
                            std::isfinite(field.most) ? fmt::format(" and at most {}", field.most) : "");
        }
      },
      config);
  check_name("tokenizer", config.tokenizer, {"characters", "bytes"});
  check_name("optimizer", config.optimizer, {"adamw", "muon", "sgd"});
  check_name("schedule", config.schedule, {"constant", "linear", "cosine", "wsd"});
  check<UsageError>(config.dim % config.heads == 0, "--heads: {} heads do not divide --dim {}; try --dim {}",
                    config.heads, config.dim, (config.dim + config.heads - 1) / config.heads * config.heads);
  check_name("position", config.position, {"auto", "learned", "sinusoidal", "none"});
  check_name("norm", config.norm, norm_names());
  check_name("mlp", config.mlp, mlp_names());
  try {
    check_model(model_config(config, 1));
  } catch (const Error& error) {
    throw UsageError(fmt::format("--attention: {}", error.what()));
  }
  check<UsageError>(config.lr == 0 || config.min_lr <= config.lr, "--min-lr: {} is above --lr {}", config.min_lr,
                    config.lr);
  check<UsageError>(config.beta1 < 1 && config.beta2 < 1, "--beta1, --beta2: must be below 1, got {} and {}",
                    config.beta1, config.beta2);
}

void check_memory(const RunConfig& config) {
  const double memory = double(sysconf(_SC_PHYS_PAGES)) * double(sysconf(_SC_PAGESIZE));
  // The feed-forward network's 8 dim² of each block: weights, gradients, and two moments.
  const double least = double(config.layers) * 8 * double(config.dim) * double(config.dim) * 4 * sizeof(Real);
  check<UsageError>(
      least <= memory,
      "--layers {} --dim {}: training such a model takes more than {:.0f} GB, and this machine has {:.0f} GB "
      "of memory",
      config.layers, config.dim, least * 1e-9, memory * 1e-9);
}

GptConfig model_config(const RunConfig& c, int64_t vocabulary) {
  GptConfig model;
  model.vocabulary = vocabulary;
  model.context = c.context;
  model.layers = c.layers;
  model.heads = c.heads;
  model.dim = c.dim;
  model.attention = c.attention;
  model.position = c.position;
  model.norm = c.norm;
  model.mlp = c.mlp;
  model.bias = c.bias;
  model.dropout = c.dropout;
  return model;
}

std::string to_json(const RunConfig& config) {
  OrderedJson json;
  json["text"] = config.text;
  visit_fields([&](const ConfigField& field, const auto& value) { json[field.name] = value; }, config);
  return to_json_text(json, 2);
}

RunConfig config_from_json(const std::string& text, const std::string& where) {
  JsonValue json = parse_json(text, where);
  RunConfig config;
  config.text = json["text"].string();
  std::vector<std::string> known{"text"};
  visit_fields(
      [&](const ConfigField& field, auto& value) {
        using T = std::decay_t<decltype(value)>;
        JsonValue given = json[field.name];
        known.emplace_back(field.name);
        if constexpr (std::is_same_v<T, bool>) {
          value = given.boolean();
        } else if constexpr (std::is_same_v<T, int64_t>) {
          value = given.integer();
        } else if constexpr (std::is_same_v<T, double>) {
          value = given.number();
        } else {
          value = given.string();
        }
      },
      config);
  for (const std::string& key : json.keys()) {
    check<DataError>(std::ranges::find(known, key) != known.end(), "{}: unknown key {}", where, quoted_name(key));
  }
  try {
    check_config(config);
  } catch (const UsageError& error) {
    throw DataError(fmt::format("{}: {}", where, error.what()));
  }
  return config;
}

}  // namespace rapt::inline RAPT_ABI

#include "graph.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "../core/nearest.h"
#include "../data/formats/json.h"

namespace rapt::inline RAPT_ABI {

namespace {

double norm_of(const Tensor& x) {
  if (!x) return 0;
  double sum = 0;
  Tensor dense = contiguous(x);
  for (int64_t i = 0; i < dense.numel(); ++i) sum += double(dense.data()[i]) * double(dense.data()[i]);
  return std::sqrt(sum);
}

bool is_in(const std::string& module, const std::string& outer) {
  return module.starts_with(outer) && (module.size() == outer.size() || module[outer.size()] == '.');
}

int64_t components(const std::string& path) { return path.empty() ? 0 : std::ranges::count(path, '.') + 1; }

std::string first_components(const std::string& path, int64_t n) {
  size_t at = 0;
  for (; n > 0 && at != std::string::npos; --n) at = path.find('.', at + (at > 0));
  return path.substr(0, at);
}

// From blue over white to red.
std::string colour(double norm, double least, double most) {
  if (!std::isfinite(norm)) return "#ff00ff";
  if (norm <= 0) return "#dddddd";
  double place = most > least ? (std::log(norm) - std::log(least)) / (std::log(most) - std::log(least)) : 0.5;
  auto channel = [](double v) { return int(std::lround(255 * std::clamp(v, 0.0, 1.0))); };
  double blue = std::max(0.0, 1 - 2 * place), red = std::max(0.0, 2 * place - 1);
  return fmt::format("#{:02x}{:02x}{:02x}", channel(1 - 0.6 * blue), channel(1 - 0.35 * blue - 0.6 * red),
                     channel(1 - 0.65 * red));
}

}  // namespace

void GraphLog::begin(const Operation& o) {
  if (!o.backward) return;
  Item item{.sequence = o.node->sequence,
            .name = o.name,
            .module = o.module ? *o.module : "",
            .where = fmt::format("{}:{}", o.where.file, o.where.line),
            .shape = o.node->shape,
            .leaf = o.node->is_leaf(),
            .norm = norm_of(o.inputs[0]),
            .inputs = {}};
  for (const auto& input : o.node->inputs) {
    if (input) item.inputs.push_back(input->sequence);
  }
  nodes_.push_back(std::move(item));
}

std::string GraphLog::dot(const GraphDrawing& drawing) const {
  std::set<std::string> modules;
  for (const Item& n : nodes_) {
    for (int64_t i = 1; i <= components(n.module); ++i) modules.insert(first_components(n.module, i));
  }
  for (const std::string& wanted : drawing.expand) {
    if (modules.contains(wanted)) continue;
    std::string near = nearest(wanted, std::vector<std::string>(modules.begin(), modules.end()));
    throw UsageError(fmt::format("graph: the model has no module \"{}\"{}", wanted,
                                 near.empty() ? "" : fmt::format(", did you mean \"{}\"?", near)));
  }
  // The module whose box a node is in; empty: it is shown by itself.
  auto box_of = [&](const Item& n) -> std::string {
    int64_t depth = drawing.depth;
    for (const std::string& open : drawing.expand) {
      if (is_in(n.module, open)) depth = std::max(depth, components(open) + 1);
    }
    bool open = std::ranges::find(drawing.expand, n.module) != drawing.expand.end();
    return open || depth == 0 ? "" : first_components(n.module, depth);
  };

  struct DrawnBox {
    std::string label, where;
    bool module = false;
    int64_t operations = 0, parameters = 0;
    double norm = 0, squares = 0;  // of the gradient of its newest result, and of its parameters'
    uint64_t newest = 0;
  };
  std::map<std::string, DrawnBox> boxes;
  std::map<uint64_t, std::string> box_name;
  for (const Item& n : nodes_) {
    std::string module = box_of(n);
    std::string name = module.empty() ? fmt::format("node {}", n.sequence) : "module " + module;
    box_name[n.sequence] = name;
    DrawnBox& box = boxes[name];
    box.module = !module.empty();
    if (box.module) {
      box.label = module;
    } else {
      const bool in_module = n.leaf && !n.module.empty();
      box.label = fmt::format("{}{}{}\n{}", in_module ? n.module : "", in_module ? "." : "", n.name, n.shape);
    }
    box.where = n.where;
    (n.leaf ? box.parameters : box.operations) += n.leaf ? n.shape.numel() : 1;
    if (n.leaf) box.squares += n.norm * n.norm;
    if (!n.leaf || !box.module) {
      if (n.sequence >= box.newest) box.newest = n.sequence, box.norm = n.norm;
    }
  }
  for (auto& [name, box] : boxes) {  // only parameters: the operations that read them are elsewhere
    if (box.newest == 0) box.norm = std::sqrt(box.squares);
  }
  double least = INFINITY, most = 0;
  for (const auto& [name, box] : boxes) {
    if (!std::isfinite(box.norm) || box.norm <= 0) continue;
    least = std::min(least, box.norm), most = std::max(most, box.norm);
  }
  std::string out =
      "digraph model {\n  node [style=filled, fontname=\"Helvetica\", fontsize=11];\n  edge [color=\"#888888\"];\n";
  for (const auto& [name, box] : boxes) {
    std::string label = box.label;
    if (box.module) {
      label += fmt::format("\n{} operation{}", box.operations, box.operations == 1 ? "" : "s");
      if (box.parameters > 0) {
        label += fmt::format(", {} parameters\nof gradient norm {:.3g}", box.parameters, std::sqrt(box.squares));
      }
    }
    label += fmt::format("\ngradient norm {:.3g}", box.norm);
    out += fmt::format("  {} [label={}, shape={}, fillcolor=\"{}\", tooltip={}];\n", json_string(name),
                       json_string(label), box.module ? "box" : "ellipse", colour(box.norm, least, most),
                       json_string(box.module ? box.label : box.where));
  }
  std::set<std::pair<std::string, std::string>> edges;
  for (const Item& n : nodes_) {
    for (uint64_t input : n.inputs) {
      auto from = box_name.find(input);
      if (from == box_name.end() || from->second == box_name[n.sequence]) continue;
      edges.emplace(from->second, box_name[n.sequence]);
    }
  }
  for (const auto& [from, to] : edges) out += fmt::format("  {} -> {};\n", json_string(from), json_string(to));
  return out + "}\n";
}

}  // namespace rapt::inline RAPT_ABI

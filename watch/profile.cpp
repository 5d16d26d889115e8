#include "profile.h"

#include <algorithm>
#include <cctype>

#include "../data/formats/atomic_file.h"
#include "../data/formats/json.h"

namespace rapt::inline RAPT_ABI {

namespace {

double seconds(std::chrono::steady_clock::duration d) { return std::chrono::duration<double>(d).count(); }

int64_t bytes_of(std::span<const Tensor> tensors) {
  int64_t bytes = 0;
  for (const Tensor& t : tensors) bytes += t ? t.numel() * int64_t(sizeof(Real)) : 0;
  return bytes;
}

// "blocks.3.attention" → "blocks.*.attention"
std::string merged(std::string_view path) {
  std::string out;
  for (size_t at = 0; at <= path.size();) {
    size_t end = std::min(path.find('.', at), path.size());
    std::string_view part = path.substr(at, end - at);
    bool number = !part.empty() && std::ranges::all_of(part, [](unsigned char c) { return std::isdigit(c); });
    out += number ? "*" : part;
    if (end < path.size()) out += '.';
    at = end + 1;
  }
  return out;
}

std::string dash_or(double value, const char* unit = "") {
  return value > 0 ? fmt::format("{:.1f}{}", value, unit) : "–";
}

}  // namespace

Profile::Profile(size_t most_events) : most_events_(most_events) {}

int Profile::intern(std::string_view text) {
  auto found = ids_.find(text);
  if (found != ids_.end()) return found->second;
  texts_.emplace_back(text);
  return ids_.emplace(std::string(text), int(texts_.size()) - 1).first->second;
}

void Profile::begin(const Operation&) { running_.push_back({Clock::now(), memory_stats().in_use}); }

void Profile::end(const Operation& o) {
  const Clock::time_point now = Clock::now();
  if (running_.empty()) return;  // it began before this was made
  const Running run = running_.back();
  running_.pop_back();
  if (o.backward && o.node && o.node->is_leaf()) return;
  double operations = o.cost.forward;
  if (o.backward) {
    auto cost = backward_cost_.find(o.node->sequence);
    if (cost != backward_cost_.end()) {
      operations = cost->second;
      backward_cost_.erase(cost);
    }
  } else if (o.node && o.cost.backward > 0) {
    if (backward_cost_.size() > 1'000'000) backward_cost_.clear();  // graphs that nobody differentiated
    backward_cost_[o.node->sequence] = o.cost.backward;
  }
  if (operations == 0) operations = run.parts;
  if (!running_.empty()) running_.back().parts += operations;

  const int64_t memory = memory_stats().in_use;
  Event event{.name = intern(o.name),
              .module = intern(o.module ? std::string_view(*o.module) : ""),
              .where = intern(fmt::format("{}:{}", o.where.file, o.where.line)),
              .backward = o.backward,
              .part = o.outer != nullptr,
              .start = seconds(run.start - began_),
              .duration = seconds(now - run.start),
              .operations = operations,
              .bytes = bytes_of(o.inputs) + bytes_of(o.results),
              .memory = memory,
              .shape = o.results.empty() || !o.results[0] ? Shape() : o.results[0].shape};
  if (!event.part) {
    const int64_t kept = o.backward ? 0 : memory - run.memory;
    count(by_operation_[o.name], event, kept);
    const std::string path = merged(texts_[size_t(event.module)]);
    count(by_module_[""], event, kept);
    for (size_t at = 0; !path.empty() && at != std::string::npos;) {
      at = path.find('.', at + 1);
      count(by_module_[path.substr(0, at)], event, kept);
    }
  }
  if (events_.size() < most_events_) {
    events_.push_back(event);
  } else {
    ++dropped_;
  }
}

void Profile::count(Total& total, const Event& event, int64_t kept) const {
  if (!event.backward) ++total.calls;
  (event.backward ? total.backward : total.forward) += event.duration;
  if (event.operations > 0) total.operations += event.operations, total.counted += event.duration;
  total.kept += kept;
}

std::string Profile::table(const char* title, const std::map<std::string, Total>& totals, double whole,
                           bool tree) const {
  std::vector<std::pair<std::string, Total>> rows(totals.begin(), totals.end());
  auto time = [](const Total& t) { return t.forward + t.backward; };
  if (!tree)
    std::ranges::stable_sort(rows, [&](const auto& a, const auto& b) { return time(a.second) > time(b.second); });
  std::string out = fmt::format("{:<32} {:>9} {:>11} {:>11} {:>7} {:>8} {:>10}\n", title, "calls", "forward ms",
                                "backward ms", "share", "GF/s", "keeps MB");
  for (const auto& [name, t] : rows) {
    std::string label = name.empty() ? "all" : name;
    if (tree && !name.empty()) {
      size_t dot = name.rfind('.');
      int64_t depth = std::ranges::count(name, '.') + 1;
      label = std::string(size_t(2 * depth), ' ') + (dot == std::string::npos ? name : name.substr(dot + 1));
    }
    out += fmt::format("{:<32} {:>9} {:>11.2f} {:>11.2f} {:>6.1f}% {:>8} {:>10}\n", label, t.calls, 1e3 * t.forward,
                       1e3 * t.backward, whole > 0 ? 100 * time(t) / whole : 0,
                       dash_or(t.counted > 0 ? t.operations / t.counted * 1e-9 : 0), dash_or(double(t.kept) * 1e-6));
  }
  return out;
}

std::string Profile::tables() const {
  const double whole = seconds(Clock::now() - began_);
  double inside = 0;
  if (auto all = by_module_.find(""); all != by_module_.end()) inside = all->second.forward + all->second.backward;
  std::string out =
      table("by module", by_module_, whole, true) + "\n" + table("by operation", by_operation_, whole, false);
  out += fmt::format(
      "\n{:.2f} s in all, {:.1f}% of it outside of operations (optimizer, batches, files); tensors took "
      "at most {:.1f} MB\n",
      whole, whole > 0 ? 100 * (whole - inside) / whole : 0, double(memory_stats().peak) * 1e-6);
  return out;
}

void Profile::write_trace(const std::string& path) const {
  std::vector<const Event*> order;
  for (const Event& e : events_) order.push_back(&e);
  std::ranges::stable_sort(order, [](const Event* a, const Event* b) {
    return a->start != b->start ? a->start < b->start : a->duration > b->duration;
  });
  std::string out = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  out += R"({"ph":"M","pid":1,"tid":1,"name":"process_name","args":{"name":"rapt"}})";
  auto slice = [&](const std::string& name, const char* category, double start, double duration) {
    out += fmt::format(",\n{{\"ph\":\"X\",\"pid\":1,\"tid\":1,\"name\":{},\"cat\":\"{}\",\"ts\":{:.3f},\"dur\":{:.3f}",
                       json_string(name), category, 1e6 * start, 1e6 * duration);
  };
  auto pass = [](const Event& e) { return e.backward ? "backward" : "forward"; };
  std::vector<const Event*> whole;
  std::ranges::copy_if(order, std::back_inserter(whole), [](const Event* e) { return !e->part; });
  // A slice for each module, around its operations that follow one another.
  auto modules = [&](auto& self, size_t begin, size_t end, size_t prefix) -> void {
    for (size_t i = begin; i < end;) {
      const std::string& module = texts_[size_t(whole[i]->module)];
      if (module.size() <= prefix) {
        ++i;
        continue;
      }
      size_t dot = std::min(module.find('.', prefix), module.size());
      std::string_view own(module.data(), dot);
      auto inside = [&](const Event& e) {
        const std::string& other = texts_[size_t(e.module)];
        return e.backward == whole[i]->backward && other.starts_with(own) &&
               (other.size() == own.size() || other[own.size()] == '.');
      };
      size_t j = i + 1;
      while (j < end && inside(*whole[j])) ++j;
      slice(std::string(own), pass(*whole[i]), whole[i]->start,
            whole[j - 1]->start + whole[j - 1]->duration - whole[i]->start);
      out += "}";
      self(self, i, j, dot + 1);
      i = j;
    }
  };
  modules(modules, 0, whole.size(), 0);
  for (const Event* e : order) {
    slice(e->backward ? "backward of " + texts_[size_t(e->name)] : texts_[size_t(e->name)], pass(*e), e->start,
          e->duration);
    out += fmt::format(
        ",\"args\":{{\"module\":{},\"where\":{},\"shape\":\"{}\",\"bytes\":{},\"operations\":{:.0f},\"GF/"
        "s\":{:.2f}}}}}",
        json_string(texts_[size_t(e->module)]), json_string(texts_[size_t(e->where)]), e->shape, e->bytes,
        e->operations, e->duration > 0 ? e->operations / e->duration * 1e-9 : 0);
    out += fmt::format(",\n{{\"ph\":\"C\",\"pid\":1,\"name\":\"memory\",\"ts\":{:.3f},\"args\":{{\"bytes\":{}}}}}",
                       1e6 * (e->start + e->duration), e->memory);
  }
  out += "\n]";
  if (dropped_ > 0) out += fmt::format(",\"otherData\":{{\"operations left out at the end\":{}}}", dropped_);
  write_file(path, out + "}\n");
}

}  // namespace rapt::inline RAPT_ABI

#include <ebb/models/report/summary.h>

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <unordered_set>
#include <vector>

#include <ebb/graph/error.h>
#include <ebb/graph/mode.h>

namespace ebb {
namespace {

/// A line of the table: layer and kind, shape, number of parameters.
using Row = std::array<std::string, 3>;
const Row header{"Layer (type)", "Output Shape", "Param #"};

struct Count {
  std::int64_t elements = 0;
  double bytes = 0;
  void add(const Tensor& t) {
    elements += t.numel();
    bytes += static_cast<double>(t.bytes());
  }
};

struct Table {
  std::string name;
  std::vector<Row> rows;  // the numbers without commas
  Count trained, fixed;
};

std::string batch_shape(const Shape& shape) {
  std::string out = "(None";
  for (int i = 1; i < shape.rank(); ++i) out += fmt::format(", {}", shape[i]);
  return out + ")";
}

std::string layer(const std::string& name, const Module& m) {
  return fmt::format("{} ({})", name, keras_class(m.type()));
}

std::string rule(char c) { return std::string(65, c) + "\n"; }

// ---- Keras 2: three columns that begin at 0, 29 and 55 of 65 -------------------------------------------------------

constexpr std::array<std::size_t, 3> ends{29, 55, 65};

/// What does not fit is cut off.
std::string classic_line(const Row& row) {
  std::string out;
  for (std::size_t i = 0; i < 3; ++i) {
    if (i > 0) out.back() = ' ';
    out = (out + row[i]).substr(0, ends[i]);
    out.resize(ends[i], ' ');
  }
  return out + "\n";
}

std::string classic(const Table& t) {
  std::string out = rule('_') + classic_line(header) + rule('=');
  for (std::size_t i = 0; i < t.rows.size(); ++i)
    out += classic_line(t.rows[i]) + rule(i + 1 < t.rows.size() ? '_' : '=');
  return out +
         fmt::format("Total params: {}\nTrainable params: {}\nNon-trainable params: {}\n",
                     with_commas(t.trained.elements + t.fixed.elements), with_commas(t.trained.elements),
                     with_commas(t.fixed.elements)) +
         rule('_');
}

/// What does not fit goes to further lines, where the columns begin a space to the right.
std::string modern_line(Row row) {
  constexpr std::array<std::size_t, 3> fits{26, 23, 10};
  std::string out;
  while (!row[0].empty() || !row[1].empty() || !row[2].empty()) {
    std::string line = " ";
    for (std::size_t i = 0; i < 3; ++i) {
      line += row[i].substr(0, fits[i]);
      row[i].erase(0, fits[i]);
      line.resize(std::max(line.size(), ends[i]), ' ');
    }
    out += line + "\n";
  }
  return out;
}

std::string modern(const Table& t) {
  const auto size = [](const Count& c) {
    const std::string text = format_bytes(c.bytes);
    return fmt::format("{} ({}{})", c.elements, text, text.ends_with(" B") ? "yte" : "");
  };
  std::string out = fmt::format("Model: \"{}\"\n", t.name) + rule('_') + modern_line(header) + rule('=');
  for (const Row& row : t.rows) out += modern_line(row) + rule(' ');
  const Count all{t.trained.elements + t.fixed.elements, t.trained.bytes + t.fixed.bytes};
  return out + rule('=') +
         fmt::format("Total params: {}\nTrainable params: {}\nNon-trainable params: {}\n", size(all), size(t.trained),
                     size(t.fixed)) +
         rule('_');
}

// ---- Keras 3: a box of 76 columns ----------------------------------------------------------------------------------

constexpr std::array<std::size_t, 3> cells{31, 22, 13};

std::string box_rule(const char* left, const char* line, const char* cross, const char* right) {
  std::string out = left;
  for (std::size_t i = 0; i < 3; ++i) {
    for (std::size_t j = 0; j < cells[i] + 2; ++j) out += line;
    out += i < 2 ? cross : right;
  }
  return out + "\n";
}

/// Words on lines of so many columns; a longer word is cut.
std::vector<std::string> wrap(std::string text, std::size_t width) {
  std::vector<std::string> out;
  while (text.size() > width) {
    const std::size_t space = text.rfind(' ', width);
    const std::size_t cut = space == std::string::npos ? width : space;
    out.push_back(text.substr(0, cut));
    text.erase(0, space == std::string::npos ? cut : cut + 1);
  }
  out.push_back(text);
  return out;
}

std::string box_line(const Row& row, const char* wall) {
  std::array<std::vector<std::string>, 3> lines;
  std::size_t height = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    lines[i] = wrap(row[i], cells[i]);
    height = std::max(height, lines[i].size());
  }
  std::string out;
  for (std::size_t k = 0; k < height; ++k) {
    const auto at = [&](std::size_t i) { return k < lines[i].size() ? lines[i][k] : ""; };
    out += fmt::format("{0} {1:<{4}} {0} {2:<{5}} {0} {3:>{6}} {0}\n", wall, at(0), at(1), at(2), cells[0], cells[1],
                       cells[2]);
  }
  return out;
}

std::string boxed(const Table& t, const Optimizer* optimizer) {
  std::string out = fmt::format("Model: \"{}\"\n", t.name) + box_rule("┏", "━", "┳", "┓") + box_line(header, "┃") +
                    box_rule("┡", "━", "╇", "┩");
  for (std::size_t i = 0; i < t.rows.size(); ++i) {
    Row row = t.rows[i];
    row[2] = with_commas(std::stoll(row[2]));
    out += box_line(row, "│") + (i + 1 < t.rows.size() ? box_rule("├", "─", "┼", "┤") : box_rule("└", "─", "┴", "┘"));
  }
  Count state, all{t.trained.elements + t.fixed.elements, t.trained.bytes + t.fixed.bytes};
  if (optimizer && optimizer->steps() > 0) {
    for (const Tensor& slot : optimizer->states()) state.add(slot);
    state.elements += 2;  // Keras keeps the count of steps (8 bytes) and the rate (4) as variables too
    state.bytes += 12;
    all.elements += state.elements;
    all.bytes += state.bytes;
  }
  const auto line = [&](const char* what, const Count& c) {
    out += fmt::format(" {} params: {} ({})\n", what, with_commas(c.elements), format_bytes(c.bytes));
  };
  line("Total", all);
  line("Trainable", t.trained);
  line("Non-trainable", t.fixed);
  if (state.elements > 0) line("Optimizer", state);
  return out;
}

/// Number of elements of all that a module holds, running means too.
std::int64_t elements(Module& module) {
  std::int64_t n = 0;
  for (const NamedTensor& t : named_tensors(module)) n += t.tensor->numel();
  return n;
}

/// Direct members of a module, in the order of visit.
class Members : public Visitor {
 public:
  std::vector<std::pair<std::string, Module*>> found;

 private:
  void on_module(std::string_view name, Module& m) override {
    if (depth() == 0) found.emplace_back(std::string(name), &m);
  }
};

}  // namespace

std::string format_bytes(double bytes) {
  const char* units[] = {"B", "KB", "MB", "GB", "TB"};
  int unit = 0;
  for (; bytes >= 1024 && unit < 4; ++unit) bytes /= 1024;
  return fmt::format("{:.2f} {}", bytes, units[unit]);
}

std::string with_commas(std::int64_t n) {
  std::string s = std::to_string(n);
  for (auto i = static_cast<int>(s.size()) - 3; i > 0; i -= 3) s.insert(static_cast<std::size_t>(i), ",");
  return s;
}

std::string summary(Module& module, const Shape& sample, const SummaryOptions& options) {
  const NoGrad quiet;
  Table t;
  if (auto* sequential = dynamic_cast<Sequential*>(&module)) {
    t.name = module.name().empty() ? "sequential" : module.name();
    Tensor x = zeros(sample.inserted(0, 1));
    for (const Layer& l : sequential->layers()) {
      x = (*l)(x);
      t.rows.push_back({layer(l->name(), *l), batch_shape(x.shape()), std::to_string(elements(*l))});
    }
  } else {
    // The members of any other module are called from its own code: only their parameters are known.
    t.name = module.name().empty() ? std::string(module.type()) : module.name();
    const Shape out = build(module, sample).inserted(0, 1);
    Members members;
    module.visit(members);
    for (const auto& [name, m] : members.found) t.rows.push_back({layer(name, *m), "", std::to_string(elements(*m))});
    t.rows.push_back({"output", batch_shape(out), "0"});
  }
  std::unordered_set<const std::byte*> counted;  // a shared parameter counts once
  for (const NamedTensor& n : named_tensors(module))
    if (counted.insert(n.tensor->raw()).second) (n.trained && n.tensor->tracked() ? t.trained : t.fixed).add(*n.tensor);
  switch (options.style) {
    case KerasStyle::keras2_2: return classic(t);
    case KerasStyle::keras2: return modern(t);
    case KerasStyle::keras3: return boxed(t, options.optimizer);
  }
  return {};
}

std::string summary(Sequential& model, const SummaryOptions& options) {
  if (!model.input_shape())
    throw ValueError(
        "summary: the model has not seen its input; give the shape of a sample: summary(model, {28, 28, 1})");
  return summary(model, *model.input_shape(), options);
}

}  // namespace ebb

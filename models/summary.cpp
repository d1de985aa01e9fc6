#include <ebb/models/summary.h>

#include <fmt/format.h>

#include <unordered_set>

#include <ebb/graph/error.h>
#include <ebb/graph/mode.h>

namespace ebb {
namespace {

constexpr int width = 65, column1 = 29, column2 = 55;

struct Row {
  std::string name, shape;
  std::int64_t parameters;
};

std::string line(const std::string& a, const std::string& b, const std::string& c) {
  std::string out = a.substr(0, column1 - 1);
  out.resize(column1, ' ');
  out += b.substr(0, column2 - column1 - 1);
  out.resize(column2, ' ');
  return out + c + "\n";
}

std::string batch_shape(const Shape& shape) {
  std::string out = "(None";
  for (int i = 1; i < shape.rank(); ++i) out += fmt::format(", {}", shape[i]);
  return out + ")";
}

std::string table(const std::vector<Row>& rows, Module& module, const std::string& name) {
  const std::string thin = std::string(width, '_') + "\n", thick = std::string(width, '=') + "\n";
  std::string out = fmt::format("Model: \"{}\"\n{}{}{}", name, thin, line("Layer (type)", "Output Shape", "Param #"), thick);
  for (std::size_t i = 0; i < rows.size(); ++i)
    out += line(rows[i].name, rows[i].shape, std::to_string(rows[i].parameters)) + (i + 1 < rows.size() ? thin : thick);
  std::int64_t trained = 0, fixed = 0;
  double bytes = 0;
  std::unordered_set<const std::byte*> counted;  // a shared parameter counts once
  for (const NamedTensor& t : named_tensors(module)) {
    if (!counted.insert(t.tensor->raw()).second) continue;
    (t.trained && t.tensor->tracked() ? trained : fixed) += t.tensor->numel();
    bytes += static_cast<double>(t.tensor->bytes());
  }
  return out + fmt::format("Total params: {} ({})\nTrainable params: {}\nNon-trainable params: {}\n", with_commas(trained + fixed),
                           format_bytes(bytes), with_commas(trained), with_commas(fixed)) + thin;
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

std::string summary(Module& module, const Shape& sample) {
  const NoGrad quiet;
  std::vector<Row> rows;
  if (auto* sequential = dynamic_cast<Sequential*>(&module)) {
    Tensor x = zeros(sample.inserted(0, 1));
    for (const Layer& layer : sequential->layers()) {
      x = (*layer)(x);
      rows.push_back({fmt::format("{} ({})", layer->name(), layer->type()), batch_shape(x.shape()), parameter_count(*layer)});
    }
    return table(rows, module, "sequential");
  }
  // The members of any other module are called from its own code: only their parameters are known.
  const Shape out = build(module, sample).inserted(0, 1);
  Members members;
  module.visit(members);
  for (const auto& [name, m] : members.found)
    rows.push_back({fmt::format("{} ({})", name, m->type()), "", parameter_count(*m)});
  rows.push_back({"output", batch_shape(out), 0});
  return table(rows, module, std::string(module.type()));
}

std::string summary(Sequential& model) {
  if (!model.input_shape())
    throw ValueError("summary: the model has not seen its input; give the shape of a sample: summary(model, {28, 28, 1})");
  return summary(model, *model.input_shape());
}

}  // namespace ebb

// ONNX files: the graph and its bytes. The numbers of fields are those of onnx.proto.
#include <ebb/models/exchange/onnx.h>

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <span>

#include <ebb/graph/error.h>
#include <ebb/models/exchange/onnx_graph.h>
#include <ebb/models/files/atomic_file.h>
#include <ebb/models/files/version.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace detail {
namespace {

constexpr std::int64_t opset = 13, ir_version = 7;
constexpr std::size_t most_bytes = (std::size_t{1} << 31) - 1;  // of one protobuf message

/// A constant that broadcasts to images, for images with the channels first.
Tensor channels_first(const Tensor& t) {
  if (t.numel() == 1) return reshape(t, Shape());
  Shape wide = t.shape();
  while (wide.rank() < 4) wide = wide.inserted(0, 1);
  const Tensor turned = transpose(reshape(t, wide), {0, 3, 1, 2});
  Shape out = turned.shape();
  while (out[0] == 1) out = out.without(0);
  return reshape(turned, out);
}

std::span<const std::byte> bytes_of(const std::string& s) { return std::as_bytes(std::span(s)); }

}  // namespace

TensorType type_of(DType t) {
  return t == f32 ? type_float : t == f64 ? type_double : t == i64 ? type_int64 : type_uint8;
}

OnnxGraph::OnnxGraph(Module& module, const Program& p)
    : p_(p), plain_(p.values.size()), first_(p.values.size()), boolean_(p.values.size()) {
  for (const NamedTensor& t : named_tensors(module)) parameters_.try_emplace(t.tensor->raw(), t.path);
  plain_[0] = "input";
}

void OnnxGraph::build() {
  for (const Step& s : p_.steps) {
    const OnnxRow* row = onnx_row(s.op);
    if (!row) refuse(s, fmt::format("cannot be expressed in ONNX opset {}", opset));
    step_ = &s;
    row->emit(*this, s, row->type);
  }
  step_ = nullptr;
  const std::string last = plain(p_.output);
  if (last == "input") throw ValueError("export_onnx: the result is the input itself: there is nothing to export");
  for (Node& n : nodes_) {
    std::ranges::replace(n.inputs, last, std::string("output"));
    if (n.name == last) n.name = "output";
  }
  drop_unused();
}

void OnnxGraph::refuse(const Step& s, std::string_view why) {
  throw ValueError(fmt::format("export_onnx: {} {}", s.place(), why));
}

std::string OnnxGraph::node(std::string_view type, std::vector<std::string> inputs, OnnxAttributes attributes) {
  std::string path = step_ ? step_->path : std::string();
  std::ranges::replace(path, '.', '/');
  nodes_.push_back({std::string(type), fmt::format("{}{}{}_{}", path, path.empty() ? "" : "/", type, nodes_.size()),
                    std::move(inputs), std::move(attributes)});
  return nodes_.back().name;
}

std::string OnnxGraph::constant(const Tensor& t, TensorType type) {
  const std::byte* parameter = parameters_.contains(t.raw()) ? t.raw() : nullptr;
  for (const Initializer& i : initializers_) {
    if (i.type != type || i.parameter != parameter) continue;
    if (parameter ? i.value.shape() == t.shape() && i.value.raw() == t.raw() : t.numel() <= 64 && same_bits(i.value, t))
      return i.name;
  }
  return add_initializer(t, type, parameter);
}

std::string OnnxGraph::turned(const Tensor& t, const Tensor& in_order) {
  if (!parameters_.contains(t.raw())) return constant(in_order);
  for (const Initializer& i : initializers_)
    if (i.parameter == t.raw() && same_bits(i.value, in_order)) return i.name;
  return add_initializer(in_order, type_of(in_order.dtype()), t.raw());
}

std::string OnnxGraph::add_initializer(const Tensor& value, TensorType type, const std::byte* parameter) {
  const std::string name = parameter ? parameters_.at(parameter) : fmt::format("constant_{}", initializers_.size());
  std::string unique = name;
  const auto taken = [&](const Initializer& i) { return i.name == unique; };
  for (int i = 1; std::ranges::any_of(initializers_, taken); ++i) unique = fmt::format("{}_{}", name, i);
  initializers_.push_back({unique, value.detach(), type, parameter});
  return unique;
}

std::string OnnxGraph::raw(int id, bool channels) {
  const auto i = static_cast<std::size_t>(id);
  std::string& name = (channels ? first_ : plain_)[i];
  if (name.empty())
    name = channels ? node("Transpose", {plain_[i]}, OnnxAttributes()("perm", Ints{0, 3, 1, 2}))
                    : node("Transpose", {first_[i]}, OnnxAttributes()("perm", Ints{0, 2, 3, 1}));
  return name;
}

std::string OnnxGraph::in_order(int id, bool channels) {
  if (is_constant(id)) return constant(channels ? channels_first(value(id).value) : value(id).value);
  const std::string name = raw(id, channels);
  return boolean_[static_cast<std::size_t>(id)] ? node("Cast", {name}, OnnxAttributes()("to", std::int64_t{type_uint8}))
                                                : name;
}

std::string OnnxGraph::condition(int id, bool channels) {
  if (is_constant(id)) return constant(channels ? channels_first(value(id).value) : value(id).value, type_bool);
  const std::string name = raw(id, channels);
  return boolean_[static_cast<std::size_t>(id)] ? name
                                                : node("Cast", {name}, OnnxAttributes()("to", std::int64_t{type_bool}));
}

std::string OnnxGraph::full(int id) {
  return value(id).batch_axis < 0 ? plain(id) : node("Expand", {plain(id), sizes(id)});
}

bool OnnxGraph::runs_first(const std::vector<int>& ids) const {
  const bool any = std::ranges::any_of(ids, [&](int id) { return !is_constant(id) && is_first(id); });
  return any && std::ranges::all_of(
                    ids, [&](int id) { return is_constant(id) ? shape(id).rank() <= 4 : shape(id).rank() == 4; });
}

void OnnxGraph::give(const Step& s, std::string name, bool channels, bool boolean) {
  (channels ? first_ : plain_)[static_cast<std::size_t>(s.output)] = std::move(name);
  boolean_[static_cast<std::size_t>(s.output)] = boolean;
}

void OnnxGraph::alias(const Step& s, int id) {
  for (auto* names : {&plain_, &first_})
    (*names)[static_cast<std::size_t>(s.output)] = (*names)[static_cast<std::size_t>(id)];
  boolean_[static_cast<std::size_t>(s.output)] = boolean_[static_cast<std::size_t>(id)];
}

std::string OnnxGraph::sizes(int id) {
  const TracedValue& v = value(id);
  std::vector<std::string> parts;
  for (int k = 0; k < v.value.rank(); ++k) {
    const bool constant_axis = v.batch_axis == k;
    if (!constant_axis && !v.grows(k)) {
      parts.push_back(list({v.value.shape()[k]}));
      continue;
    }
    if (batch_.empty()) batch_ = node("Slice", {node("Shape", {"input"}), list({0}), list({1})});
    const std::int64_t times = constant_axis ? 1 : batches(v, k);
    parts.push_back(times == 1 ? batch_ : node("Mul", {batch_, list({times})}));
  }
  return node("Concat", std::move(parts), OnnxAttributes()("axis", std::int64_t{0}));
}

/// How many times the batch an axis is that grows with it.
std::int64_t OnnxGraph::batches(const TracedValue& v, int axis) const {
  const std::int64_t a = v.value.shape()[axis], b = v.other[axis];
  if (a % Program::batch || a / Program::batch * Program::other_batch != b)
    throw ValueError(
        fmt::format("export_onnx: {}: gives {} for {} samples and {} for {}; only multiples of the batch can be said",
                    step_ ? step_->place() : "the result", v.value.shape().str(), Program::batch, v.other.str(),
                    Program::other_batch));
  return a / Program::batch;
}

Ints OnnxGraph::reshaped(const Step& s) const {
  const TracedValue& v = value(s.output);
  Ints out(v.value.shape().begin(), v.value.shape().end());
  int open = 0;
  for (int k = 0; k < v.value.rank(); ++k)
    if (v.grows(k)) out[static_cast<std::size_t>(k)] = -1, ++open;
  if (open > 1) refuse(s, "gives two sizes that depend on the batch");
  return out;
}

void OnnxGraph::drop_unused() {
  std::set<std::string_view> used{"output"};
  for (std::size_t i = nodes_.size(); i-- > 0;)
    if (used.contains(nodes_[i].name)) used.insert(nodes_[i].inputs.begin(), nodes_[i].inputs.end());
  std::vector<Node> nodes;
  for (const Node& n : nodes_)
    if (used.contains(n.name)) nodes.push_back(n);
  std::erase_if(initializers_, [&](const Initializer& i) { return !used.contains(i.name); });
  nodes_ = std::move(nodes);
}

/// ValueInfoProto
ProtoMessage OnnxGraph::described(std::string_view name, int id) const {
  const TracedValue& v = value(id);
  ProtoMessage shape;
  for (int k = 0; k < v.value.rank(); ++k) {
    ProtoMessage size;
    if (!v.grows(k)) size.integer(1, v.value.shape()[k]);
    else if (const std::int64_t times = batches(v, k); times == 1) size.text(2, "N");
    else size.text(2, fmt::format("{}N", times));
    shape.message(1, size);
  }
  const ProtoMessage tensor = ProtoMessage().integer(1, type_of(v.value.dtype())).message(2, shape);
  return ProtoMessage().text(1, name).message(2, ProtoMessage().message(1, tensor));
}

void OnnxGraph::write(const std::filesystem::path& path, const OnnxOptions& options) const {
  std::size_t total = 0;
  for (const Initializer& i : initializers_) total += i.value.bytes();
  const auto expect_fits = [&](std::size_t bytes) {
    if (bytes > most_bytes)
      throw ValueError(fmt::format("export_onnx: {}: the model takes {:.1f} GiB, an ONNX file holds less than 2",
                                   path.string(), static_cast<double>(bytes) / (1 << 30)));
  };
  expect_fits(total);
  ProtoMessage graph;
  for (const Node& n : nodes_) {
    ProtoMessage m;
    for (const std::string& in : n.inputs) m.text(1, in);
    m.text(2, n.name).text(3, n.name).text(4, n.type);
    for (const ProtoMessage& a : n.attributes.all()) m.message(5, a);
    graph.message(1, m);
  }
  graph.text(2, options.name).message(11, described("input", 0)).message(12, described("output", p_.output));
  // The elements go from where they are into the file; what lies between them is built here.
  std::vector<std::string> texts;
  std::size_t graph_bytes = graph.bytes().size();
  for (const Initializer& i : initializers_) {
    ProtoMessage head, outer;
    head.integers(1, std::span(i.value.shape().begin(), i.value.shape().end()))
        .integer(2, i.type)
        .text(8, i.name)
        .open(9, i.value.bytes());
    outer.open(5, head.bytes().size() + i.value.bytes());
    texts.push_back(outer.bytes() + head.bytes());
    graph_bytes += texts.back().size() + i.value.bytes();
  }
  ProtoMessage model;
  model.integer(1, ir_version)
      .text(2, "ebb")
      .text(3, version())
      .message(8, ProtoMessage().text(1, "").integer(2, opset));
  for (const auto& [key, text] : options.metadata) model.message(14, ProtoMessage().text(1, key).text(2, text));
  model.open(7, graph_bytes);
  expect_fits(model.bytes().size() + graph_bytes);
  std::vector<std::span<const std::byte>> pieces{bytes_of(model.bytes()), bytes_of(graph.bytes())};
  for (std::size_t i = 0; i < initializers_.size(); ++i) {
    pieces.push_back(bytes_of(texts[i]));
    pieces.push_back({initializers_[i].value.raw(), initializers_[i].value.bytes()});
  }
  write_atomically(path, pieces);
}

}  // namespace detail

void export_onnx(Module& module, const std::filesystem::path& path, const Shape& sample, const OnnxOptions& options) {
  const detail::Program program = detail::trace(module, sample, options.input, "export_onnx",
                                                [](std::string_view op) { return detail::onnx_row(op) != nullptr; });
  detail::OnnxGraph graph(module, program);
  graph.build();
  graph.write(path, options);
}

}  // namespace ebb

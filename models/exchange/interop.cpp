#include <ebb/models/exchange/interop.h>

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <unordered_map>
#include <utility>

#include <ebb/graph/error.h>
#include <ebb/models/exchange/foreign.h>
#include <ebb/models/files/safetensors.h>
#include <ebb/models/layers/layer_kinds.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

using detail::Foreign;
using Turn = std::function<Tensor(const Tensor&)>;

Turn permute(std::initializer_list<int> axes) {
  return [a = std::vector<int>(axes)](const Tensor& t) {
    return a.size() == 2 ? transpose(t, {a[0], a[1]}) : transpose(t, {a[0], a[1], a[2], a[3]});
  };
}
Turn as(const Shape& shape) {
  return [shape](const Tensor& t) { return reshape(t, shape); };
}
Turn both(const Turn& first, const Turn& then) {
  return [first, then](const Tensor& t) { return then(first(t)); };
}

/// Gates of a recurrent layer in another order; `axis` holds `gates` of them side by side. The same way back where the
/// order swaps two.
Turn gates(std::vector<std::int64_t> order, int axis) {
  return [order = std::move(order), axis](const Tensor& t) {
    const std::int64_t u = t.size(axis) / static_cast<std::int64_t>(order.size());
    std::vector<Tensor> parts;
    for (const std::int64_t i : order) parts.push_back(slice(t, {.axis = axis, .begin = i * u, .end = (i + 1) * u}));
    return concat(parts, axis);
  };
}

/// What the options of a layer say that matters here.
struct Facts final : detail::Fields {
  bool activated = false;
  std::int64_t heads = 0;
  std::vector<std::pair<std::string, std::vector<Layer>>> parts;  // lists of layers inside, as PyTorch calls them

  void operator()(std::string_view name, std::int64_t& value, std::string_view, bool) override {
    if (name == "heads") heads = value;
  }
  void operator()(std::string_view, Pair&, std::string_view, bool) override {}
  void number(std::string_view, double&, std::string_view) override {}
  void rate(double&) override {}
  void flag(std::string_view, bool&) override {}
  void padding(Padding&) override {}
  void activation(Activation& value) override { activated = value != nullptr; }
  void sizes(std::vector<std::int64_t>&, std::string_view) override {}
  void layers(std::string_view name, std::vector<Layer>& value, std::string_view, bool) override {
    parts.emplace_back(name == "layers" ? "body" : name, value);
  }
  void branches(std::vector<std::vector<Layer>>& value, std::string_view) override {
    for (const auto& branch : value) parts.emplace_back(fmt::format("branches.{}", parts.size()), branch);
  }
};

class Walk {
 public:
  explicit Walk(Naming naming) : naming_(naming) {}

  /// Visits the layers of a list; x is what goes in, undefined when that is not known. Returns what comes out.
  Tensor list(const std::vector<Layer>& layers, const std::string& prefix, Tensor x) {
    int place = 0;
    for (const Layer& layer : layers) x = visit(*layer, prefix, place, x);
    return x;
  }
  std::vector<Foreign> out;

  /// How the other side has a kind of layer.
  struct Row {
    std::string_view word;                                                ///< of the kind in layer_kinds.cpp
    void (Walk::*add)(Module&, const Facts&, const Tensor& x) = nullptr;  ///< adds its weights; null: it has none
    bool any_order = false;  ///< it can follow the Flatten of an image, whose elements PyTorch has in another order
    int more = 0;            ///< modules that PyTorch has for it beyond one, without the activation
  };
  static const Row* row_of(std::string_view word);

 private:
  static Tensor run(Module& m, const Tensor& x) { return x.defined() ? m(x) : x; }
  bool torch() const { return naming_ == Naming::torch; }

  /// One layer, which stands at `place` among its neighbors; the next one's place comes back in it.
  Tensor visit(Module& m, const std::string& prefix, int& place, const Tensor& x) {
    const std::string torch_name = fmt::format("{}{}", prefix, place++);
    if (auto* sequential = dynamic_cast<Sequential*>(&m)) return list(sequential->layers(), torch_name + ".", x);
    Facts facts;
    const detail::LayerKind* kind = detail::layer_kind_of(m, facts);
    if (!facts.parts.empty()) {
      expect_not_flat(m, torch_name);
      for (const auto& [name, layers] : facts.parts) list(layers, fmt::format("{}.{}.", torch_name, name), x);
      return run(m, x);
    }
    layer_ = torch() ? torch_name : counted(detail::snake_case(keras_class(m.type())));
    tensors_.clear();
    for (const NamedTensor& t : named_tensors(m)) tensors_[t.path] = t.tensor;
    const Row* row = kind ? row_of(kind->word) : nullptr;
    if (!(row ? row->any_order : works_by_element(m))) expect_not_flat(m, layer_);
    if (row && row->add) (this->*row->add)(m, facts, x);
    else if (!tensors_.empty()) refuse(m, layer_, "has no counterpart");
    place += (row ? row->more : 0) + (facts.activated ? 1 : 0);
    return run(m, x);
  }
  static bool works_by_element(const Module& m) {
    const auto* function = dynamic_cast<const Function*>(&m);
    const Activation f = function ? function->plain() : nullptr;
    return f && f != static_cast<Activation>(softmax) && f != static_cast<Activation>(log_softmax);
  }
  /// Keras' name for the next layer of a kind.
  std::string counted(const std::string& kind) {
    const int alike = counts_[kind]++;
    return alike ? fmt::format("{}_{}", kind, alike) : kind;
  }

  Tensor* find(const std::string& path) {
    const auto it = tensors_.find(path);
    return it == tensors_.end() ? nullptr : it->second;
  }
  void add(std::string weight, Tensor value, std::function<void(const Tensor&)> assign) {
    out.push_back({layer_, std::move(weight), std::move(value), std::move(assign)});
  }
  /// A parameter of ours that is one of theirs, turned there and back; nothing when the layer has none.
  void add(const std::string& ours, std::string theirs, const Turn& there = nullptr, const Turn& back = nullptr) {
    Tensor* t = find(ours);
    if (!t) return;
    add(std::move(theirs), there ? there(t->detach()) : t->detach(),
        [t, back](const Tensor& v) { t->assign(back ? back(v) : v); });
  }

  [[noreturn]] void refuse(const Module& m, const std::string& name, std::string_view why) const {
    throw ValueError(fmt::format("{} names: layer {} ({}): {}", torch() ? "PyTorch" : "Keras", name, m.type(), why));
  }
  void expect_not_flat(const Module& m, const std::string& name) const {
    if (flat_.rank())
      refuse(m, name,
             "only Dense, BatchNormalization, Dropout and functions of single elements can follow the Flatten of an "
             "image");
  }

  // ---- the weights of each kind of layer ----

  void flatten(Module& m, const Facts&, const Tensor& x) {
    if (torch() && !x.defined())
      refuse(m, layer_, "the model must know its input's shape: Sequential(sample, {layers})");
    // channels first there: the same order when there is one channel, or one pixel
    if (torch() && x.rank() == 4 && x.size(3) > 1 && x.size(1) * x.size(2) > 1) flat_ = x.shape().without(0);
  }

  void kernel(std::initializer_list<int> there, std::initializer_list<int> back) {
    if (torch()) add("weight", "weight", permute(there), permute(back));
    else add("weight", "kernel");
    add("bias", "bias");
  }

  void conv(Module&, const Facts&, const Tensor&) { kernel({3, 2, 0, 1}, {2, 3, 1, 0}); }

  void depthwise(Module&, const Facts&, const Tensor&) {
    Tensor* weight = find("weight");
    if (!weight) return;
    if (const Shape k = weight->shape(); torch())  // (kh, kw, c, m) there (c * m, 1, kh, kw)
      add("weight", "weight", both(permute({2, 3, 0, 1}), as({k[2] * k[3], 1, k[0], k[1]})),
          both(as({k[2], k[3], k[0], k[1]}), permute({2, 3, 0, 1})));
    else add("weight", "kernel");
    add("bias", "bias");
  }

  void dense(Module&, const Facts&, const Tensor&) {
    Tensor* weight = find("weight");
    if (!flat_.rank() || !weight) return kernel({1, 0}, {1, 0});
    // rows in the order (h, w, c); there columns in the order (c, h, w)
    const std::int64_t units = weight->size(1), rows = flat_.numel();
    add("weight", "weight",
        both(as({flat_[0], flat_[1], flat_[2], units}), both(permute({3, 2, 0, 1}), as({units, rows}))),
        both(as({units, flat_[2], flat_[0], flat_[1]}), both(permute({2, 3, 1, 0}), as({rows, units}))));
    add("bias", "bias");
    flat_ = {};
  }

  void batch_norm(Module&, const Facts&, const Tensor&) {
    Turn there, back;
    if (flat_.rank()) {
      const Shape f = flat_;
      there = [f](const Tensor& t) { return reshape(transpose(reshape(t, f), {2, 0, 1}), t.shape()); };
      back = [f](const Tensor& t) { return reshape(transpose(reshape(t, {f[2], f[0], f[1]}), {1, 2, 0}), t.shape()); };
    }
    constexpr std::pair<const char*, const char*> names[] = {
        {"weight", "gamma"}, {"bias", "beta"}, {"running_mean", "moving_mean"}, {"running_var", "moving_variance"}};
    for (const auto& [ours, keras] : names) add(ours, torch() ? ours : keras, there, back);
    if (torch() && find("running_mean")) add("num_batches_tracked", scalar(0, i64), [](const Tensor&) {});
  }

  void scale_and_shift(Module&, const Facts&, const Tensor&) {
    add("weight", torch() ? "weight" : "gamma");
    add("bias", torch() ? "bias" : "beta");
  }

  void embeddings(Module&, const Facts&, const Tensor&) { add("weight", torch() ? "weight" : "embeddings"); }

  void recurrent(Module&, const Facts&, const Tensor&) {
    const Turn same = [](const Tensor& t) { return t; };
    recurrent_weights(same);
    Tensor* bias = find("bias");
    if (torch() && bias)  // two there, which are added
      add("bias_hh_l0", zeros_like(*bias), [bias](const Tensor& v) { bias->assign(bias->detach() + v); });
  }

  void gru(Module&, const Facts&, const Tensor&) {
    const Turn order = gates({1, 0, 2}, 0);  // z, r, h against r, z, n
    if (torch()) return recurrent_weights(order), add("recurrent_bias", "bias_hh_l0", order, order);
    Tensor *bias = find("bias"), *more = find("recurrent_bias");
    if (!bias || !more) return;
    add("weight", "kernel");
    add("recurrent_weight", "recurrent_kernel");
    add("bias", stack(std::vector<Tensor>{bias->detach(), more->detach()}, 0), [bias, more](const Tensor& v) {
      bias->assign(v.rows(0, 1).viewed_as(bias->shape())), more->assign(v.rows(1, 2).viewed_as(more->shape()));
    });
  }

  void recurrent_weights(const Turn& order) {
    if (torch()) {
      add("weight", "weight_ih_l0", both(permute({1, 0}), order), both(order, permute({1, 0})));
      add("recurrent_weight", "weight_hh_l0", both(permute({1, 0}), order), both(order, permute({1, 0})));
      add("bias", "bias_ih_l0", order, order);
    } else {
      add("weight", "kernel");
      add("recurrent_weight", "recurrent_kernel");
      add("bias", "bias");
    }
  }

  void attention(Module& m, const Facts& facts, const Tensor&) {
    Tensor* query = find("query.weight");
    if (!query) return;
    const std::int64_t d = query->size(0), all = query->size(1), heads = facts.heads;
    const std::string members[] = {"query", "key", "value"};
    if (!torch()) {
      for (const std::string& name : members) {
        add(name + ".weight", name + "/kernel", as({find(name + ".weight")->size(0), heads, all / heads}),
            as(find(name + ".weight")->shape()));
        add(name + ".bias", name + "/bias", as({heads, all / heads}), as({all}));
      }
      add("output.weight", "attention_output/kernel", as({heads, all / heads, d}), as({all, d}));
      return add("output.bias", "attention_output/bias");
    }
    if (all != d) refuse(m, layer_, "PyTorch's attention has heads of features / heads");
    for (const std::string part : {"weight", "bias"}) {
      std::vector<Tensor*> own;
      std::vector<Tensor> turned;
      for (const std::string& name : members)
        if (Tensor* t = find(name + "." + part)) own.push_back(t), turned.push_back(transpose(t->detach()));
      if (own.empty()) continue;
      add("in_proj_" + part, concat(turned, 0), [own, d](const Tensor& v) {
        for (std::size_t i = 0; i < own.size(); ++i)
          own[i]->assign(transpose(v.rows(static_cast<std::int64_t>(i) * d, static_cast<std::int64_t>(i + 1) * d)));
      });
    }
    add("output.weight", "out_proj.weight", permute({1, 0}), permute({1, 0}));
    add("output.bias", "out_proj.bias");
  }

  Naming naming_;
  Shape flat_;  // of the image that was flattened, until a layer undoes its order
  std::string layer_;
  std::unordered_map<std::string, Tensor*> tensors_;
  std::unordered_map<std::string, int> counts_;
};

const Walk::Row* Walk::row_of(std::string_view word) {
  static constexpr Row rows[] = {
      {"conv", &Walk::conv},
      {"depthwise", &Walk::depthwise},
      {"deconv", &Walk::conv},
      {.word = "dense", .add = &Walk::dense, .any_order = true},
      {"pool"},
      {"avgpool"},
      {.word = "globalavgpool", .more = 1},  // and a Flatten
      {.word = "globalmaxpool", .more = 1},
      {"flatten", &Walk::flatten},
      {"reshape"},
      {.word = "dropout", .any_order = true},
      {"spatialdropout"},
      {.word = "batchnorm", .add = &Walk::batch_norm, .any_order = true},
      {"layernorm", &Walk::scale_and_shift},
      {"groupnorm", &Walk::scale_and_shift},
      {"standardize"},  // refused once it holds numbers: no counterpart
      {"embedding", &Walk::embeddings},
      {"position", &Walk::embeddings},
      {"rnn", &Walk::recurrent},
      {"gru", &Walk::gru},
      {"lstm", &Walk::recurrent},
      {"attention", &Walk::attention},
      {"residual"},  // of layers that have rows of their own
      {"concat"},
  };
  const Row* row = std::ranges::find(rows, word, &Row::word);
  return row == std::end(rows) ? nullptr : row;
}

}  // namespace

bool detail::has_exchange_row(std::string_view word) { return Walk::row_of(word); }

std::vector<Foreign> detail::foreign_tensors(Naming naming, Sequential& net) {
  const NoGrad quiet;
  const Training inference(false);
  Walk walk(naming);
  walk.list(net.layers(), "", net.input_shape() ? zeros(net.input_shape()->inserted(0, 1)) : Tensor());
  for (Foreign& f : walk.out) f.value = f.value.clone();
  return std::move(walk.out);
}

void detail::assign_all(Naming naming, std::vector<Foreign>& to, const std::vector<Tensor>& values,
                        std::string problems, const std::string& source) {
  const auto complain = [&](const std::string& what) { problems += (problems.empty() ? "" : "; ") + what; };
  for (std::size_t i = 0; i < to.size(); ++i) {
    if (!values[i].defined()) {
      if (to[i].weight != "num_batches_tracked") complain(fmt::format("{} is missing", to[i].name(naming)));
    } else if (values[i].shape() != to[i].value.shape() || values[i].dtype() != to[i].value.dtype()) {
      complain(
          fmt::format("{} is {}, the model has {}", to[i].name(naming), describe(values[i]), describe(to[i].value)));
    }
  }
  if (!problems.empty()) throw ShapeError(fmt::format("{}: {}", source, problems));
  const NoGrad quiet;
  for (std::size_t i = 0; i < to.size(); ++i)
    if (values[i].defined()) to[i].assign(values[i]);
}

Naming naming_of(std::string_view name) {
  if (name == "torch") return Naming::torch;
  if (name == "keras") return Naming::keras;
  throw ValueError(fmt::format("unknown layout \"{}\"; expected torch or keras", name));
}

std::map<std::string, Tensor> named_as(Naming naming, Sequential& net) {
  std::map<std::string, Tensor> out;
  for (Foreign& f : detail::foreign_tensors(naming, net)) out[f.name(naming)] = std::move(f.value);
  return out;
}

void assign_as(Naming naming, Sequential& net, const std::map<std::string, Tensor>& tensors,
               const std::string& source) {
  std::vector<Foreign> own = detail::foreign_tensors(naming, net);
  std::vector<Tensor> values(own.size());
  std::map<std::string, Tensor> extra = tensors;
  for (std::size_t i = 0; i < own.size(); ++i)
    if (auto found = extra.extract(own[i].name(naming))) values[i] = std::move(found.mapped());
  std::string problems;
  for (const auto& [name, _] : extra) problems += fmt::format("{}{} is extra", problems.empty() ? "" : "; ", name);
  detail::assign_all(naming, own, values, std::move(problems), source);
}

void save_torch(Sequential& net, const std::filesystem::path& path, const Metadata& metadata) {
  write_safetensors(path, {metadata, named_as(Naming::torch, net)});
}
void load_torch(Sequential& net, const std::filesystem::path& path) {
  assign_as(Naming::torch, net, read_safetensors(path).tensors, path.string());
}
void save_keras(Sequential& net, const std::filesystem::path& path, const Metadata& metadata) {
  write_safetensors(path, {metadata, named_as(Naming::keras, net)});
}
void load_keras(Sequential& net, const std::filesystem::path& path) {
  assign_as(Naming::keras, net, read_safetensors(path).tensors, path.string());
}

}  // namespace ebb

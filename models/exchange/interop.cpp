#include <ebb/models/exchange/interop.h>

#include <fmt/format.h>

#include <numeric>
#include <unordered_map>
#include <utility>

#include <ebb/graph/error.h>
#include <ebb/models/exchange/foreign.h>
#include <ebb/models/files/safetensors.h>
#include <ebb/models/layers/attention.h>
#include <ebb/models/layers/combine.h>
#include <ebb/models/layers/conv.h>
#include <ebb/models/layers/norm.h>
#include <ebb/models/layers/recurrent.h>
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

 private:
  static Tensor run(Module& m, const Tensor& x) { return x.defined() ? m(x) : x; }
  bool torch() const { return naming_ == Naming::torch; }

  /// One layer, which stands at `place` among its neighbors; the next one's place comes back in it.
  Tensor visit(Module& m, const std::string& prefix, int& place, const Tensor& x) {
    const std::string torch_name = fmt::format("{}{}", prefix, place++);
    std::string name = torch_name;
    const auto inside = [&](const std::string& member) { return fmt::format("{}.{}.", torch_name, member); };
    if (auto* sequential = dynamic_cast<Sequential*>(&m)) return list(sequential->layers(), torch_name + ".", x);
    if (auto* residual = dynamic_cast<Residual*>(&m)) {
      expect_not_flat(m, torch_name);
      const ResidualOptions o = residual->options();
      list(o.layers, inside("body"), x), list(o.shortcut, inside("shortcut"), x);
      return run(m, x);
    }
    if (auto* concat = dynamic_cast<Concat*>(&m)) {
      expect_not_flat(m, torch_name);
      int i = 0;
      for (const std::vector<Layer>& branch : concat->options().branches)
        list(branch, fmt::format("{}.branches.{}.", torch_name, i++), x);
      return run(m, x);
    }
    const std::string kind = detail::snake_case(keras_class(m.type()));
    if (!torch()) {
      const int alike = counts_[kind]++;
      name = alike ? fmt::format("{}_{}", kind, alike) : kind;
    }
    layer_ = name;
    tensors_.clear();
    for (const NamedTensor& t : named_tensors(m)) tensors_[t.path] = t.tensor;
    place += weights(m, x);
    return run(m, x);
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

  /// Adds the weights of one layer; returns how many modules PyTorch has for it beyond one.
  int weights(Module& m, const Tensor& x) {
    const auto activated = [](const auto& o) { return o.activation ? 1 : 0; };
    if (auto* dense = dynamic_cast<Dense*>(&m)) return dense_weights(*dense), activated(dense->options());
    if (auto* norm = dynamic_cast<BatchNormalization*>(&m)) return batch_norm_weights(*norm), 0;
    if (dynamic_cast<Dropout*>(&m)) return 0;
    if (const auto* function = dynamic_cast<Function*>(&m)) {
      const Activation f = function->plain();
      if (!f || f == static_cast<Activation>(softmax) || f == static_cast<Activation>(log_softmax))
        expect_not_flat(m, layer_);
      return 0;
    }
    expect_not_flat(m, layer_);
    if (dynamic_cast<Flatten*>(&m)) {
      if (torch() && !x.defined())
        refuse(m, layer_, "the model must know its input's shape: Sequential(sample, {layers})");
      // channels first there: the same order when there is one channel, or one pixel
      if (torch() && x.rank() == 4 && x.size(3) > 1 && x.size(1) * x.size(2) > 1) flat_ = x.shape().without(0);
      return 0;
    }
    if (auto* conv = dynamic_cast<Conv2D*>(&m)) return kernel({3, 2, 0, 1}, {2, 3, 1, 0}), activated(conv->options());
    if (auto* conv = dynamic_cast<Conv2DTranspose*>(&m))
      return kernel({3, 2, 0, 1}, {2, 3, 1, 0}), activated(conv->options());
    if (auto* conv = dynamic_cast<DepthwiseConv2D*>(&m)) {
      if (const Shape k = conv->weight.shape(); torch())  // (kh, kw, c, m) there (c * m, 1, kh, kw)
        add("weight", "weight", both(permute({2, 3, 0, 1}), as({k[2] * k[3], 1, k[0], k[1]})),
            both(as({k[2], k[3], k[0], k[1]}), permute({2, 3, 0, 1})));
      else add("weight", "kernel");
      add("bias", "bias");
      return activated(conv->options());
    }
    if (dynamic_cast<LayerNormalization*>(&m) || dynamic_cast<GroupNormalization*>(&m)) {
      add("weight", torch() ? "weight" : "gamma");
      add("bias", torch() ? "bias" : "beta");
      return 0;
    }
    if (dynamic_cast<Embedding*>(&m) || dynamic_cast<PositionEmbedding*>(&m))
      return add("weight", torch() ? "weight" : "embeddings"), 0;
    if (auto* recurrent = dynamic_cast<Recurrent*>(&m)) return recurrent_weights(*recurrent), 0;
    if (auto* attention = dynamic_cast<MultiHeadAttention*>(&m)) return attention_weights(*attention), 0;
    if (dynamic_cast<GlobalAvgPool2D*>(&m) || dynamic_cast<GlobalMaxPool2D*>(&m)) return 1;  // and a Flatten
    if (!tensors_.empty()) refuse(m, layer_, "has no counterpart");
    return 0;
  }

  void kernel(std::initializer_list<int> there, std::initializer_list<int> back) {
    if (torch()) add("weight", "weight", permute(there), permute(back));
    else add("weight", "kernel");
    add("bias", "bias");
  }

  void dense_weights(Dense& m) {
    if (!flat_.rank()) {
      kernel({1, 0}, {1, 0});
    } else {  // rows in the order (h, w, c); there columns in the order (c, h, w)
      const std::int64_t units = m.weight.size(1), rows = flat_.numel();
      add("weight", "weight",
          both(as({flat_[0], flat_[1], flat_[2], units}), both(permute({3, 2, 0, 1}), as({units, rows}))),
          both(as({units, flat_[2], flat_[0], flat_[1]}), both(permute({2, 3, 1, 0}), as({rows, units}))));
      add("bias", "bias");
    }
    flat_ = {};
  }

  void batch_norm_weights(BatchNormalization& m) {
    Turn there, back;
    if (flat_.rank()) {
      const Shape f = flat_;
      there = [f](const Tensor& t) { return reshape(transpose(reshape(t, f), {2, 0, 1}), t.shape()); };
      back = [f](const Tensor& t) { return reshape(transpose(reshape(t, {f[2], f[0], f[1]}), {1, 2, 0}), t.shape()); };
    }
    constexpr std::pair<const char*, const char*> names[] = {
        {"weight", "gamma"}, {"bias", "beta"}, {"running_mean", "moving_mean"}, {"running_var", "moving_variance"}};
    for (const auto& [ours, keras] : names) add(ours, torch() ? ours : keras, there, back);
    if (torch() && m.running_mean.defined()) add("num_batches_tracked", scalar(0, i64), [](const Tensor&) {});
  }

  void recurrent_weights(Recurrent& m) {
    const bool gru = dynamic_cast<GRU*>(&m) != nullptr;
    Tensor* bias = find("bias");
    if (!bias) return;
    if (!torch()) {
      add("weight", "kernel");
      add("recurrent_weight", "recurrent_kernel");
      Tensor* more = gru ? find("recurrent_bias") : nullptr;
      if (!more) return add("bias", "bias");
      return add("bias", stack(std::vector<Tensor>{bias->detach(), more->detach()}, 0), [bias, more](const Tensor& v) {
        bias->assign(v.rows(0, 1).viewed_as(bias->shape())), more->assign(v.rows(1, 2).viewed_as(more->shape()));
      });
    }
    const Turn order = gru ? gates({1, 0, 2}, 0) : Turn([](const Tensor& t) { return t; });  // z, r, h against r, z, n
    add("weight", "weight_ih_l0", both(permute({1, 0}), order), both(order, permute({1, 0})));
    add("recurrent_weight", "weight_hh_l0", both(permute({1, 0}), order), both(order, permute({1, 0})));
    add("bias", "bias_ih_l0", order, order);
    if (gru) return add("recurrent_bias", "bias_hh_l0", order, order);
    add("bias_hh_l0", zeros_like(*bias),
        [bias](const Tensor& v) { bias->assign(bias->detach() + v); });  // two there, which are added
  }

  void attention_weights(MultiHeadAttention& m) {
    Tensor* query = find("query.weight");
    if (!query) return;
    const std::int64_t d = query->size(0), all = query->size(1), heads = m.options().heads;
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

}  // namespace

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
  throw ValueError(fmt::format("there are the layouts torch and keras, not \"{}\"", name));
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

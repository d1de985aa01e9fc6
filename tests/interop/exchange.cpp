// Weights and arrays on their way to Python and back, for tests/interop/exchange.py:
//   interop_exchange write FOLDER   for some models NAME.torch.safetensors, NAME.keras.safetensors, and
//                                   NAME.io.safetensors with an input and what ebb makes of it; arrays.npz and NAME.npy
//   interop_exchange read FOLDER    reads what Python wrote there: other weights and what Python makes of them
#include <fmt/format.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <ebb/ebb.h>
#include <ebb/models/exchange/interop.h>
#include <ebb/models/files/numpy.h>
#include <ebb/models/files/safetensors.h>
#ifdef EBB_HDF5
#include <ebb/models/exchange/hdf5.h>
#endif

using namespace ebb;
namespace fs = std::filesystem;

namespace {

struct Model {
  const char* name;
  Shape sample;
  std::vector<Layer> layers;
  bool torch = true, keras = true;
};

// exchange.py builds the same ones in PyTorch
std::vector<Model> models() {
  const Padding same = Padding::same();
  const auto conv = [&](std::int64_t filters, Activation f, Padding pad) {
    return Conv2D({.filters = filters, .pad = pad, .activation = f});
  };
  return {
      {"mlp", {4, 5, 3}, {Flatten(), BatchNormalization(), Dropout(0.5), Dense(8, relu), Dense(5)}},
      {"cnn",
       {13, 12, 3},
       {conv(4, relu, 0), MaxPool2D(2), Conv2D({.filters = 6, .kernel = 2, .groups = 2}), BatchNormalization(), relu,
        DepthwiseConv2D({.kernel = 2, .multiplier = 2, .activation = relu}), Flatten(), Dropout(0.5), Dense(8, tanh),
        Dense(5)}},
      {"residual",
       {8, 8, 3},
       {conv(4, relu, same), Residual({conv(4, relu, same), conv(4, nullptr, same)}),
        Residual({conv(6, nullptr, same)}, {Conv2D({.filters = 6, .kernel = 1})}),
        Concat({conv(2, relu, same), Sequential({conv(3, relu, same), conv(2, nullptr, same)})}),
        Conv2DTranspose({.filters = 3, .kernel = 2, .stride = 2}), GroupNormalization({.groups = 3}), GlobalAvgPool2D(),
        Dense(4)}},
      {"rnn", {5, 4}, {SimpleRNN(3)}},
      {"gru", {5, 4}, {GRU(3)}},
      {"lstm", {5, 4}, {LSTM(3)}},
      {"attention", {5, 4}, {LayerNormalization(), MultiHeadAttention(2)}},
      {"embedding", {5}, {Embedding({.size = 7, .units = 4})}},
  };
}

/// Built, with parameters that are not at their start.
Sequential made(const Model& m) {
  Sequential net(m.sample, m.layers);
  for (const NamedTensor& t : named_tensors(net))
    t.tensor->assign(t.path.ends_with("running_var") ? uniform(t.tensor->shape(), 0.5, 2)
                                                     : t.tensor->detach() + normal(t.tensor->shape(), 0, 0.2));
  return net;
}

Tensor input_of(const Model& m) {
  const Shape batch = m.sample.inserted(0, 4);
  return std::string(m.name) == "embedding" ? cast(cast(uniform(batch, 0, 7), i64), f32) : randn(batch);
}

double difference(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape()) return INFINITY;
  double most = 0;
  const auto p = a.to_vector(), q = b.to_vector();
  for (std::size_t i = 0; i < p.size(); ++i)
    if (const double d = std::abs(p[i] - q[i]); !(d <= most)) most = d;
  return most;
}

void write_files(const fs::path& folder) {
  for (const Model& m : models()) {
    Sequential net = made(m);
    const NoGrad quiet;
    const Tensor x = input_of(m);
    save_torch(net, folder / fmt::format("{}.torch.safetensors", m.name));
    save_keras(net, folder / fmt::format("{}.keras.safetensors", m.name));
    write_safetensors(folder / fmt::format("{}.io.safetensors", m.name), {{}, {{"input", x}, {"output", net(x)}}});
  }
  const std::map<std::string, Tensor> arrays{{"f4", randn({3, 4})},   {"f8", randn({2, 1, 3}, f64)},
                                             {"i8", arange(5, i64)},  {"u1", tensor({0, 255}, u8)},
                                             {"scalar", scalar(1.5)}, {"none", zeros({0, 2})}};
  write_npz(folder / "arrays.npz", arrays);
  for (const auto& [name, t] : arrays) write_npy(folder / (name + ".npy"), t);
  write_safetensors(folder / "arrays.safetensors", {{}, arrays});
}

int failures = 0;
void report(const std::string& what, double d, double most) {
  const bool good = d <= most;
  failures += !good;
  fmt::print("{:32} {:.1e}{}\n", what, d, good ? "" : "  WRONG");
}

void read_files(const fs::path& folder) {
  for (const Model& m : models()) {
    const auto compare = [&](const std::string& from,
                             const std::function<void(Sequential&, const fs::path&)>& load_it) {
      const fs::path file = folder / fmt::format("{}.{}", m.name, from);
      if (!fs::exists(file)) return;
      Sequential net = made(m);
      load_it(net, file);
      const auto io =
          read_safetensors(folder / fmt::format("{}.io.safetensors", from == "from_torch.safetensors"
                                                                         ? std::string(m.name) + ".from_torch"
                                                                         : m.name))
              .tensors;
      const NoGrad quiet;
      report(fmt::format("{} {}", m.name, from), difference(net(io.at("input")), io.at("output")), 1e-5);
    };
    compare("from_torch.safetensors", load_torch);
    compare("keras.safetensors", load_keras);
#ifdef EBB_HDF5
    for (const char* kind : {"keras2.h5", "keras2_model.h5", "keras3.weights.h5"}) compare(kind, load_keras_h5);
#endif
  }
  if (!fs::exists(folder / "numpy.safetensors")) return;
  const auto expected = read_safetensors(folder / "numpy.safetensors").tensors;
  for (const char* name : {"numpy.npz", "numpy_deflated.npz"}) {
    const auto got = read_npz(folder / name);
    report(fmt::format("{}: names", name), got.size() == expected.size() ? 0 : 1, 0);
    for (const auto& [key, t] : expected)
      report(fmt::format("{}: {}", name, key), got.contains(key) ? difference(got.at(key), t) : INFINITY, 0);
  }
  for (const auto& [key, t] : expected)
    report(key + " of its own", difference(read_npy(folder / fmt::format("numpy_{}.npy", key)), t), 0);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3 || (std::strcmp(argv[1], "write") && std::strcmp(argv[1], "read"))) {
    std::fputs("usage: interop_exchange write|read FOLDER\n", stderr);
    return 2;
  }
  manual_seed(argv[1][0] == 'w' ? 5 : 6);
  (argv[1][0] == 'w' ? write_files : read_files)(argv[2]);
  return failures ? 1 : 0;
} catch (const Error& e) {
  std::fprintf(stderr, "interop_exchange: %s\n", e.what());
  return 1;
}

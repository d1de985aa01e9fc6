// bench_peer_torch: the peer of bench train and bench infer, written with LibTorch. It takes the same options, reads
// the same lines of text for networks, and answers bench compare in the same way. Built on demand (bench compare asks
// for it), where Debian's libtorch-dev is installed.
//
//   --flat            one parameter vector, of which the parameters are views: few large optimizer operations
//   --channels-last   convolutions in NHWC, which oneDNN prefers
#include <torch/torch.h>
#include <torch/version.h>

#include <zlib.h>

#include <cmath>
#include <cstring>
#include <map>
#include <stdexcept>

#include "measure.h"

namespace {

using torch::Tensor;

struct Layer {
  std::string kind;                // conv, dense, pool, flatten or dropout
  std::vector<std::string> words;  // what follows
  std::string activation;          // relu, sigmoid, tanh or nothing
  torch::nn::Conv2d conv{nullptr};
  torch::nn::Linear dense{nullptr};
};

/// "conv 32 3 relu, pool 2, flatten, dense 10" on images of 28 x 28.
struct Net : torch::nn::Module {
  std::vector<Layer> layers;
  bool images = false;

  explicit Net(const std::string& text) {
    std::int64_t channels = 1, side = 28, features = 784;
    std::istringstream in(text);
    for (std::string part; std::getline(in, part, ',');) {
      std::istringstream words(part);
      Layer l;
      words >> l.kind;
      for (std::string word; words >> word;) {
        if (word == "relu" || word == "sigmoid" || word == "tanh") l.activation = word;
        else l.words.push_back(word);
      }
      const std::string name = "layer" + std::to_string(layers.size());
      if (l.kind == "conv") {
        const std::int64_t filters = number(l, 0), kernel = number(l, 1);
        l.conv = register_module(name, torch::nn::Conv2d(torch::nn::Conv2dOptions(channels, filters, kernel)));
        start(*l.conv);
        channels = filters;
        side -= kernel - 1;
        images = true;
      } else if (l.kind == "pool") {
        side /= number(l, 0);
      } else if (l.kind == "dense") {
        l.dense = register_module(name, torch::nn::Linear(features, number(l, 0)));
        start(*l.dense);
        features = number(l, 0);
      } else if (l.kind != "flatten" && l.kind != "dropout") {
        throw std::runtime_error("this peer knows no layer \"" + part + "\"");
      }
      if (l.kind == "conv" || l.kind == "pool") features = channels * side * side;
      layers.push_back(l);
    }
  }

  Tensor forward(Tensor x) {
    for (Layer& l : layers) {
      if (l.kind == "conv") x = l.conv->forward(x);
      else if (l.kind == "dense") x = l.dense->forward(x);
      else if (l.kind == "pool") x = torch::max_pool2d(x, number(l, 0));
      else if (l.kind == "flatten") x = x.flatten(1);
      else x = torch::dropout(x, std::stod(l.words.at(0)), is_training());
      // in place, which saves a copy and is allowed by autograd
      if (l.activation == "relu") x = x.relu_();
      else if (l.activation == "sigmoid") x = x.sigmoid_();
      else if (l.activation == "tanh") x = x.tanh_();
    }
    return x;
  }

 private:
  static std::int64_t number(const Layer& l, std::size_t i) { return std::stol(l.words.at(i)); }
  template <class Module>
  static void start(Module& m) {
    torch::nn::init::xavier_uniform_(m.weight);
    torch::nn::init::zeros_(m.bias);
  }
};

/// Optimizers with Keras' defaults on one vector that holds all parameters.
class FlatOptimizer {
 public:
  FlatOptimizer(std::string kind, const std::vector<Tensor>& parameters) : kind_(std::move(kind)) {
    const torch::NoGradGuard guard;
    std::int64_t total = 0, at = 0;
    for (const Tensor& p : parameters) total += p.numel();
    values_ = torch::empty({total});
    gradients_ = torch::zeros({total});
    first_ = torch::zeros({total});
    second_ = torch::zeros({total});
    for (Tensor p : parameters) {
      Tensor value = part(values_, p, at), gradient = part(gradients_, p, at);
      value.copy_(p);
      p.set_data(value);
      p.mutable_grad() = gradient;
      at += p.numel();
    }
  }
  void zero_grad() { gradients_.zero_(); }
  void step() {
    const torch::NoGradGuard guard;
    const Tensor& g = gradients_;
    ++steps_;
    if (kind_ == "sgd") {
      values_.add_(g, -0.01);
    } else if (kind_ == "rmsprop") {
      second_.mul_(0.9).addcmul_(g, g, 0.1);
      values_.addcdiv_(g, second_.sqrt().add_(1e-7), -1e-3);
    } else {
      const double c1 = 1 - std::pow(0.9, steps_), c2 = 1 - std::pow(0.999, steps_);
      first_.lerp_(g, 0.1);
      second_.mul_(0.999).addcmul_(g, g, 0.001);
      values_.addcdiv_(first_, second_.sqrt().mul_(1 / std::sqrt(c2)).add_(1e-7), -1e-3 / c1);
    }
  }

 private:
  /// The part of `all` that stands for p, in p's memory format: a plain view would turn NHWC weights into NCHW ones.
  static Tensor part(const Tensor& all, const Tensor& p, std::int64_t at) {
    return all.narrow(0, at, p.numel()).as_strided(p.sizes(), p.strides(), at);
  }
  std::string kind_;
  Tensor values_, gradients_, first_, second_;
  int steps_ = 0;
};

struct Options {
  std::string command, architecture, optimizer = "rmsprop", data;
  std::int64_t batch = 128, epochs = 3, batches = 0;
  int threads = 1;
  std::uint64_t seed = 1;
  bool flat = false, channels_last = false, paced = false;
};

Options options_of(int argc, char** argv) {
  Options o;
  if (argc < 2) throw std::runtime_error("train or infer?");
  o.command = argv[1];
  for (int i = 2; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--flat") o.flat = true;
    else if (name == "--channels-last") o.channels_last = true;
    else if (name == "--paced") o.paced = true;
    else if (i + 1 == argc) throw std::runtime_error("no value for " + name);
    else if (const std::string value = argv[++i]; name == "--arch") o.architecture = value;
    else if (name == "--optimizer") o.optimizer = value;
    else if (name == "--data") o.data = value;
    else if (name == "--batch") o.batch = std::stol(value);
    else if (name == "--batches") o.batches = std::stol(value);
    else if (name == "--epochs") o.epochs = std::stol(value);
    else if (name == "--threads") o.threads = std::stoi(value);
    else if (name == "--seed") o.seed = std::stoull(value);
    else throw std::runtime_error("unknown option " + name);
  }
  return o;
}

/// The numbers of an IDX file behind its header of `header` bytes; plain or gz.
std::vector<unsigned char> idx(const std::string& folder, const std::string& name, std::size_t header) {
  for (const std::string& path : {folder + "/" + name, folder + "/" + name + ".gz"}) {
    const gzFile file = gzopen(path.c_str(), "rb");  // reads plain files as they are
    if (!file) continue;
    std::vector<unsigned char> bytes;
    for (int got = 1; got > 0;) {
      const std::size_t size = bytes.size();
      bytes.resize(size + (1 << 20));
      got = gzread(file, bytes.data() + size, 1 << 20);
      bytes.resize(size + static_cast<std::size_t>(std::max(got, 0)));
    }
    gzclose(file);
    if (bytes.size() <= header) break;
    bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(header));
    return bytes;
  }
  throw std::runtime_error("cannot read " + name + " in " + folder);
}

struct Data {
  Tensor images, labels;  // (n, 1, 28, 28) floats in [0, 1], and int64
};

Data load(const std::string& folder, const std::string& part) {
  std::vector<unsigned char> pixels = idx(folder, part + "-images-idx3-ubyte", 16),
                             classes = idx(folder, part + "-labels-idx1-ubyte", 8);
  const auto n = static_cast<std::int64_t>(classes.size());
  Data d;
  d.images = torch::from_blob(pixels.data(), {n, 1, 28, 28}, torch::kByte).to(torch::kFloat).div_(255);
  d.labels = torch::from_blob(classes.data(), {n}, torch::kByte).to(torch::kLong);
  return d;
}

class Peer {
 public:
  explicit Peer(const Options& o) : o_(o), net_(o.architecture) {
    if (!o.channels_last) return;
    const torch::NoGradGuard guard;
    for (Tensor& p : net_.parameters())
      if (p.dim() == 4) p.set_data(p.contiguous(at::MemoryFormat::ChannelsLast));
  }

  void train() {
    const Data data = load(o_.data, "train"), test = load(o_.data, "t10k");
    const std::vector<Tensor> parameters = net_.parameters();
    std::unique_ptr<torch::optim::Optimizer> builtin;
    std::unique_ptr<FlatOptimizer> flat;
    if (o_.flat) flat = std::make_unique<FlatOptimizer>(o_.optimizer, parameters);
    else if (o_.optimizer == "sgd")
      builtin = std::make_unique<torch::optim::SGD>(parameters, torch::optim::SGDOptions(0.01));
    else if (o_.optimizer == "rmsprop")
      builtin =
          std::make_unique<torch::optim::RMSprop>(parameters, torch::optim::RMSpropOptions(1e-3).alpha(0.9).eps(1e-7));
    else builtin = std::make_unique<torch::optim::Adam>(parameters, torch::optim::AdamOptions(1e-3).eps(1e-7));
    const std::int64_t n = data.labels.size(0);
    net_.train();
    double first_step = 0;
    for (std::int64_t e = 0; o_.paced || e < o_.epochs; ++e) {
      std::int64_t most = o_.batches;
      if (o_.paced) {
        const auto turn = bench::next_turn();
        if (!turn) break;
        most = *turn;
      }
      const double start = bench::now();
      const Tensor order = torch::randperm(n);
      Tensor sum = torch::zeros({});
      std::int64_t samples = 0, batches = 0;
      for (std::int64_t at = 0; at < n; at += o_.batch) {
        const std::int64_t size = std::min(o_.batch, n - at);
        const Tensor rows = order.narrow(0, at, size);
        const Tensor x = input(data.images.index_select(0, rows)), y = data.labels.index_select(0, rows);
        if (flat) flat->zero_grad();
        else builtin->zero_grad();
        const Tensor loss = torch::cross_entropy_loss(net_.forward(x), y);
        loss.backward();
        if (flat) flat->step();
        else builtin->step();
        sum.add_(loss.detach(), size);
        samples += size;
        if (first_step == 0) first_step = bench::seconds_since_start();
        if (++batches == most) break;
      }
      const double loss = sum.item<double>() / static_cast<double>(samples);
      const double seconds = bench::now() - start;
      std::printf("{\"seconds\": %.9g, \"samples\": %ld, \"loss\": %.9g}\n", seconds, static_cast<long>(samples), loss);
      std::fflush(stdout);
    }
    const double peak = bench::peak_memory_mb();
    std::printf(
        "{\"test_accuracy\": %.9g, \"peak_memory_mb\": %.9g, \"first_step_seconds\": %.9g, \"library\": \"LibTorch "
        "%s\"}\n",
        accuracy(test), peak, first_step, TORCH_VERSION);
  }

  void infer() {
    const Data test = load(o_.data, "t10k");
    const std::int64_t n = test.labels.size(0), size = std::min(o_.batch, n);
    net_.eval();
    const torch::InferenceMode guard;
    std::int64_t at = 0;
    const auto call = [&] {
      if (at + size > n) at = 0;
      const Tensor out = net_.forward(input(test.images.narrow(0, at, size)));
      at += size;
    };
    call();
    for (bool more = true; more;) {
      std::int64_t calls = n / size;
      if (const auto turn = o_.paced ? bench::next_turn() : std::optional<long>(0); !turn) break;
      else if (*turn) calls = *turn;
      const double start = bench::now();
      for (std::int64_t i = 0; i < calls; ++i) call();
      std::printf("{\"seconds\": %.9g, \"samples\": %ld}\n", bench::now() - start, static_cast<long>(calls * size));
      std::fflush(stdout);
      more = o_.paced;
    }
    std::printf("{\"peak_memory_mb\": %.9g, \"library\": \"LibTorch %s\"}\n", bench::peak_memory_mb(), TORCH_VERSION);
  }

 private:
  /// One channel has the same bytes in both formats: only the strides say that it is NHWC. A network that has no
  /// convolution gets rows.
  Tensor input(const Tensor& x) const {
    if (!net_.images) return x.view({x.size(0), 784});
    return o_.channels_last ? x.as_strided(x.sizes(), {784, 1, 28, 1}, x.storage_offset()) : x;
  }
  double accuracy(const Data& test) {
    const torch::NoGradGuard guard;
    net_.eval();
    std::int64_t correct = 0;
    const std::int64_t n = test.labels.size(0), size = 1000;
    for (std::int64_t at = 0; at < n; at += size) {
      const std::int64_t rows = std::min(size, n - at);
      correct += net_.forward(input(test.images.narrow(0, at, rows)))
                     .argmax(1)
                     .eq(test.labels.narrow(0, at, rows))
                     .sum()
                     .item<std::int64_t>();
    }
    return static_cast<double>(correct) / static_cast<double>(n);
  }

  Options o_;
  Net net_;
};

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options o = options_of(argc, argv);
    at::set_num_threads(o.threads);
    at::set_num_interop_threads(1);
    torch::manual_seed(o.seed);
    Peer peer(o);
    if (o.command == "train") peer.train();
    else if (o.command == "infer") peer.infer();
    else throw std::runtime_error("train or infer, not " + o.command);
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_peer_torch: %s\n", e.what());
    return 1;
  }
}

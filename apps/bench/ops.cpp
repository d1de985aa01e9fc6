// bench ops: every primitive over sizes, by Google Benchmark.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <ebb/ebb.h>

#include "commands.h"

namespace bench {
namespace {

namespace po = app::po;
using ebb::Shape;
using ebb::Tensor;
using In = const std::vector<Tensor>&;

/// An op at one size. Inputs are uniform in [0.1, 1), kernels and matrices too: no value is out of any op's domain.
struct Timed {
  std::string name;
  std::vector<Shape> shapes;
  std::function<Tensor(In)> f;
  bool differentiable = true;
};

/// The ops of ops/ops.h, each with small, middle and large inputs: in the first-level cache, in the second, beyond.
std::vector<Timed> timed_ops() {
  std::vector<Timed> out;
  const std::vector<std::pair<const char*, Tensor (*)(const Tensor&)>> functions{
      {"exp", ebb::exp},
      {"log", ebb::log},
      {"log1p", ebb::log1p},
      {"sqrt", ebb::sqrt},
      {"square", ebb::square},
      {"reciprocal", ebb::reciprocal},
      {"abs", ebb::abs},
      {"sin", ebb::sin},
      {"cos", ebb::cos},
      {"erf", ebb::erf},
      {"tanh", ebb::tanh},
      {"sigmoid", ebb::sigmoid},
      {"relu", ebb::relu},
      {"elu", [](const Tensor& x) { return ebb::elu(x); }},
      {"selu", ebb::selu},
      {"gelu", ebb::gelu},
      {"silu", ebb::silu},
      {"softplus", ebb::softplus},
      {"leaky_relu", [](const Tensor& x) { return ebb::leaky_relu(x); }},
      {"clip", [](const Tensor& x) { return ebb::clip(x, 0.2, 0.8); }},
      {"affine", [](const Tensor& x) { return 2 * x + 1; }}};
  using Pairwise = Tensor (*)(const Tensor&, const Tensor&);
  const std::vector<std::pair<const char*, Pairwise>> pairs{{"add", ebb::add},
                                                            {"sub", ebb::sub},
                                                            {"mul", ebb::mul},
                                                            {"div", ebb::div},
                                                            {"pow", static_cast<Pairwise>(ebb::pow)},
                                                            {"maximum", ebb::maximum},
                                                            {"minimum", ebb::minimum}};
  for (const std::int64_t rows : {8, 256, 8192}) {
    const Shape whole{rows, 256};
    const auto one = [&](const char* name, std::function<Tensor(const Tensor&)> f, bool differentiable = true) {
      out.push_back({name, {whole}, [f](In x) { return f(x[0]); }, differentiable});
    };
    for (const auto& [name, f] : functions) one(name, f);
    for (const auto& [name, f] : pairs) {
      out.push_back({name, {whole, whole}, [f = f](In x) { return f(x[0], x[1]); }});
      out.push_back({fmt::format("{}_row", name), {whole, {256}}, [f = f](In x) { return f(x[0], x[1]); }});
    }
    one("sum", [](const Tensor& x) { return ebb::sum(x); });
    one("sum_columns", [](const Tensor& x) { return ebb::sum(x, 0); });
    one("sum_rows", [](const Tensor& x) { return ebb::sum(x, 1); });
    one("max_rows", [](const Tensor& x) { return ebb::max(x, 1); });
    one(
        "argmax", [](const Tensor& x) { return ebb::argmax(x); }, false);
    one("logsumexp", [](const Tensor& x) { return ebb::logsumexp(x, 1); });
    one("softmax", ebb::softmax);
    one("log_softmax", ebb::log_softmax);
    one("transpose", [](const Tensor& x) { return ebb::transpose(x); });
    one("slice", [](const Tensor& x) { return ebb::slice(x, {.axis = 1, .begin = 64, .end = 192}); });
    one("pad", [](const Tensor& x) { return ebb::pad(x, {.axis = 1, .before = 8, .after = 8}); });
    one("concat", [](const Tensor& x) { return ebb::concat({x, x}, 1); });
    one("dropout", [](const Tensor& x) { return ebb::dropout(x, 0.5); });
    one("cast_f64", [](const Tensor& x) { return ebb::cast(x, ebb::f64); });
    out.push_back({"batch_norm", {whole, {256}, {256}}, [](In x) { return ebb::batch_norm(x[0], x[1], x[2]); }});
    out.push_back({"cross_entropy", {whole}, [labels = ebb::zeros({rows}, ebb::i64)](In x) {
                     return ebb::cross_entropy(x[0], labels);
                   }});
    out.push_back(
        {"gather", {whole}, [index = ebb::zeros({rows}, ebb::i64)](In x) { return ebb::gather(x[0], index); }});
  }
  for (const std::int64_t n : {32, 128, 512, 2048}) {
    out.push_back({"matmul", {{128, 784}, {784, n}}, [](In x) { return ebb::matmul(x[0], x[1]); }});
    out.push_back(
        {"linear_relu", {{128, 784}, {784, n}, {n}}, [](In x) { return ebb::linear(x[0], x[1], x[2], ebb::relu); }});
  }
  for (const std::int64_t images : {1, 32, 128}) {
    const Shape image{images, 13, 13, 32};
    out.push_back({"conv2d", {image, {3, 3, 32, 64}}, [](In x) { return ebb::conv2d(x[0], x[1]); }});
    out.push_back({"conv2d_5x5", {image, {5, 5, 32, 64}}, [](In x) { return ebb::conv2d(x[0], x[1]); }});
    out.push_back(
        {"conv2d_stride_2", {image, {3, 3, 32, 64}}, [](In x) { return ebb::conv2d(x[0], x[1], {.stride = 2}); }});
    out.push_back({"conv2d_relu_pool", {image, {3, 3, 32, 64}, {64}}, [](In x) {
                     return ebb::conv2d_relu(x[0], x[1], x[2], {}, 2);
                   }});
    out.push_back({"im2col", {image}, [](In x) { return ebb::im2col(x[0], 3); }});
    out.push_back({"max_pool2d", {image}, [](In x) { return ebb::max_pool2d(x[0]); }});
    out.push_back({"avg_pool2d", {image}, [](In x) { return ebb::avg_pool2d(x[0]); }});
  }
  for (const auto& [side, c] : {std::pair<std::int64_t, std::int64_t>{28, 16}, {14, 64}}) {  // as in residual networks
    const Shape image{32, side, side, c};
    out.push_back({"conv2d", {image, {3, 3, c, c}}, [](In x) { return ebb::conv2d(x[0], x[1], {.pad = 1}); }});
    out.push_back({"conv2d_1x1", {image, {1, 1, c, c}}, [](In x) { return ebb::conv2d(x[0], x[1]); }});
    out.push_back({"conv2d_5x5", {image, {5, 5, c, c}}, [](In x) { return ebb::conv2d(x[0], x[1], {.pad = 2}); }});
    out.push_back({"conv2d_stride_2", {image, {3, 3, c, 2 * c}}, [](In x) {
                     return ebb::conv2d(x[0], x[1], {.stride = 2, .pad = 1});
                   }});
    out.push_back({"batch_norm", {image, {c}, {c}}, [](In x) { return ebb::batch_norm(x[0], x[1], x[2]); }});
    out.push_back({"max_pool2d", {image}, [](In x) { return ebb::max_pool2d(x[0]); }});
    out.push_back(
        {"max_pool2d_3x3", {image}, [](In x) { return ebb::max_pool2d(x[0], {.size = 3, .stride = 2, .pad = 1}); }});
    out.push_back({"avg_pool2d", {image}, [](In x) { return ebb::avg_pool2d(x[0]); }});
    out.push_back({"mean_of_positions", {image}, [](In x) { return ebb::mean(x[0], {1, 2}); }});
  }
  // derivatives of many at once; the inputs are held, so that `--gradients` would add nothing
  out.push_back({"jacobian",
                 {{1, 300}, {300, 200}},
                 [](In x) {
                   return ebb::jacobian([&](const Tensor& t) { return ebb::tanh(ebb::matmul(t, x[1])); },
                                        x[0].detach());
                 },
                 false});
  out.push_back({"per_sample_gradients",
                 {{64, 784}},
                 [net = std::make_shared<ebb::Sequential>(
                      Shape{784}, std::vector<ebb::Layer>{ebb::Dense(128, ebb::relu), ebb::Dense(10)})](In x) {
                   const ebb::Gradients each =
                       ebb::per_sample_gradients(*net, x[0], ebb::zeros({x[0].size(0)}, ebb::i64));
                   return each.entries()[0].gradient;
                 },
                 false});
  out.push_back({"jvp",
                 {{64, 784}, {784, 128}},
                 [](In x) {
                   return ebb::jvp([&](const Tensor& t) { return ebb::relu(ebb::matmul(t, x[1])); }, x[0].detach(),
                                   x[0].detach());
                 },
                 false});
  return out;
}

/// What the op itself counts, seen in one run.
struct Cost : ebb::Observer {
  double flops = 0, bytes = 0;
  void ran(const ebb::OpEvent& event) override {
    flops += event.flops;
    for (const Tensor* t : event.inputs)
      bytes += static_cast<double>(t->numel()) * static_cast<double>(ebb::size_of(t->dtype()));
    bytes += static_cast<double>(event.output.numel()) * static_cast<double>(ebb::size_of(event.output.dtype()));
  }
};

void time_op(benchmark::State& state, const Timed& op, bool gradients) {
  std::vector<Tensor> inputs;
  ebb::manual_seed(1);
  for (const Shape& s : op.shapes) inputs.push_back(0.1 + 0.9 * ebb::rand(s));
  if (gradients)
    for (Tensor& t : inputs) t = ebb::variable(t);
  const ebb::Training training(true);
  const auto run = [&] {
    const Tensor y = op.f(inputs);
    if (gradients) benchmark::DoNotOptimize(ebb::backward(ebb::sum(y)));
  };
  double flops = 0, bytes = 0;
  {
    const Cost seen;
    run();
    flops = seen.flops;
    bytes = seen.bytes;
  }
  for (auto _ : state) run();
  const auto per_run = [&](double n) {
    return benchmark::Counter(n * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
  };
  state.counters["FLOP/s"] = per_run(flops);
  state.counters["B/s"] = per_run(bytes);
}

po::options_description ops_options() {
  return app::option_group(
      "Run", {
                 {"filter", app::text("."), "only ops whose name and size match, such as conv2d or matmul/128"},
                 {"gradients", "forward, and backward from the sum of the result"},
                 {"seconds", app::number(0.1, 0.001, 60.0), "shortest time for each op"},
                 app::threads_option(),
                 {"json", app::text(), "write Google Benchmark's JSON to this file"},
                 {"list", "only print the names"},
             });
}

int run_ops(app::Values& v) {
  app::use_threads(v);
  const bool gradients = v.count("gradients") > 0;
  for (const Timed& op : timed_ops()) {
    if (gradients && !op.differentiable) continue;
    std::string name = op.name;
    for (const Shape& s : op.shapes)
      for (int i = 0; i < s.rank(); ++i) name += fmt::format("{}{}", i == 0 ? '/' : 'x', s[i]);
    benchmark::RegisterBenchmark(name.c_str(), [op, gradients](benchmark::State& state) {
      time_op(state, op, gradients);
    })->UseRealTime();
  }
  std::vector<std::string> words{"bench ops", "--benchmark_filter=" + v["filter"].as<std::string>(),
                                 fmt::format("--benchmark_min_time={}", v["seconds"].as<double>())};
  if (v.count("list")) words.push_back("--benchmark_list_tests=true");
  if (v.count("json")) {
    words.push_back("--benchmark_out_format=json");
    words.push_back("--benchmark_out=" + v["json"].as<std::string>());
  }
  std::vector<char*> argv;
  for (std::string& w : words) argv.push_back(w.data());
  int argc = static_cast<int>(argv.size());
  benchmark::Initialize(&argc, argv.data());
  if (benchmark::RunSpecifiedBenchmarks() == 0)
    throw app::UsageError(fmt::format("no op matches --filter {}", v["filter"].as<std::string>()));
  return app::ok;
}

}  // namespace

const app::Command ops_command{
    .name = "ops",
    .about = "time every primitive over sizes (Google Benchmark)",
    .arguments = "[OPTIONS]",
    .description = "Shows the operations and bytes that each op counts itself, too.\n",
    .examples =
        "  bench ops --filter matmul --threads 1\n"
        "  bench ops --filter conv2d --gradients\n",
    .options = ops_options,
    .run = run_ops,
};

}  // namespace bench

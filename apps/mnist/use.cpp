// mnist evaluate, predict, summary, graph: what one does with a network that is there.
#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include <optional>
#include <sstream>

#include "command.h"

namespace mnist {
namespace {

po::options_description json_option() {
  po::options_description o("Output", 80, 40);
  o.add_options()("json", "print JSON instead of text");
  return o;
}

ebb::SavedModel load_file(const po::variables_map& v) {
  if (file_of(v).empty()) throw UsageError("which model? Give the file that mnist train --save wrote");
  ebb::SavedModel model = ebb::load_model(file_of(v));
  scale_of(model, file_of(v));  // refused now rather than after the data are read
  return model;
}

/// The network of a file when one is given, else the one that the options describe.
ebb::Sequential network(const po::variables_map& v) {
  return file_of(v).empty() ? build_network(architecture(v)) : load_file(v).net;
}

/// The picture in characters, two to a pixel so that it comes out square.
std::string picture(const ebb::Tensor& image) {
  constexpr std::string_view ink = " .:-=+*#%@";
  std::string out;
  const auto pixels = image.values<std::uint8_t>();
  for (std::size_t i = 0; i < pixels.size(); ++i) {
    out += std::string(2, ink[pixels[i] * (ink.size() - 1) / 255]);
    if (i % 28 == 27) out += '\n';
  }
  return out;
}

/// What the graph of a loss says about a step, on standard error; `before` is what was in use when the step began.
void report(const ebb::Tensor& loss, std::size_t before) {
  const ebb::Graph graph(loss);
  const ebb::CriticalPath path = ebb::critical_path(graph);
  const ebb::MemoryPlan plan = ebb::plan_backward(graph);
  ebb::reset_peak_memory();
  ebb::backward(loss);
  // the loss has a handle of its own, which is no part of the plan
  const std::size_t measured = ebb::memory_stats().peak - before - ebb::Storage::footprint(loss.bytes());
  const auto bytes = [](std::size_t n) { return ebb::format_bytes(static_cast<double>(n)); };
  fmt::print(stderr, "critical path: {:.1f} MFLOP over {} nodes\n", path.flops * 1e-6, path.nodes.size());
  fmt::print(stderr, "memory: {} kept for backward, {} at its worst moment ({}), {} measured\n", bytes(plan.kept), bytes(plan.peak),
             plan.at ? plan.at->op() : "nothing", bytes(measured));
  const auto repeated = ebb::common_subexpressions(graph);
  fmt::print(stderr, "repeated sub-expressions: {}\n", repeated.size());
  for (const auto& group : repeated) fmt::print(stderr, "  {} computed {} times\n", group[0]->op(), group.size());
}

}  // namespace

int evaluate(const std::vector<std::string>& args) {
  po::options_description options(80, 40);
  options.add(data_options()).add(json_option());
  po::variables_map v;
  if (!parse(args, options, "mnist evaluate FILE [OPTIONS]", "Example:\n  mnist evaluate digits.safetensors --json\n", v, true)) return ok;
  ebb::SavedModel model = load_file(v);
  use_threads(v);
  const ebb::Mnist data = load_data(v);
  const ebb::Metrics m = ebb::evaluate(model.net, data.test.scaled(scale_of(model, file_of(v))));
  if (v.count("json"))
    fmt::print("{}\n", nlohmann::ordered_json{{"test_accuracy", m.accuracy}, {"test_loss", m.loss}, {"dataset", data.name}}.dump());
  else
    fmt::print("test accuracy {:.4f}, test loss {:.4f} on {}\n", m.accuracy, m.loss, data.name);
  return ok;
}

int predict(const std::vector<std::string>& args) {
  po::options_description own("Digits", 80, 40);
  own.add_options()
      ("index", po::value<std::string>()->default_value("0,1,2,3,4,5,6,7,8,9"), "which digits of the test set, counted from 0")
      ("show", "draw each digit in characters");
  po::options_description options(80, 40);
  options.add(own).add(data_options()).add(json_option());
  po::variables_map v;
  if (!parse(args, options, "mnist predict FILE [OPTIONS]", "Example:\n  mnist predict digits.safetensors --index 0,7 --show\n", v, true))
    return ok;
  const auto indices = numbers("index", v["index"].as<std::string>());
  if (indices.empty()) throw UsageError("--index needs at least one number");
  ebb::SavedModel model = load_file(v);
  use_threads(v);
  const ebb::Mnist data = load_data(v);
  const std::int64_t n = data.test.images.size(0);
  for (const std::int64_t i : indices)
    if (i < 0 || i >= n) throw UsageError(fmt::format("--index must be 0 to {}, got {}", n - 1, i));
  const ebb::Dataset test = data.test.scaled(scale_of(model, file_of(v)));
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const std::int64_t i : indices) {
    const ebb::Tensor p = ebb::softmax(ebb::predict(model.net, test.inputs.rows(i, i + 1), test.scale));
    const auto probabilities = p.to_vector();
    const auto best = static_cast<std::size_t>(ebb::argmax(p).item());
    const int label = data.test.labels.values<std::uint8_t>()[static_cast<std::size_t>(i)];
    if (v.count("json")) {
      list.push_back({{"index", i}, {"digit", best}, {"probability", probabilities[best]}, {"label", label}, {"probabilities", probabilities}});
      continue;
    }
    if (v.count("show")) fmt::print("{}", picture(data.test.images.rows(i, i + 1)));
    fmt::print("{:>5}: {} with probability {:.4f} ({})\n", i, best, probabilities[best],
               static_cast<int>(best) == label ? "right" : fmt::format("wrong: it is {}", label));
  }
  if (v.count("json")) fmt::print("{}\n", list.dump());
  return ok;
}

int summary(const std::vector<std::string>& args) {
  po::options_description own("Table", 80, 40);
  own.add_options()("style", po::value<std::string>()->default_value("keras2"), "keras2.2, keras2 or keras3: whose table");
  po::options_description options(80, 40);
  options.add(model_options()).add(own);
  po::variables_map v;
  if (!parse(args, options, "mnist summary [FILE] [OPTIONS]", "Example:\n  mnist summary --model cnn --style keras3\n", v, true)) return ok;
  ebb::SummaryOptions how;
  try {
    how.style = ebb::style_of(v["style"].as<std::string>());
  } catch (const ebb::ValueError& e) {
    throw UsageError(fmt::format("--style: {}", e.what()));
  }
  ebb::Sequential net = network(v);
  fmt::print("{}", ebb::summary(net, how));
  return ok;
}

int graph(const std::vector<std::string>& args) {
  po::options_description own("Drawing", 80, 40);
  own.add_options()
      ("dot", po::value<std::string>(), "write the drawing (Graphviz) to this file; default: standard output")
      ("batch", po::value<std::int64_t>()->default_value(32), "samples in the batch that is drawn")
      ("backward", "the graph of the gradients too")
      ("profile", "time each op over some steps; the figures go into the drawing and, as a table, to standard error")
      ("report", "what the graph says: critical path, memory of the backward pass, repeated sub-expressions");
  po::options_description options(80, 40);
  options.add(model_options()).add(own);
  po::variables_map v;
  if (!parse(args, options, "mnist graph [FILE] [OPTIONS]",
             "Examples:\n"
             "  mnist graph --model cnn --dot cnn.dot && dot -Tsvg cnn.dot -o cnn.svg\n"
             "  mnist graph --model cnn --backward --profile --dot cnn.dot\n",
             v, true))
    return ok;
  ebb::Sequential net = network(v);
  const auto batch = v["batch"].as<std::int64_t>();
  if (batch < 1 || batch > 65536) throw UsageError(fmt::format("--batch must be 1 to 65536, got {}", batch));
  const std::size_t before = ebb::memory_stats().in_use;
  const ebb::Tensor x = ebb::rand(net.input_shape()->inserted(0, batch)), labels = ebb::zeros({batch}, ebb::i64);
  if (v.count("report")) {
    const ebb::Tensor first = ebb::cross_entropy(net(x), labels);  // with a handle to the logits there would be more in use
    report(first, before);
  }
  ebb::Tensor loss;
  ebb::Gradients gradients;
  std::optional<ebb::Profiler> profiler;
  // The first step pays for memory and threads; the one that is drawn comes after it.
  for (int step = 0; step < (v.count("profile") ? 2 : 1); ++step) {
    if (step == 1) profiler.emplace();
    loss = ebb::cross_entropy(net(x), labels);
    if (v.count("backward") || v.count("profile")) gradients = ebb::backward(loss, {.create_graph = true});
  }
  std::vector<ebb::Tensor> roots{loss};
  if (v.count("backward"))
    for (const auto& entry : gradients.entries()) roots.push_back(entry.gradient);
  const ebb::Graph drawn(roots);
  ebb::verify(drawn);
  ebb::DotOptions how{.name = "mnist", .profile = profiler ? &*profiler : nullptr, .loss = loss.node().get()};
  for (const auto& entry : gradients.entries()) {
    std::string& note = how.notes[entry.gradient.node().get()];
    note += fmt::format("{}{}", note.empty() ? "gradient of " : ", ", entry.variable->name());
  }
  if (profiler) fmt::print(stderr, "{}", profiler->table());
  if (!v.count("dot")) {
    std::ostringstream text;
    ebb::write_dot(text, drawn, how);
    fmt::print("{}", text.str());
    return ok;
  }
  ebb::write_dot(std::filesystem::path(v["dot"].as<std::string>()), drawn, how);
  fmt::print("{}: {} nodes, {} edges\n", v["dot"].as<std::string>(), drawn.size(), drawn.edges());
  return ok;
}

}  // namespace mnist

// mnist graph: the computation graph of a network, drawn and measured.
#include <fmt/core.h>

#include <filesystem>
#include <optional>
#include <sstream>

#include "command.h"

namespace mnist {
namespace {

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
  app::note("critical path: {:.1f} MFLOP over {} nodes\n", path.flops * 1e-6, path.nodes.size());
  app::note("memory: {} kept for backward, {} at its worst moment ({}), {} measured\n", bytes(plan.kept),
            bytes(plan.peak), plan.at ? plan.at->op() : "nothing", bytes(measured));
  const auto repeated = ebb::common_subexpressions(graph);
  app::note("repeated sub-expressions: {}\n", repeated.size());
  for (const auto& group : repeated) app::note("  {} computed {} times\n", group[0]->op(), group.size());
}

}  // namespace

int graph(const std::vector<std::string>& args) {
  po::options_description own = app::option_group(
      "Drawing",
      {
          {"open", "draw the ops inside of functions such as attention and mean, which are else one node"},
          {"dot", po::value<std::string>(), "write the drawing (Graphviz) to this file; default: standard output"},
          {"batch", po::value<std::int64_t>()->default_value(32), "samples in the batch that is drawn"},
          {"backward", "the graph of the gradients too"},
          {"profile",
           "time each op over some steps; the figures go into the drawing and, as a table, to standard error"},
          {"report", "what the graph says: critical path, memory of the backward pass, repeated sub-expressions"},
          {"force", "overwrite a file that exists"},
      });
  po::options_description options(80, 40);
  options.add(model_options()).add(own);
  po::variables_map v;
  if (!parse(args, options, "mnist graph [FILE] [OPTIONS]",
             "Examples:\n"
             "  mnist graph --model cnn --dot cnn.dot && dot -Tsvg cnn.dot -o cnn.svg\n"
             "  mnist graph --model cnn --backward --profile --dot cnn.dot\n",
             v, true))
    return ok;
  const std::string dot = output_file(v, "dot");
  ebb::Sequential net = network(v);
  const auto batch = v["batch"].as<std::int64_t>();
  if (batch < 1 || batch > 65536) throw UsageError(fmt::format("--batch must be 1 to 65536, got {}", batch));
  const std::size_t before = ebb::memory_stats().in_use;
  const ebb::Tensor x = ebb::rand(net.input_shape()->inserted(0, batch)), labels = ebb::zeros({batch}, ebb::i64);
  if (v.count("report")) {
    const ebb::Tensor first =
        ebb::cross_entropy(net(x), labels);  // with a handle to the logits there would be more in use
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
  ebb::DotOptions how{.name = "mnist",
                      .open = v.count("open") != 0,
                      .profile = profiler ? &*profiler : nullptr,
                      .loss = loss.node().get()};
  for (const auto& entry : gradients.entries()) {
    std::string& note = how.notes[entry.gradient.node().get()];
    note += fmt::format("{}{}", note.empty() ? "gradient of " : ", ", entry.variable->name());
  }
  if (profiler) app::note("{}", profiler->table());
  if (dot.empty()) {
    std::ostringstream text;
    text.exceptions(std::ios::badbit);  // else a lack of memory cuts it off
    ebb::write_dot(text, drawn, how);
    app::print("{}", text.str());
    return ok;
  }
  ebb::write_dot(std::filesystem::path(dot), drawn, how);
  app::print("{}: {} nodes, {} edges\n", dot, drawn.size(), drawn.edges());
  return ok;
}

}  // namespace mnist

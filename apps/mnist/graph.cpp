// mnist graph: the computation graph of a network, drawn and measured.
#include <fmt/core.h>

#include <filesystem>
#include <optional>
#include <sstream>

#include <ebb/autograd/backward.h>
#include <ebb/autograd/tools.h>
#include <ebb/graph/analysis.h>
#include <ebb/graph/dot.h>
#include <ebb/graph/observe.h>
#include <ebb/models/report.h>
#include <ebb/ops/ops.h>

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

po::options_description graph_options() {
  return joined(
      {model_options(),
       app::option_group(
           "Drawing",
           {
               {"open", "draw the ops inside functions such as attention and mean, which otherwise are one node"},
               {"dot", text(), "write the drawing (Graphviz) to this file; default: standard output"},
               {"batch", number<std::int64_t>(32, 1, 65536), "samples in the batch that is drawn"},
               {"backward", "draw the graph of the gradients too"},
               {"profile",
                "time each op over some steps; the figures go into the drawing and, as a table, to standard error"},
               {"report", "critical path, memory of the backward pass and repeated sub-expressions of the graph"},
               {"force", "overwrite a file that exists"},
           })});
}

int run_graph(Values& v) {
  const std::string dot = output_file(v, "dot");
  ebb::Sequential net = network(v);
  const auto batch = v["batch"].as<std::int64_t>();
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

}  // namespace

const app::Command graph_command{
    .name = "graph",
    .about = "draw the computation graph of a network",
    .arguments = "[FILE] [OPTIONS]",
    .description = "",
    .examples =
        "  mnist graph --model cnn --dot cnn.dot && dot -Tsvg cnn.dot -o cnn.svg\n"
        "  mnist graph --model cnn --backward --profile --dot cnn.dot\n",
    .options = graph_options,
    .run = run_graph,
    .files = 1,
};

}  // namespace mnist

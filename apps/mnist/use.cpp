// mnist evaluate, predict, summary, graph: what one does with a network that is there.
#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <optional>
#include <sstream>
#include <stdexcept>

#include "command.h"
#include "json_text.h"

namespace mnist {
namespace {

po::options_description json_option() {
  return app::option_group("Output", {
                                         {"json", "print JSON instead of text"},
                                     });
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

struct DigitAreas {
  std::int64_t digit;
  double roc, precision;  ///< areas under the curves
};
/// Of the digits that occur; nothing when only one does, for then there is no other to tell it from.
std::vector<DigitAreas> areas_of(const ebb::Tensor& labels, const ebb::Tensor& scores) {
  std::vector<DigitAreas> out;
  auto digits = ebb::value_counts(labels);
  std::ranges::sort(digits, {}, &ebb::ValueCount::value);
  if (digits.size() > 1)
    for (const ebb::ValueCount& d : digits)
      out.push_back({d.value, ebb::auc(ebb::roc_curve(labels, scores, d.value)),
                     ebb::average_precision(ebb::precision_recall_curve(labels, scores, d.value))});
  return out;
}
double mean_roc(const std::vector<DigitAreas>& areas) {
  double sum = 0;
  for (const DigitAreas& a : areas) sum += a.roc;
  return sum / static_cast<double>(areas.size());
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
  app::note("critical path: {:.1f} MFLOP over {} nodes\n", path.flops * 1e-6, path.nodes.size());
  app::note("memory: {} kept for backward, {} at its worst moment ({}), {} measured\n", bytes(plan.kept),
            bytes(plan.peak), plan.at ? plan.at->op() : "nothing", bytes(measured));
  const auto repeated = ebb::common_subexpressions(graph);
  app::note("repeated sub-expressions: {}\n", repeated.size());
  for (const auto& group : repeated) app::note("  {} computed {} times\n", group[0]->op(), group.size());
}

}  // namespace

int evaluate(const std::vector<std::string>& args) {
  po::options_description own = app::option_group(
      "Details",
      {
          {"report", "precision, recall and F1 of each digit"},
          {"confusion", "how often each digit was taken for which"},
          {"top-k", po::value<std::int64_t>(), "share of digits whose label is among the K most probable"},
          {"auc", "areas under the ROC and the precision-recall curve of each digit"},
          {"plot", po::value<std::string>(), "draw the confusion matrix to this file (SVG)"},
          {"colors", po::value<std::string>()->default_value("diverging"),
           "of that drawing: diverging (blue to red) or sequential (white to blue)"},
          {"roc", po::value<std::string>(), "draw ROC and precision-recall curves of each digit to this file (SVG)"},
          {"force", "overwrite files that exist"},
      });
  po::options_description options(80, 40);
  options.add(own).add(data_options()).add(split_options()).add(json_option());
  po::variables_map v;
  if (!parse(args, options, "mnist evaluate FILE [OPTIONS]",
             "The test samples are those of the training in FILE: when that was split anew, so\n"
             "is this, unless --test-size asks for another split.\n"
             "Examples:\n"
             "  mnist evaluate digits.safetensors --json\n"
             "  mnist evaluate digits.safetensors --report --confusion --top-k 3\n"
             "  mnist evaluate digits.safetensors --plot confusion.svg --roc roc.svg\n",
             v, true))
    return ok;
  const auto colors = v["colors"].as<std::string>();
  if (colors != "diverging" && colors != "sequential")
    throw UsageError(fmt::format("--colors must be diverging or sequential, got \"{}\"", colors));
  const std::int64_t k = v.count("top-k") ? v["top-k"].as<std::int64_t>() : 1;
  if (k < 1 || k > 10) throw UsageError(fmt::format("--top-k must be 1 to 10, got {}", k));
  split_of(v);
  ebb::SavedModel model = load_file(v);
  refuse_not_finite(model, file_of(v));
  use_split_of(model, file_of(v), v);
  const std::string plot = output_file(v, "plot"), roc = output_file(v, "roc");
  refuse_same_files({{"--plot", plot}, {"--roc", roc}});
  use_threads(v);
  const ebb::Mnist data = split_data(load_data(v), v);
  const ebb::Dataset test = data.test.scaled(scale_of(model, file_of(v)));
  const ebb::Metrics m = ebb::evaluate(model.net, test);
  if (!std::isfinite(m.loss))
    throw std::runtime_error(fmt::format("{}: the loss on these samples is {}", file_of(v), m.loss));
  const ebb::Tensor logits = ebb::predict(model.net, test), probabilities = ebb::softmax(logits);
  const ebb::Tensor confusion = ebb::confusion_matrix(test.labels, ebb::argmax(logits), 10);
  const ebb::ClassificationReport report = ebb::classification_report(confusion);
  std::vector<DigitAreas> areas;
  if (v.count("auc")) areas = areas_of(test.labels, probabilities);
  // The results are told before a drawing can fail.
  const auto draw = [&] {
    app::flush_results();
    if (!plot.empty())
      ebb::plot_confusion(confusion, plot,
                          fmt::format("{} of {} right", ebb::with_commas(ebb::count_correct(logits, test.labels)),
                                      ebb::with_commas(test.size())),
                          colors == "diverging");
    if (!roc.empty()) ebb::plot_curves(test.labels, probabilities, roc);
  };

  if (v.count("json")) {
    nlohmann::ordered_json out{{"test_accuracy", m.accuracy}, {"test_loss", m.loss}, {"dataset", data.name}};
    const auto score = [](const ebb::ClassScore& s) {
      return nlohmann::ordered_json{
          {"precision", s.precision}, {"recall", s.recall}, {"f1", s.f1}, {"support", s.support}};
    };
    if (v.count("top-k")) out["top_k"] = {{"k", k}, {"accuracy", ebb::top_k_accuracy(test.labels, logits, k)}};
    if (v.count("report")) {
      for (const ebb::ClassScore& s : report.classes) out["report"]["classes"].push_back(score(s));
      out["report"]["macro"] = score(report.macro);
      out["report"]["weighted"] = score(report.weighted);
    }
    if (v.count("confusion"))
      for (std::int64_t i = 0; i < 10; ++i) {
        const auto row = confusion.rows(i, i + 1);
        out["confusion"].push_back(
            std::vector<std::int64_t>(row.values<std::int64_t>().begin(), row.values<std::int64_t>().end()));
      }
    for (const DigitAreas& a : areas)
      out["auc"][fmt::format("{}", a.digit)] = {{"roc", a.roc}, {"average_precision", a.precision}};
    if (!areas.empty()) out["macro_auc"] = mean_roc(areas);
    if (!plot.empty()) out["plot"] = plot;
    if (!roc.empty()) out["roc"] = roc;
    app::print("{}\n", app::json_text(out));
    draw();
    return ok;
  }
  app::print("test accuracy {:.4f}, test loss {:.4f} on {}\n", m.accuracy, m.loss, data.name);
  if (v.count("top-k")) app::print("top-{} accuracy {:.4f}\n", k, ebb::top_k_accuracy(test.labels, logits, k));
  if (v.count("report")) app::print("\n{}", report.text());
  if (v.count("confusion")) {
    app::print("\nactual   predicted\n     ");
    for (int j = 0; j < 10; ++j) app::print("{:>7}", j);
    for (std::int64_t i = 0; i < 100; ++i)
      app::print("{}{:>7}", i % 10 ? "" : fmt::format("\n{:>5}", i / 10),
                 confusion.values<std::int64_t>()[static_cast<std::size_t>(i)]);
    app::print("\n");
  }
  if (!areas.empty()) {
    app::print("\ndigit  area under ROC  average precision\n");
    for (const DigitAreas& a : areas) app::print("{:>5}{:>16.6f}{:>19.6f}\n", a.digit, a.roc, a.precision);
    app::print(" mean{:>16.6f}\n", mean_roc(areas));
  }
  draw();
  for (const std::string& file : {plot, roc})
    if (!file.empty()) app::print("wrote {}\n", file);
  return ok;
}

int predict(const std::vector<std::string>& args) {
  po::options_description own =
      app::option_group("Digits", {
                                      {"index", po::value<std::string>()->default_value("0,1,2,3,4,5,6,7,8,9"),
                                       "which digits of the test set, counted from 0"},
                                      {"show", "draw each digit in characters"},
                                  });
  po::options_description options(80, 40);
  options.add(own).add(data_options()).add(split_options()).add(json_option());
  po::variables_map v;
  if (!parse(args, options, "mnist predict FILE [OPTIONS]",
             "Example:\n  mnist predict digits.safetensors --index 0,7 --show\n", v, true))
    return ok;
  const auto indices = numbers("index", v["index"].as<std::string>());
  if (indices.empty()) throw UsageError("--index needs at least one number");
  split_of(v);
  ebb::SavedModel model = load_file(v);
  refuse_not_finite(model, file_of(v));
  use_split_of(model, file_of(v), v);
  use_threads(v);
  const ebb::Mnist data = split_data(load_data(v), v);
  const std::int64_t n = data.test.images.size(0);
  for (const std::int64_t i : indices)
    if (i < 0 || i >= n) throw UsageError(fmt::format("--index must be 0 to {}, got {}", n - 1, i));
  const ebb::Dataset test = data.test.scaled(scale_of(model, file_of(v)));
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const std::int64_t i : indices) {
    const ebb::Tensor p = ebb::softmax(ebb::predict(model.net, test.slice(i, i + 1)));
    const auto probabilities = p.to_vector();
    const auto best = static_cast<std::size_t>(ebb::argmax(p).item());
    if (!std::isfinite(probabilities[best]))
      throw std::runtime_error(fmt::format("{}: what it gives for digit {} is no number", file_of(v), i));
    const int label = data.test.labels.values<std::uint8_t>()[static_cast<std::size_t>(i)];
    if (v.count("json")) {
      list.push_back({{"index", i},
                      {"digit", best},
                      {"probability", probabilities[best]},
                      {"label", label},
                      {"probabilities", probabilities}});
      continue;
    }
    if (v.count("show")) app::print("{}", picture(data.test.images.rows(i, i + 1)));
    app::print("{:>5}: {} with probability {:.4f} ({})\n", i, best, probabilities[best],
               static_cast<int>(best) == label ? "right" : fmt::format("wrong: it is {}", label));
  }
  if (v.count("json")) app::print("{}\n", list.dump());
  return ok;
}

int summary(const std::vector<std::string>& args) {
  po::options_description own = app::option_group(
      "Table",
      {
          {"style", po::value<std::string>()->default_value("keras2"), "keras2.2, keras2 or keras3: whose table"},
      });
  po::options_description options(80, 40);
  options.add(model_options()).add(own);
  po::variables_map v;
  if (!parse(args, options, "mnist summary [FILE] [OPTIONS]", "Example:\n  mnist summary --model cnn --style keras3\n",
             v, true))
    return ok;
  ebb::SummaryOptions how;
  try {
    how.style = ebb::style_of(v["style"].as<std::string>());
  } catch (const ebb::ValueError& e) {
    throw UsageError(fmt::format("--style: {}", e.what()));
  }
  ebb::Sequential net = network(v);
  app::print("{}", ebb::summary(net, how));
  return ok;
}

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

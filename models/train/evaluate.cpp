// evaluate, predict, and the measurements that they share with fit (ebb/models/train/fit.h).
#include <fmt/core.h>

#include <cmath>
#include <map>
#include <utility>

#include <ebb/autograd/backward.h>
#include <ebb/graph/error.h>
#include <ebb/graph/given.h>
#include <ebb/graph/mode.h>
#include <ebb/models/train/measure.h>

namespace ebb {
namespace {

/// True when each row holds shares of classes, one-hot or not; the targets of a regression do not.
bool rows_are_shares(const Tensor& labels) {
  return labels.rank() == 2 && labels.size(1) > 1 && visit_dtype(labels.dtype(), [&]<class T>(T) {
           const auto v = labels.values<T>();
           const auto classes = static_cast<std::size_t>(labels.size(1));
           for (std::size_t i = 0; i < v.size(); i += classes) {
             double sum = 0;
             for (std::size_t j = 0; j < classes; ++j) {
               if (!(v[i + j] >= 0)) return false;
               sum += static_cast<double>(v[i + j]);
             }
             if (!(std::abs(sum - 1) < 1e-3)) return false;
           }
           return true;
         });
}

/// How much each sample counts: the weight of its class, or the mean of the weights by its shares of the classes.
std::vector<double> weights_of(const Tensor& labels, const std::vector<double>& of_class) {
  const std::size_t classes = of_class.size();
  const auto refuse = [&](const char* why) {
    fail<ShapeError>("fit", fmt::format("{} class weights for labels {}{}", classes,
                                        labels.defined() ? describe(labels) : "that are undefined", why));
  };
  const bool shares = labels.defined() && labels.rank() == 2;
  if (!labels.defined() || labels.rank() == 0 || (shares && labels.size(1) != static_cast<std::int64_t>(classes)))
    refuse("");
  if (!shares && (labels.rank() != 1 || is_float(labels.dtype())))
    refuse(": needs classes (n) or shares of the classes (n, c)");
  std::vector<double> out;
  visit_dtype(labels.dtype(), [&]<class T>(T) {
    const auto v = labels.values<T>();
    if (shares) {
      for (std::size_t i = 0; i < v.size(); i += classes) {
        out.push_back(0);
        for (std::size_t c = 0; c < classes; ++c) out.back() += static_cast<double>(v[i + c]) * of_class[c];
      }
      return;
    }
    for (const auto c : v) {
      if (!(c >= 0 && static_cast<std::uint64_t>(c) < classes))
        throw ValueError(fmt::format("fit: label {} has no class weight; class_weight has {}", c, classes));
      out.push_back(of_class[static_cast<std::size_t>(c)]);
    }
  });
  return out;
}

}  // namespace

Loss::Loss(std::function<Tensor(const Tensor&, const Tensor&)> f) : f_(std::move(f)) {
  detail::expect_given(f_, "Loss");
}

std::int64_t count_correct(const Tensor& outputs, const Tensor& labels) {
  const Tensor truth = labels.rank() == 2 ? argmax(labels, -1) : labels;
  const std::int64_t classes = outputs.rank() ? outputs.size(-1) : 0;
  if (classes == 0) fail<ShapeError>("count_correct", fmt::format("no classes in outputs {}", outputs.shape().str()));
  if (truth.numel() != outputs.numel() / classes)
    fail<ShapeError>("count_correct", fmt::format("outputs {} and labels {} differ in number", outputs.shape().str(),
                                                  labels.shape().str()));
  return visit_dtype(outputs.dtype(), [&](auto value) {
    return visit_dtype(truth.dtype(), [&](auto label) {
      const auto* row = outputs.values<decltype(value)>().data();
      std::int64_t n = 0;
      for (const auto right : truth.values<decltype(label)>()) {
        std::int64_t best = 0;
        for (std::int64_t j = 1; j < classes; ++j) best = row[j] > row[best] ? j : best;
        n += best == static_cast<std::int64_t>(right);
        row += classes;
      }
      return n;
    });
  });
}

// ---- running means --------------------------------------------------------------------------------------------------

void detail::Running::add(double batch_loss, const Tensor& outputs, const Tensor& labels) {
  const std::int64_t n = outputs.rank() ? outputs.size(0) : 1;
  ++batches;
  loss += batch_loss * static_cast<double>(n);
  seen += n;
  const bool sparse = labels.rank() == 1 && !is_float(labels.dtype());
  classes =
      classes && outputs.rank() == 2 && (sparse || (labels.shape() == outputs.shape() && rows_are_shares(labels)));
  if (classes) correct += count_correct(outputs, labels);
}

Metrics detail::Running::metrics() const {
  const auto n = static_cast<double>(seen);
  return {loss / n, classes ? static_cast<double>(correct) / n : NAN};
}

detail::Shown detail::shown_metrics(const std::string& prefix, const Metrics& m) {
  Shown out{{prefix + "loss", m.loss}};
  if (!std::isnan(m.accuracy)) out.emplace_back(prefix + "accuracy", m.accuracy);
  return out;
}

ProgressOptions detail::progress_of(Verbose verbose, KerasStyle style) {
  ProgressOptions out{.kind = ProgressOptions::nothing, .style = style, .color = Progress::can_color(stderr)};
  if (verbose == Verbose::bar || (verbose == Verbose::automatic && Progress::can_redraw(stderr)))
    out.kind = ProgressOptions::bar;
  else if (verbose != Verbose::silent)
    out.kind = verbose == Verbose::lines ? ProgressOptions::keras_lines : ProgressOptions::lines;
  return out;
}

/// A loss does not say what a single sample costs, so that it is asked once for all samples of the same weight.
Tensor detail::weighted_loss(const Loss& loss, const Tensor& output, const Tensor& labels,
                             const std::vector<double>& of_class) {
  std::map<double, std::vector<std::int64_t>> alike;
  const std::vector<double> weights = weights_of(labels, of_class);
  if (loss.plain() == static_cast<Tensor (*)(const Tensor&, const Tensor&)>(cross_entropy))
    return cross_entropy(
        output, labels,
        {.class_weights = cast(Tensor::from(of_class, {static_cast<std::int64_t>(of_class.size())}), output.dtype())});
  const auto n = static_cast<std::int64_t>(weights.size());
  if (output.rank() == 0 || output.size(0) != n)
    fail<ShapeError>(
        "fit", fmt::format("class weights need an output for each of {} samples, got {}", n, output.shape().str()));
  for (std::int64_t i = 0; i < n; ++i) alike[weights[static_cast<std::size_t>(i)]].push_back(i);
  if (alike.size() > 1) alike.erase(0);
  Tensor sum;
  for (const auto& [weight, rows] : alike) {
    const Tensor which = Tensor::from(rows, {static_cast<std::int64_t>(rows.size())});
    const bool all = static_cast<std::int64_t>(rows.size()) == n;
    const Tensor part = (all ? loss(output, labels) : loss(gather(output, which), gather(labels, which))) *
                        (weight * static_cast<double>(rows.size()) / static_cast<double>(n));
    sum = sum.defined() ? sum + part : part;
  }
  return sum;
}

// ---- without training -----------------------------------------------------------------------------------------------

Metrics evaluate(Module& module, const Dataset& data, const EvaluateOptions& o) {
  if (data.size() == 0) throw ValueError("evaluate: no samples");
  const NoGrad quiet;
  const FlushDenormals flush;
  detail::Running running;
  const Batches batches(data, {.size = o.batch, .shuffle = false});
  const bool samples = o.style == KerasStyle::keras2_2;
  Progress progress(stderr, samples ? data.size() : batches.count(), detail::progress_of(o.verbose, o.style));
  for (auto [x, y] : batches) {
    if (running.batches > 0 && o.interrupted && o.interrupted()) break;
    const Tensor output = module(x);
    running.add(o.loss(output, y).item(), output, y);
    progress.update(samples ? running.seen : running.batches,
                    [&] { return detail::shown_metrics("", running.metrics()); });
  }
  progress.finish(detail::shown_metrics("", running.metrics()), "Evaluation");
  return running.metrics();
}

Tensor predict(Module& module, const Dataset& data, const PredictOptions& o) {
  if (data.size() == 0) throw ValueError("predict: no samples");
  const NoGrad quiet;
  const FlushDenormals flush;
  std::vector<Tensor> parts;
  const Batches batches({data.inputs, {}, data.scale}, {.size = o.batch, .shuffle = false});
  const bool samples = o.style == KerasStyle::keras2_2;
  Progress progress(stderr, samples ? data.size() : batches.count(), detail::progress_of(o.verbose, o.style));
  std::int64_t row = 0;
  for (auto [x, _] : batches) {
    parts.push_back(module(x));
    row += x.size(0);
    progress.update(samples ? row : static_cast<std::int64_t>(parts.size()), {});
  }
  progress.finish({}, "Prediction");
  Tensor out = Tensor::empty(parts[0].shape().with(0, data.size()), parts[0].dtype());
  row = 0;
  for (const Tensor& p : parts) {
    out.rows(row, row + p.size(0)).assign(p);
    row += p.size(0);
  }
  return out;
}

Tensor predict(Module& module, const Tensor& inputs, const PredictOptions& options) {
  return predict(module, Dataset{inputs, {}, 1}, options);
}

}  // namespace ebb

#include <ebb/autograd/checker.h>

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace ebb::detail::checking {
namespace {

constexpr std::size_t listed = 5;         // wrong elements in a report
constexpr std::size_t small = 256;        // elements that are looked at one by one when something is wrong
constexpr std::int64_t most_runs = 2000;  // of the function, to find what is wrong among more elements than that
constexpr int draws = 3;                  // of a direction that the differences do not settle

std::size_t count(const Group& group) {
  std::size_t n = 0;
  for (const Range& r : group) n += r.end - r.begin;
  return n;
}

std::pair<Group, Group> halves(const Group& group) {
  std::pair<Group, Group> out;
  std::size_t left = count(group) / 2;
  for (const Range& r : group) {
    const std::size_t mine = std::min(left, r.end - r.begin);
    if (mine > 0) out.first.push_back({r.input, r.begin, r.begin + mine});
    if (r.begin + mine < r.end) out.second.push_back({r.input, r.begin + mine, r.end});
    left -= mine;
  }
  return out;
}

std::string indices_of(std::int64_t element, const Shape& shape) {
  std::string out;
  for (int axis = shape.rank(); axis-- > 0;) {
    out = fmt::format("{}{}{}", element % shape[axis], out.empty() ? "" : ", ", out);
    element /= shape[axis];
  }
  return out;
}

std::string input_name(const GradcheckOptions& options, int input, std::size_t inputs) {
  const auto i = static_cast<std::size_t>(input);
  if (i >= inputs) return "the cotangent";
  return i < options.names.size() && !options.names[i].empty() ? fmt::format("input {} \"{}\"", input, options.names[i])
                                                               : fmt::format("input {}", input);
}

}  // namespace

void Checker::refute(int order, int input, std::int64_t element, double analytic, double numeric, std::string what) {
  report.ok = false;
  ++report.wrong_count;
  if (report.wrong.size() >= listed) return;
  std::string where = input < 0 ? "along a random direction" : input_name(options_, input, inputs_.size());
  if (element >= 0) {
    const auto i = static_cast<std::size_t>(input);
    where += fmt::format(" element {}", element);
    if (i < inputs_.size() && inputs_[i].rank() > 1)
      where += fmt::format(" ({})", indices_of(element, inputs_[i].shape()));
  }
  report.wrong.push_back({order, input, element, std::move(where), analytic, numeric, std::move(what)});
}

/// Keeps the worst derivative, measured against its tolerance.
void Checker::note(const Task& t, int input, std::int64_t element, double analytic, const Estimate& e, double scale) {
  const double numeric = analytic + e.off;
  double error = std::abs(e.off) / std::max({std::abs(analytic), std::abs(numeric), scale});
  if (e.off == 0) error = 0;
  if (error > tolerance(t.order))
    error *= std::max(0.0, 1 - 10 * e.error / std::abs(e.off));  // what the differences may be off themselves
  if (std::isnan(error)) error = INFINITY;
  if (report.order != 0 && error / tolerance(t.order) <= report.error / tolerance(report.order)) return;
  report.order = t.order;
  report.create_graph = create_graph;
  report.input = input;
  report.element = element;
  report.analytic = analytic;
  report.numeric = numeric;
  report.error = error;
}

void Checker::check(const Claim& claim, std::span<const Tensor> inputs, int order) {
  Task t{claim, inputs, order, {}, Base(claim.probed, inputs), {}, {}};
  std::vector<Tensor> variables;
  for (const Tensor& x : inputs) variables.push_back(variable(x.clone()));
  const std::vector<Tensor> g = claim.gradient(variables);
  bool finite = true;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    t.gradient.push_back(g[i].defined() ? g[i].to_vector()
                                        : std::vector<double>(static_cast<std::size_t>(inputs[i].numel()), 0.0));
    for (std::size_t j = 0; j < t.gradient[i].size(); ++j)
      if (const double v = t.gradient[i][j]; !std::isfinite(v)) {
        finite = false;
        refute(order, static_cast<int>(i), static_cast<std::int64_t>(j), v, v, fmt::format("the gradient is {}", v));
      }
  }
  if (!finite) {
    if (report.order == 0)
      report.order = order, report.error = INFINITY, report.input = report.wrong[0].input,
      report.element = report.wrong[0].element;
    return;
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    std::vector<double> sizes;
    for (std::size_t j = 0; j < t.gradient[i].size(); ++j)
      if (t.gradient[i][j] != 0) sizes.push_back(std::abs(t.gradient[i][j]) * unit(t, i, j));
    t.size.push_back(sizes.empty() ? 0 : *std::ranges::max_element(sizes));
    if (sizes.empty()) {
      t.median.push_back(0);
      continue;
    }
    const auto middle = sizes.begin() + static_cast<std::ptrdiff_t>((sizes.size() - 1) / 2);
    std::ranges::nth_element(sizes, middle);
    t.median.push_back(std::max(*middle, 1e-6 * t.size.back()));
  }
  if (options_.probe != Probe::direction) {
    for (std::size_t i = 0; i < inputs.size(); ++i)
      for (std::size_t j = 0; j < t.gradient[i].size(); ++j)
        element(t, i, j, report.wrong_count >= static_cast<std::int64_t>(listed));
    return;
  }
  // Inputs whose gradients are of like size move together, so that none is lost in the rounding of another's.
  std::vector<std::size_t> order_of(inputs.size());
  for (std::size_t i = 0; i < order_of.size(); ++i) order_of[i] = i;
  std::ranges::stable_sort(order_of, [&](std::size_t a, std::size_t b) { return t.median[a] > t.median[b]; });
  for (std::size_t k = 0; k < order_of.size();) {
    Group group;
    const double largest = t.median[order_of[k]];
    for (; k < order_of.size() && t.median[order_of[k]] >= largest / 30; ++k)
      if (!t.gradient[order_of[k]].empty()) group.push_back({order_of[k], 0, t.gradient[order_of[k]].size()});
    std::ranges::sort(group, {}, &Range::input);
    if (!group.empty()) sweep(t, group);
  }
}

/// All directions over a group; over its halves too, where those do not see enough.
void Checker::sweep(Task& t, const Group& group) {
  double median = INFINITY, sees = INFINITY;
  for (const Range& r : group) median = std::min(median, t.median[r.input]);
  for (int k = 0; k < options_.directions; ++k)
    if (!along(t, group, median, sees)) return;
  if (median == 0) return;  // every claimed derivative is 0, and the differences say the same
  if (options_.sees > 0 && sees > options_.sees && count(group) > 1) {
    const auto [a, b] = halves(group);
    sweep(t, a);
    sweep(t, b);
  } else {
    report.sees = std::max(report.sees, sees);
  }
}

/// Each element's share is of like size, between a half and one of the median: those with a steep slope move less.
Checker::Direction Checker::draw(const Task& t, const Group& group, double median) {
  Direction out{Rows(t.inputs.size())};
  for (const Range& r : group) {
    auto& d = out.rows[r.input];
    if (d.empty()) d.assign(t.gradient[r.input].size(), 0.0);
    const double m = t.median[r.input];
    for (std::size_t e = r.begin; e < r.end; ++e) {
      const double r01 = random_.uniform(), u = unit(t, r.input, e), slope = std::abs(t.gradient[r.input][e]) * u;
      if (!kinks_.empty() && kinks_.contains({t.order, r.input, e})) continue;
      const double least =
          std::max(1e-12, 2e-6 * std::abs(t.inputs[r.input].values<double>()[e]) / u);  // not lost in rounding
      const double share = m > 0 ? median / m * std::clamp(m / slope, least, 1.0) : 1;
      d[e] = (r01 < 0.5 ? -0.5 - r01 : r01) * u * share;
      out.scale = std::max(out.scale, slope * share);
      out.furthest = std::max(out.furthest, std::abs(d[e]));
      out.analytic += t.gradient[r.input][e] * d[e];
    }
  }
  return out;
}

Judgment Checker::judge(const Task& t, const Direction& d, bool quick, std::int64_t& runs) const {
  Line line(t.claim.probed, t.base, t.inputs, t.gradient, d.rows);
  const Judgment j = line.judge({d.scale, tolerance(t.order), options_.absolute * d.furthest, options_.step, quick});
  runs += line.evaluations();
  return j;
}

/// One direction. False when something in it is wrong.
bool Checker::along(Task& t, const Group& group, double median, double& sees) {
  for (int tries = draws; tries-- > 0;) {
    const Direction d = draw(t, group, median);
    if (d.furthest == 0) return true;  // all on kinks
    std::int64_t runs = 0;
    Judgment j = judge(t, d, false, runs);
    if (j.verdict == Verdict::wrong || j.verdict == Verdict::kink) {
      // Which element? Or are some on kinks, which only the elements one by one can tell.
      const std::int64_t before = report.wrong_count;
      const std::size_t kinks = kinks_.size();
      runs = 0;
      const bool all_seen = find(t, group, median, runs);
      if (report.wrong_count > before) {
        report.counted &= all_seen;
        return false;
      }
      // Each is right by itself. Errors below the tolerance may add up to one above it, but not relative to the sum.
      const double numeric = d.analytic + j.estimate.off;
      if (kinks_.size() > kinks && tries > 0) continue;  // once more, without those
      if (j.verdict == Verdict::wrong &&
          std::abs(j.estimate.off) > tolerance(t.order) * std::max(std::abs(d.analytic), std::abs(numeric))) {
        if (tries > 0) continue;
        note(t, -1, -1, d.analytic, j.estimate, d.scale);
        refute(t.order, -1, -1, d.analytic, numeric);
        report.counted = false;
        return false;
      }
      j.verdict = Verdict::right;
      j.estimate.off = 0;
    }
    if (j.verdict == Verdict::unsure) continue;
    note(t, -1, -1, d.analytic, j.estimate, d.scale);
    const double threshold =
        tolerance(t.order) * d.scale + options_.absolute * d.furthest + 4 * j.estimate.error + j.gap;
    if (median > 0) sees = std::min(sees, 2 * threshold / median);
    return true;
  }
  ++report.unsure;
  return true;
}

/// One element alone. False when wrong.
bool Checker::element(Task& t, std::size_t input, std::size_t e, bool quick) {
  const double u = unit(t, input, e), analytic = t.gradient[input][e] * u, least = 0.01 * t.size[input];
  Direction d{Rows(t.inputs.size()), analytic, std::max(std::abs(analytic), least), u};
  d.rows[input].assign(t.gradient[input].size(), 0.0);
  d.rows[input][e] = u;
  std::int64_t runs = 0;
  const Judgment j = judge(t, d, quick, runs);
  const int i = static_cast<int>(input);
  const auto number = static_cast<std::int64_t>(e);
  if (j.verdict == Verdict::kink) kinks_.insert({t.order, input, e});
  if (j.verdict == Verdict::unsure) ++report.unsure;
  if (j.verdict != Verdict::right && j.verdict != Verdict::wrong) return true;
  note(t, i, number, analytic / u, {j.estimate.off / u, j.estimate.error / u}, least / u);
  if (j.verdict == Verdict::wrong) {
    refute(t.order, i, number, analytic / u, (analytic + j.estimate.off) / u);
    return false;
  }
  if (const double size = std::max(std::abs(analytic), t.median[input]); size > 0 && options_.probe != Probe::direction)
    report.sees =
        std::max(report.sees, (tolerance(t.order) * d.scale + options_.absolute * u + 4 * j.estimate.error) / size);
  return true;
}

/// Looks for wrong elements: one by one in a small group, else by halves. True when nothing was left out.
bool Checker::find(Task& t, const Group& group, double median, std::int64_t& runs) {
  if (count(group) <= small) {
    for (const Range& r : group)
      for (std::size_t e = r.begin; e < r.end; ++e)
        element(t, r.input, e, report.wrong_count >= static_cast<std::int64_t>(listed));
    runs += 4 * static_cast<std::int64_t>(count(group));
    return true;
  }
  const auto [a, b] = halves(group);
  bool all = true;
  for (const Group& half : {a, b}) {
    if (runs > most_runs || report.wrong_count >= static_cast<std::int64_t>(listed)) return false;
    const Direction d = draw(t, half, median);
    if (d.furthest > 0 && judge(t, d, true, runs).verdict != Verdict::right) all &= find(t, half, median, runs);
  }
  return all;
}

}  // namespace ebb::detail::checking

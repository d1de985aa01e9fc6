#include <ebb/autograd/differences.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace ebb::detail::checking {
namespace {

constexpr double rounding = std::numeric_limits<double>::epsilon() / 2;
constexpr double longest = 0.25;  // t of the largest step
constexpr int levels = 28;        // each a quarter of the one before: down to 1e-17

/// Estimates of a limit at steps that shrink by 4, extrapolated (Neville's scheme, as in Ridders 1982). The error of an
/// entry is its distance from both entries that it is made of, and what noise can do.
class Ladder {
 public:
  /// `factor`: by how much the leading error falls from step to step, and each next one by as much again.
  explicit Ladder(double factor) : factor_(factor) {}

  Estimate add(double value, double noise) {
    std::vector<double> row{value};
    Estimate best;
    double power = 1;
    for (std::size_t j = 0; j < std::min<std::size_t>(row_.size(), 4) && std::isfinite(value); ++j) {
      power *= factor_;
      row.push_back((power * row[j] - row_[j]) / (power - 1));
      const double error = std::max(std::abs(row[j + 1] - row[j]), std::abs(row[j + 1] - row_[j])) + noise;
      if (error < best.error) best = {row[j + 1], error};
    }
    if (std::isfinite(value)) row_ = std::move(row);
    else row_.clear();
    found_.push_back(best);
    if (best.error < least_) {
      least_ = best.error;
      size_ = std::abs(best.off);
    }
    return best;
  }

  /// Whether still smaller steps are of no use: noise alone is far more than the error so far, and no small part of the
  /// slope.
  bool done(double noise, double scale) const {
    return found_.size() > 5 && noise > 100 * least_ && noise > 1e-3 * std::max(scale, size_);
  }

  /// The surest one, unless smaller steps surely say otherwise: a derivative is a limit.
  Estimate limit() const {
    Estimate best;
    for (const Estimate& e : found_)
      if (e.error <= best.error) best = e;
    bool after = false;
    for (const Estimate& e : found_) {
      if (after && std::abs(e.off - best.off) > 5 * (e.error + best.error)) best = e;
      after |= e.off == best.off && e.error == best.error;
    }
    return best;
  }

 private:
  double factor_, least_ = std::numeric_limits<double>::infinity(), size_ = 0;
  std::vector<double> row_;
  std::vector<Estimate> found_;
};

}  // namespace

Base::Base(const Probed& f, std::span<const Tensor> inputs) : outputs(f.outputs(inputs)) {
  double squares = 0;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const auto y = outputs[i].values<double>(), w = f.weights[i].values<double>();
    for (std::size_t k = 0; k < y.size(); ++k) {
      const double term = std::abs(w[k] * y[k]);
      if (!std::isfinite(term)) continue;
      size += term;
      squares += term * term;
    }
  }
  noise = rounding * std::sqrt(squares);
}

Line::Line(const Probed& f, const Base& base, std::span<const Tensor> inputs, const Rows& gradient,
           const Rows& direction)
    : f_(f), base_(base), inputs_(inputs), gradient_(gradient), direction_(direction) {
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const auto x = inputs[i].values<double>();
    for (std::size_t j = 0; j < direction[i].size(); ++j)
      if (direction[i][j] != 0) shortest_ = std::max(shortest_, 16 * rounding * std::abs(x[j] / direction[i][j]));
  }
}

Line::At Line::at(double t) {
  ++evaluations_;
  std::vector<Tensor> points(inputs_.begin(), inputs_.end());
  long double claimed = 0, change = 0;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const auto& d = direction_[i];
    if (d.empty()) continue;
    const auto x = inputs_[i].values<double>();
    points[i] = points[i].clone();
    const auto moved = points[i].mutable_values<double>();
    for (std::size_t j = 0; j < d.size(); ++j) {
      moved[j] += t * d[j];
      claimed += static_cast<long double>(gradient_[i][j]) * (moved[j] - x[j]);
    }
  }
  const std::vector<Tensor> outputs = f_.outputs(points);
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i].shape() != base_.outputs[i].shape()) return {std::numeric_limits<double>::quiet_NaN(), 0};
    const auto y = outputs[i].values<double>(), y0 = base_.outputs[i].values<double>(),
               w = f_.weights[i].values<double>();
    for (std::size_t k = 0; k < y.size(); ++k)
      if (y[k] != y0[k]) change += static_cast<long double>(w[k]) * (static_cast<long double>(y[k]) - y0[k]);
  }
  return {static_cast<double>(change), static_cast<double>(claimed)};
}

/// Whether the function is flat here and at other points, and yet different at each: as with a part in float32.
bool Line::staircase() {
  const double far = 1e-3, near = std::max(1e-13, 4 * shortest_);
  const double up = at(far).change, down = at(-far).change;
  return up != down && at(far / 2).change != up && at(-far / 2).change != down && at(far + near).change == up &&
         at(-far - near).change == down;
}

/// From the differences of high order of values that lie close together, where what is smooth has died out (More and
/// Wild, Estimating computational noise, 2011). A staircase needs points farther apart.
double Line::measured_noise() {
  bool stairs = false;
  constexpr int points = 9;
  for (double step = std::max(1e-12, shortest_); step < 1e-3; step *= 100) {
    std::array<double, points> v;
    for (int i = 0; i < points; ++i) v[static_cast<std::size_t>(i)] = at((i + 1) * step).change;
    std::array<double, points> found{};
    double weight = 1;
    bool flat = false;
    for (std::size_t k = 1; k < points - 2; ++k) {
      int zeros = 0;
      double squares = 0;
      for (std::size_t i = 0; i + k < points; ++i) {
        v[i] = v[i + 1] - v[i];
        zeros += v[i] == 0;
        squares += v[i] * v[i];
      }
      weight *= static_cast<double>(k) / (2.0 * (2.0 * static_cast<double>(k) - 1.0));  // (k!)^2 / (2k)!
      found[k] = std::sqrt(weight * squares / static_cast<double>(points - k));
      if (k == 1) flat = zeros > points / 2;
    }
    if (flat && !stairs && !(stairs = staircase())) return base_.noise;
    if (flat) continue;
    std::array<double, 3> late{found[4], found[5], found[6]};
    std::ranges::sort(late);
    return std::isfinite(late[1]) ? std::max(late[1], base_.noise) : base_.noise;
  }
  return base_.noise;
}

Estimate Line::both_sides(double enough, double scale, double noise, double& variation) {
  Ladder ladder(16);
  double h = longest;
  for (int k = 0; k < levels && h > shortest_; ++k, h /= 4) {
    const At up = at(h), down = at(-h);
    if (h > 1e-3)
      for (const double change : {up.change, down.change})
        if (std::isfinite(change)) variation = std::max(variation, std::abs(change) / h);
    const double blur = 3 * noise / h;
    const Estimate e = ladder.add((up.change - up.claimed - (down.change - down.claimed)) / (2 * h), blur);
    if (std::abs(e.off) <= enough && e.error <= enough) return e;
    if (ladder.done(blur, scale)) break;
  }
  return ladder.limit();
}

/// By pairs of points that leave t = 0 out, where the function itself may jump.
Estimate Line::one_side(double sign, double scale, double noise) {
  Ladder ladder(4);
  double t = longest / 4;
  for (int k = 0; k < levels && t > shortest_; ++k, t /= 4) {
    const double blur = 3 * noise / t;
    ladder.add(sign * (rest(2 * sign * t) - rest(sign * t)) / t, blur);
    if (ladder.done(blur, scale)) break;
  }
  return ladder.limit();
}

Judgment Line::judge(const Bounds& b) {
  const double allowed = b.tolerance * b.scale + b.absolute;
  if (b.step > shortest_) {
    const double coarse = central(b.step), fine = central(b.step / 2), first = (4 * fine - coarse) / 3;
    const Estimate e{first, std::abs(first - fine) + 4 * base_.noise / b.step};
    if (std::abs(first) <= allowed) return {Verdict::right, e};
    if (b.quick && e.error <= 0.01 * std::abs(first)) return {Verdict::wrong, e};
  }
  const double noise = measured_noise();
  double natural = base_.size;  // a slope that the function might well have
  const auto weigh = [&](const Estimate& e) {
    if (!std::isfinite(e.off)) return Verdict::unsure;
    const double off = std::abs(e.off);
    if (off > allowed + 10 * e.error) return Verdict::wrong;
    if (off > allowed + 3 * e.error) return Verdict::unsure;
    return e.error <= 0.01 * std::max(b.scale, off) || e.error <= b.tolerance * natural ? Verdict::right
                                                                                        : Verdict::unsure;
  };
  double variation = 0;
  const Estimate middle = both_sides(allowed, b.scale, noise, variation);
  natural = std::max(natural, variation);
  const Verdict verdict = weigh(middle);
  if (verdict == Verdict::right) return {verdict, middle};

  const Estimate right = one_side(1, b.scale, noise), left = one_side(-1, b.scale, noise);
  if (!std::isfinite(right.off) || !std::isfinite(left.off)) {  // the edge of where the function is defined
    const Estimate& side = std::isfinite(right.off) ? right : left;
    return verdict == Verdict::wrong ? Judgment{verdict, middle} : Judgment{weigh(side), side};
  }
  const double gap = std::abs(right.off - left.off), error = std::max(right.error, left.error);
  const Estimate& surer = right.error < left.error ? right : left;
  if (gap <= allowed + 10 * error) {  // no kink; perhaps a jump of the value, with the same slope to both sides
    if (verdict == Verdict::wrong) return {verdict, middle};
    const Verdict beside = weigh(surer);
    return {beside == Verdict::right ? Verdict::kink : beside, surer, allowed};
  }
  const double slack = allowed + 3 * error;
  if (std::min(right.off, left.off) > slack || std::max(right.off, left.off) < -slack)
    return {Verdict::wrong, std::abs(right.off) < std::abs(left.off) ? right : left};
  return {Verdict::kink, middle, gap};
}

}  // namespace ebb::detail::checking

// Ops against independent loops and literals: elementwise, reductions, softmax.
#include <doctest/doctest.h>

#include <cmath>

#include "op_table.h"
#include "restore.h"

using namespace ebb;
using namespace ebb::testing;

namespace {

Tensor literal(std::initializer_list<double> v) { return tensor(v, f64); }
Tensor literal(std::initializer_list<double> v, const Shape& s) { return tensor(v, s, f64); }

/// The element of x at an index of the broadcast shape.
double broadcast_element(const Tensor& x, const std::vector<std::int64_t>& index) {
  std::int64_t at = 0;
  const auto shift = std::ssize(index) - x.rank();
  for (int i = 0; i < x.rank(); ++i)
    at = at * x.size(i) + (x.size(i) == 1 ? 0 : index[static_cast<std::size_t>(i + shift)]);
  return x.to_vector()[static_cast<std::size_t>(at)];
}

/// Calls use(index) for each index of a shape, in row-major order.
template <class F>
void each_index(const Shape& shape, const F& use) {
  std::vector<std::int64_t> index(static_cast<std::size_t>(shape.rank()), 0);
  for (std::int64_t n = 0; n < shape.numel(); ++n) {
    use(index);
    for (int i = shape.rank() - 1; i >= 0 && ++index[static_cast<std::size_t>(i)] == shape[i]; --i)
      index[static_cast<std::size_t>(i)] = 0;
  }
}

/// Whole numbers from 0 to below n.
Tensor whole_numbers(const Shape& shape, double n, DType dtype) {
  return cast(cast(uniform(shape, 0, n, f64), i64), dtype);
}

Tensor of_vector(const std::vector<double>& v, const Shape& shape, DType dtype) {
  Tensor t = zeros(shape, f64);
  std::copy(v.begin(), v.end(), t.mutable_values<double>().begin());
  return cast(t, dtype);
}

}  // namespace

TEST_CASE("values: functions of one number are those of <cmath>") {
  struct Pair {
    const char* name;
    Tensor (*ours)(const Tensor&);
    double (*theirs)(double);
  };
  const Pair pairs[] = {
      {"exp", exp, [](double v) { return std::exp(v); }},
      {"log1p", log1p, [](double v) { return std::log1p(v); }},
      {"square", square, [](double v) { return v * v; }},
      {"reciprocal", reciprocal, [](double v) { return 1 / v; }},
      {"abs", abs, [](double v) { return std::fabs(v); }},
      {"sin", sin, [](double v) { return std::sin(v); }},
      {"cos", cos, [](double v) { return std::cos(v); }},
      {"erf", erf, [](double v) { return std::erf(v); }},
      {"tanh", tanh, [](double v) { return std::tanh(v); }},
      {"sigmoid", sigmoid, [](double v) { return 1 / (1 + std::exp(-v)); }},
      {"softplus", softplus, [](double v) { return std::log(1 + std::exp(v)); }},
      {"relu", relu, [](double v) { return v > 0 ? v : 0; }},
      {"gelu", gelu, [](double v) { return v * 0.5 * std::erfc(-v / std::sqrt(2.0)); }},
      {"silu", silu, [](double v) { return v / (1 + std::exp(-v)); }},
      {"selu", selu,
       [](double v) { return 1.0507009873554805 * (v > 0 ? v : 1.6732632423543772 * (std::exp(v) - 1)); }},
      {"elu", [](const Tensor& x) { return elu(x, 0.5); },
       [](double v) { return v > 0 ? v : 0.5 * (std::exp(v) - 1); }},
      {"leaky_relu", [](const Tensor& x) { return leaky_relu(x); }, [](double v) { return v > 0 ? v : 0.3 * v; }},
      {"clip", [](const Tensor& x) { return clip(x, -0.25, 0.5); },
       [](double v) { return std::min(0.5, std::max(-0.25, v)); }},
      {"affine", [](const Tensor& x) { return affine(x, 3, -1); }, [](double v) { return 3 * v - 1; }},
      {"log", [](const Tensor& x) { return log(abs(x)); }, [](double v) { return std::log(std::fabs(v)); }},
      {"sqrt", [](const Tensor& x) { return sqrt(abs(x)); }, [](double v) { return std::sqrt(std::fabs(v)); }},
      {"pow", [](const Tensor& x) { return pow(x, 3.0); }, [](double v) { return v * v * v; }},
      {"2 / x", [](const Tensor& x) { return 2 / x; }, [](double v) { return 2 / v; }},
      {"x / 4 - 1", [](const Tensor& x) { return x / 4 - 1; }, [](double v) { return v / 4 - 1; }},
      {"1 - 2 * (x + 3)", [](const Tensor& x) { return 1 - 2 * (x + 3); }, [](double v) { return 1 - 2 * (v + 3); }},
      {"-(1 + x) * 2", [](const Tensor& x) { return -(1 + x) * 2; }, [](double v) { return -(1 + v) * 2; }},
  };
  const Tensor x = literal({-0.9, -0.5, -0.125, 0.25, 0.6, 1, 2.5});
  for (const Pair& p : pairs) {
    CAPTURE(p.name);
    const std::vector<double> y = p.ours(x).to_vector();
    for (std::size_t i = 0; i < y.size(); ++i)
      CHECK(y[i] == doctest::Approx(p.theirs(x.to_vector()[i])).epsilon(1e-14));
  }
}

TEST_CASE("values: no overflow where the result is finite") {
  for (const DType t : {f32, f64}) {
    CHECK(distance(sigmoid(tensor({-1e4, 1e4}, t)), tensor({0, 1}, t)) == 0);
    CHECK(distance(softplus(tensor({-1e4, 1e4}, t)), tensor({0, 1e4}, t)) == 0);
    CHECK(distance(tanh(tensor({-1e4, 1e4}, t)), tensor({-1, 1}, t)) == 0);
    CHECK(distance(elu(tensor({-1e4, 1e4}, t)), tensor({-1, 1e4}, t)) == 0);
    const Tensor x = variable(tensor({-1e4, 1e4}, t));
    for (auto f : {+[](const Tensor& v) { return elu(v); }, +[](const Tensor& v) { return softplus(v); },
                   +[](const Tensor& v) { return sigmoid(v); }})
      for (const double g : grad(sum(f(x)), x).to_vector()) CHECK(std::isfinite(g));
  }
}

TEST_CASE("values: arithmetic broadcasts as an index formula says") {
  using Op = Tensor (*)(const Tensor&, const Tensor&);
  struct Pair {
    Op ours;
    double (*theirs)(double, double);
  };
  const Pair pairs[] = {{add, [](double a, double b) { return a + b; }},
                        {sub, [](double a, double b) { return a - b; }},
                        {mul, [](double a, double b) { return a * b; }},
                        {div, [](double a, double b) { return a / b; }},
                        {maximum, [](double a, double b) { return a > b ? a : b; }},
                        {minimum, [](double a, double b) { return a < b ? a : b; }},
                        {greater, [](double a, double b) { return a > b ? 1.0 : 0.0; }},
                        {less, [](double a, double b) { return a < b ? 1.0 : 0.0; }},
                        {equal, [](double a, double b) { return a == b ? 1.0 : 0.0; }},
                        {pow, [](double a, double b) { return std::pow(a, b); }}};
  const std::pair<Shape, Shape> shapes[] = {
      {{2, 3}, {2, 3}}, {{3}, {2, 3}}, {{2, 1, 3}, {4, 1}}, {{4, 1, 2, 1}, {3, 1, 5}},
      {{}, {2, 2}},     {{1, 1}, {3}}, {{0, 3}, {3}},       {{2, 3, 1}, {1, 3, 4}}};
  for (const auto& [sa, sb] : shapes)
    for (const Pair& p : pairs) {
      const Tensor a = uniform(sa, 0.5, 2, f64), b = uniform(sb, 0.5, 2, f64), y = p.ours(a, b);
      std::size_t i = 0;
      const std::vector<double> v = y.to_vector();
      each_index(y.shape(), [&](const auto& index) {
        CHECK(v[i++] == p.theirs(broadcast_element(a, index), broadcast_element(b, index)));
      });
      const Tensor c = cast(greater(a, 1.2), u8), w = where(c, a, b);
      i = 0;
      const std::vector<double> chosen = w.to_vector();
      each_index(w.shape(), [&](const auto& index) {
        CHECK(chosen[i++] ==
              (broadcast_element(c, index) != 0 ? broadcast_element(a, index) : broadcast_element(b, index)));
      });
    }
}

TEST_CASE("values: reductions over every subset of axes are naive loops") {
  for (const Shape& shape : {Shape{2, 3, 4}, Shape{3, 1, 2, 2}, Shape{5}, Shape{1, 7}}) {
    const Tensor x = randn(shape, f64);
    for (unsigned mask = 0; mask < 1u << shape.rank(); ++mask)
      for (const bool keep : {false, true}) {
        if (mask == 0) continue;  // none given means all
        std::vector<int> list;
        std::vector<std::int64_t> sizes;
        for (int i = 0; i < shape.rank(); ++i) {
          if (mask >> i & 1) list.push_back(i % 2 ? i : i - shape.rank());
          if (!(mask >> i & 1)) sizes.push_back(shape[i]);
          else if (keep) sizes.push_back(1);
        }
        const Axes axes = list.size() == 1   ? Axes{list[0]}
                          : list.size() == 2 ? Axes{list[0], list[1]}
                          : list.size() == 3 ? Axes{list[0], list[1], list[2]}
                                             : Axes{};
        const Shape out(sizes);
        std::vector<std::vector<double>> groups(static_cast<std::size_t>(out.numel()));
        std::size_t n = 0;
        const std::vector<double> v = x.to_vector();
        each_index(shape, [&](const auto& index) {
          std::size_t at = 0;
          for (int i = 0; i < shape.rank(); ++i)
            if (!(mask >> i & 1))
              at = at * static_cast<std::size_t>(shape[i]) +
                   static_cast<std::size_t>(index[static_cast<std::size_t>(i)]);
          groups[at].push_back(v[n++]);
        });
        const ReduceOptions o{.keepdims = keep};
        const Tensor results[] = {sum(x, axes, o), mean(x, axes, o),     max(x, axes, o),
                                  min(x, axes, o), variance(x, axes, o), logsumexp(x, axes, o)};
        for (const Tensor& r : results) REQUIRE(r.shape() == out);
        for (std::size_t g = 0; g < groups.size(); ++g) {
          double total = 0, top = -1e9, bottom = 1e9, squares = 0, exps = 0;
          for (const double e : groups[g]) {
            total += e;
            top = std::max(top, e);
            bottom = std::min(bottom, e);
            exps += std::exp(e);
          }
          const double average = total / static_cast<double>(groups[g].size());
          for (const double e : groups[g]) squares += (e - average) * (e - average);
          const double expected[] = {
              total, average, top, bottom, squares / static_cast<double>(groups[g].size()), std::log(exps)};
          for (std::size_t k = 0; k < 6; ++k)
            CHECK(results[k].to_vector()[g] == doctest::Approx(expected[k]).epsilon(1e-12));
        }
      }
  }
  CHECK(sum(zeros({0, 3}), 0).to_vector() == std::vector<double>{0, 0, 0});
  CHECK(sum(zeros({3, 0})).item() == 0);
  CHECK(sum_to(literal({1, 2, 3, 4, 5, 6}, {2, 3}), {2, 1}).to_vector() == std::vector<double>{6, 15});
  CHECK(sum_to(literal({1, 2, 3, 4, 5, 6}, {2, 3}), {3}).to_vector() == std::vector<double>{5, 7, 9});
}

TEST_CASE("values: a long float32 sum keeps its digits") {
  CHECK(sum(full({10'000'000}, 0.1)).item() == doctest::Approx(10'000'000 * static_cast<double>(0.1f)).epsilon(1e-5));
  CHECK(mean(full({3'000'000, 2}, 0.1), 0).to_vector()[1] == doctest::Approx(static_cast<double>(0.1f)).epsilon(1e-4));
}

TEST_CASE("values: argmax takes the first of equals, over any axis") {
  const Tensor x = literal({1, 9, 9, 4, 4, 4, 3, 9, 0, 0, 0, 0}, {2, 2, 3});
  CHECK(argmax(x).to_vector() == std::vector<double>{1, 0, 1, 0});
  CHECK(argmax(x, 1).to_vector() == std::vector<double>{1, 0, 0, 0, 0, 0});
  CHECK(argmax(x, 0).to_vector() == std::vector<double>{1, 0, 0, 0, 0, 0});
  CHECK(argmax(x).dtype() == i64);
  CHECK_THROWS_WITH_AS(argmax(zeros({2, 0})), "argmax: no elements to choose from in (2, 0)", ShapeError);
  CHECK_THROWS_WITH_AS(argmax(scalar(1)), "argmax: axis -1 does not exist in ()", ShapeError);
}

TEST_CASE("values: softmax rows are distributions, log_softmax their logarithm, logsumexp the norm") {
  const Tensor x = randn({7, 5}, f64) * 4;
  const std::vector<double> p = softmax(x).to_vector(), l = log_softmax(x).to_vector(),
                            z = logsumexp(x, -1).to_vector(), v = x.to_vector();
  for (std::size_t i = 0; i < 7; ++i) {
    double total = 0, norm = 0;
    for (std::size_t j = 0; j < 5; ++j) norm += std::exp(v[5 * i + j]);
    for (std::size_t j = 0; j < 5; ++j) {
      total += p[5 * i + j];
      CHECK(p[5 * i + j] == doctest::Approx(std::exp(v[5 * i + j]) / norm).epsilon(1e-13));
      CHECK(l[5 * i + j] == doctest::Approx(v[5 * i + j] - std::log(norm)).epsilon(1e-13));
    }
    CHECK(total == doctest::Approx(1).epsilon(1e-14));
    CHECK(z[i] == doctest::Approx(std::log(norm)).epsilon(1e-13));
  }
  for (const DType t : {f32, f64}) {
    const Tensor extreme = tensor({1e4, -1e4, 1e4, 0}, t);
    CHECK(distance(softmax(extreme), tensor({0.5, 0, 0.5, 0}, t)) == 0);
    CHECK(log_softmax(extreme).to_vector()[1] == doctest::Approx(-2e4 - std::log(2.0)));
    CHECK(logsumexp(extreme).item() == doctest::Approx(1e4 + std::log(2.0)));
  }
}

TEST_CASE("values: rows shorter and longer than a vector, a block and a thread's share are naive loops") {
  const Instructions restore;
  for (const DType dtype : {f32, f64})
    for (const detail::Isa isa : {detail::Isa::baseline, detail::Isa::avx2, detail::Isa::avx512}) {
      if (isa > detail::best_isa()) continue;
      detail::set_isa(isa);
      for (const auto& [rows, n] : std::vector<std::pair<std::int64_t, std::int64_t>>{{70, 1},
                                                                                      {130, 10},
                                                                                      {3, 15},
                                                                                      {3, 16},
                                                                                      {5, 17},
                                                                                      {5, 33},
                                                                                      {5, 64},
                                                                                      {70, 100},
                                                                                      {3, 1030},
                                                                                      {2, 4101},
                                                                                      {9, 33000},
                                                                                      {2, 66000}}) {
        CAPTURE(name_of(dtype));
        CAPTURE(detail::name_of(isa));
        CAPTURE(n);
        const Tensor x = randn({rows, n}, dtype), labels = whole_numbers({rows}, static_cast<double>(n), i64),
                     target = softmax(randn({rows, n}, f64));
        const std::vector<double> v = x.to_vector(), label = labels.to_vector(), t = target.to_vector();
        const std::vector<double> sums = sum(x, 1).to_vector(), tops = max(x, 1).to_vector(),
                                  places = argmax(x).to_vector(), p = softmax(x).to_vector(),
                                  l = log_softmax(x).to_vector();
        const double near = dtype == f32 ? 1e-5 : 1e-13;
        double hard = 0, soft = 0;
        for (std::int64_t i = 0; i < rows; ++i) {
          const double* row = v.data() + i * n;
          const auto at = [&](const std::vector<double>& of) { return of[static_cast<std::size_t>(i)]; };
          double total = 0, magnitude = 0, norm = 0, worst = 0;
          for (std::int64_t j = 0; j < n; ++j) total += row[j], magnitude += std::abs(row[j]), norm += std::exp(row[j]);
          CHECK(std::abs(at(sums) - total) <= near * magnitude);
          const double* top = std::max_element(row, row + n);
          CHECK(at(tops) == *top);
          CHECK(at(places) == static_cast<double>(top - row));
          for (std::int64_t j = 0; j < n; ++j) {
            const auto k = static_cast<std::size_t>(i * n + j);
            const double log_p = row[j] - std::log(norm);
            worst = std::max({worst, std::abs(p[k] - std::exp(log_p)), std::abs(l[k] - log_p) / (1 - log_p)});
            soft -= (0.9 * t[k] + 0.1 / static_cast<double>(n)) * log_p;
          }
          CHECK(worst <= near);
          hard -= row[static_cast<std::int64_t>(at(label))] - std::log(norm);
        }
        CHECK(cross_entropy(x, labels).item() == doctest::Approx(hard / static_cast<double>(rows)).epsilon(near));
        CHECK(cross_entropy(x, cast(target, dtype), {.label_smoothing = 0.1}).item() ==
              doctest::Approx(soft / static_cast<double>(rows)).epsilon(near));
      }
    }
}

TEST_CASE("values: a NaN anywhere in a row is its largest, and spoils its softmax, not its neighbors'") {
  for (const DType dtype : {f32, f64})
    for (const std::int64_t n : {3, 16, 40, 70}) {
      const Tensor plain = randn({3, n}, dtype);
      for (std::int64_t at = 0; at < n; ++at) {
        std::vector<double> v = plain.to_vector();
        v[static_cast<std::size_t>(n + at)] = NAN;
        const Tensor x = of_vector(v, {3, n}, dtype);
        const Tensor along = max(x, 1), across = max(transpose(x), 0);
        for (const Tensor& top : {along, across, sum(x, 1)}) {
          CHECK(std::isnan(top.to_vector()[1]));
          CHECK(!std::isnan(top.to_vector()[0] + top.to_vector()[2]));
        }
        CHECK(std::isnan(max(x).item()));
        for (const Tensor& y : {softmax(x), log_softmax(x)})
          for (std::int64_t j = 0; j < 3 * n; ++j)
            CHECK(std::isnan(y.to_vector()[static_cast<std::size_t>(j)]) == (j / n == 1));
        CHECK(std::isnan(cross_entropy(x, zeros({3}, i64)).item()));
        CHECK(argmax(x).to_vector()[1] == at);
        CHECK(argmax(transpose(x), 0).to_vector()[1] == at);
        v[static_cast<std::size_t>(2 * n - 1)] = NAN;  // of several the first
        CHECK(argmax(of_vector(v, {3, n}, dtype)).to_vector()[1] == at);
      }
    }
  const Tensor low = full({2, 70}, -INFINITY);
  CHECK(max(low, 1).to_vector() == std::vector<double>(2, -INFINITY));
  CHECK(argmax(low).to_vector() == std::vector<double>{0, 0});
  CHECK(argmax(zeros({2, 70}, i64)).to_vector() == std::vector<double>{0, 0});
}

TEST_CASE("values: comparison and choice of many elements, in every type, are those of C++") {
  const Threads restore;
  for (const int threads : {1, 3}) {
    set_threads(threads);
    for (const DType dtype : {f32, f64, u8, i64})
      for (const Shape& shape : {Shape{1}, Shape{7}, Shape{3, 45}, Shape{301, 257}}) {
        CAPTURE(name_of(dtype));
        CAPTURE(shape.str());
        const Tensor a = whole_numbers(shape, 4, dtype), b = whole_numbers({shape.at(-1)}, 4, dtype);
        const std::vector<double> va = a.to_vector(), vb = b.to_vector(), larger = greater(a, b).to_vector(),
                                  smaller = less(a, b).to_vector(), same = equal(a, b).to_vector(),
                                  above = greater(a, 1.5).to_vector();
        bool right = true;
        for (std::size_t i = 0; i < va.size(); ++i) {
          const double y = vb[i % vb.size()];
          right = right && larger[i] == (va[i] > y) && smaller[i] == (va[i] < y) && same[i] == (va[i] == y) &&
                  above[i] == (va[i] > 1.5);
        }
        CHECK(right);
      }
    for (const DType dtype : {f32, f64})
      for (const Shape& whole : {Shape{1}, Shape{3, 45}, Shape{301, 257}, Shape{2, 40001}}) {
        const std::int64_t n = whole.at(-1);
        const Shape column = whole.rank() == 2 ? Shape{whole[0], 1} : Shape{};
        for (const Shape& sc : {whole, Shape{n}, column, Shape{}})
          for (const Shape& sa : {whole, Shape{n}, column, Shape{}})
            for (const Shape& sb : {whole, Shape{n}, column, Shape{}}) {
              CAPTURE(sc.str());
              CAPTURE(sa.str());
              CAPTURE(sb.str());
              const Tensor c = whole_numbers(sc, 3, u8);  // 2 is as good as 1
              Tensor a = randn(sa, dtype), b = randn(sb, dtype);
              if (sa == whole && n > 1) a = a / where(greater(a, 2.0), zeros_like(a), ones_like(a));  // infinities
              const Tensor y = where(c, a, b);
              const auto all = [&](const Tensor& t) { return broadcast_to(cast(t, f64), y.shape()).to_vector(); };
              const std::vector<double> vc = all(c), va = all(a), vb = all(b), vy = y.to_vector();
              bool right = true;
              for (std::size_t i = 0; i < vy.size(); ++i) right = right && vy[i] == (vc[i] != 0 ? va[i] : vb[i]);
              CHECK(right);
            }
      }
  }
  for (const DType dtype : {f32, f64}) {
    const Tensor nan = full({37}, NAN, dtype), one = ones({37}, dtype);
    for (const Tensor& t : {greater(nan, one), less(nan, one), equal(nan, nan)})
      CHECK(t.to_vector() == std::vector<double>(37, 0));
    CHECK(where(ones({37}, u8), one, nan).to_vector() ==
          std::vector<double>(37, 1));  // what is not chosen does not show
    CHECK(std::isnan(where(zeros({37}, u8), one, nan).to_vector()[36]));
  }
}

TEST_CASE("values: losses are their formulas") {
  const Tensor x = literal({0.5, -1, 2, 0, 0.25, -0.5}, {2, 3}), t = literal({1, 0, 0.5, 0, 1, 0.25}, {2, 3});
  const std::vector<double> v = x.to_vector(), w = t.to_vector();
  double squares = 0, magnitudes = 0, binary = 0, entropy = 0;
  for (std::size_t i = 0; i < 6; ++i) {
    const double s = 1 / (1 + std::exp(-v[i]));
    squares += (v[i] - w[i]) * (v[i] - w[i]);
    magnitudes += std::abs(v[i] - w[i]);
    binary -= w[i] * std::log(s) + (1 - w[i]) * std::log(1 - s);
  }
  const std::size_t label[] = {2, 0};
  for (std::size_t i = 0; i < 2; ++i) {
    double norm = 0;
    for (std::size_t j = 0; j < 3; ++j) norm += std::exp(v[3 * i + j]);
    entropy += std::log(norm) - v[3 * i + label[i]];
  }
  CHECK(mse(x, t).item() == doctest::Approx(squares / 6).epsilon(1e-14));
  CHECK(mae(x, t).item() == doctest::Approx(magnitudes / 6).epsilon(1e-14));
  CHECK(bce_with_logits(x, t).item() == doctest::Approx(binary / 6).epsilon(1e-14));
  CHECK(cross_entropy(x, tensor({2, 0}, i64)).item() == doctest::Approx(entropy / 2).epsilon(1e-14));
  CHECK(cross_entropy_plain(x, tensor({2, 0}, i64)).item() == doctest::Approx(entropy / 2).epsilon(1e-14));
}

// Ops against independent loops and literals: elementwise, reductions, softmax.
#include <doctest/doctest.h>

#include <cmath>

#include "op_table.h"

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
      {"leaky_relu", [](const Tensor& x) { return leaky_relu(x); },
       [](double v) { return v > 0 ? v : 0.3 * v; }},
      {"clip", [](const Tensor& x) { return clip(x, -0.25, 0.5); },
       [](double v) { return std::min(0.5, std::max(-0.25, v)); }},
      {"affine", [](const Tensor& x) { return affine(x, 3, -1); }, [](double v) { return 3 * v - 1; }},
      {"log", [](const Tensor& x) { return log(abs(x)); }, [](double v) { return std::log(std::fabs(v)); }},
      {"sqrt", [](const Tensor& x) { return sqrt(abs(x)); },
       [](double v) { return std::sqrt(std::fabs(v)); }},
      {"pow", [](const Tensor& x) { return pow(x, 3.0); }, [](double v) { return v * v * v; }},
      {"2 / x", [](const Tensor& x) { return 2 / x; }, [](double v) { return 2 / v; }},
      {"x / 4 - 1", [](const Tensor& x) { return x / 4 - 1; }, [](double v) { return v / 4 - 1; }},
      {"1 - 2 * (x + 3)", [](const Tensor& x) { return 1 - 2 * (x + 3); },
       [](double v) { return 1 - 2 * (v + 3); }},
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
          if (!(mask >> i & 1))
            sizes.push_back(shape[i]);
          else if (keep)
            sizes.push_back(1);
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
  CHECK(sum(full({10'000'000}, 0.1)).item() ==
        doctest::Approx(10'000'000 * static_cast<double>(0.1f)).epsilon(1e-5));
  CHECK(mean(full({3'000'000, 2}, 0.1), 0).to_vector()[1] ==
        doctest::Approx(static_cast<double>(0.1f)).epsilon(1e-4));
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

// Forward mode against two reverse passes, for every row of the op table; promises of ops, kept and broken.
#include <doctest/doctest.h>

#include <cmath>

#include <ebb/autograd/forward.h>
#include <ebb/autograd/gradcheck.h>
#include <ebb/autograd/jacobian.h>
#include <ebb/autograd/tools.h>
#include <ebb/autograd/vmap.h>
#include <ebb/graph/apply.h>
#include <ebb/graph/error.h>
#include <ebb/graph/mode.h>
#include <ebb/graph/observe.h>

#include "op_table.h"

using namespace ebb;
using namespace ebb::testing;

namespace {

using Tensors = std::vector<Tensor>;

/// J t by the definition: the gradient of <J^T u, t> in u, of tracked inputs, recorded.
Tensor two_passes(const Function& f, In xs, In ts) {
  const Tensor y = f(xs);
  if (!y.tracked()) return zeros_like(y);
  const Tensor u = variable(zeros_like(y.detach()));
  Tensor total = scalar(0, y.dtype());
  const Tensors g = grad(y, xs, {.create_graph = true, .allow_unused = true, .cotangent = u});
  for (std::size_t i = 0; i < g.size(); ++i)
    if (g[i].defined() && g[i].tracked()) total = total + cast(sum(g[i] * ts[i]), y.dtype());
  if (!total.tracked()) return zeros_like(y.detach());
  const Tensor out = grad(total, {u}, {.create_graph = true, .allow_unused = true})[0];
  return out.defined() ? out : zeros_like(y.detach());
}

Tensors like(In xs, std::uint64_t seed) {
  Generator random(seed);
  Tensors out;
  for (const Tensor& x : xs) out.push_back(uniform(x.shape(), -1, 1, x.dtype(), random));
  return out;
}

/// Gradients of <w, y> in all of the inputs, zeros where there is none.
Tensors slopes(const Tensor& y, In xs) {
  Tensors out(xs.size());
  if (y.tracked()) out = grad(y, xs, {.allow_unused = true, .cotangent = like({&y, 1}, 5)[0]});
  for (std::size_t i = 0; i < xs.size(); ++i)
    if (!out[i].defined()) out[i] = zeros_like(xs[i].detach());
  return out;
}

/// Counts the ops that run, all or those of a name.
struct Count : Observer {
  std::string only;
  int ops = 0;
  explicit Count(std::string name = {}) : only(std::move(name)) {}
  void ran(const OpEvent& e) override { ops += only.empty() || e.op == only; }
};

}  // namespace

TEST_CASE("jvp: every row of the op table goes forward as two reverse passes say: values, their slopes, nested") {
  for (const Row& row : rows()) {
    std::size_t number = 0;
    for (const Case& c : row.cases) {
      INFO(row.name << ", case " << number++);
      const Function& f = row.function(c);
      const Tensors x = inputs_for(row, c), t = like(x, 7), s = like(x, 8);
      const Tensor forward = jvp(f, x, t);
      CHECK_FALSE(forward.tracked());
      CHECK(distance(forward, two_passes(f, variables(x), t)) < 1e-13);
      Tensors mixed;  // linear in the tangent
      for (std::size_t i = 0; i < x.size(); ++i) mixed.push_back(2 * t[i] - s[i]);
      CHECK(distance(jvp(f, x, mixed), 2 * forward - jvp(f, x, s)) < 1e-13);
      for (std::size_t i = 0; i < x.size(); ++i) {  // one input moves, the others are constants
        Tensors alone(x.begin(), x.end());
        const auto g = [&](const Tensor& v) { return alone[i] = v, f(alone); };
        alone[i] = variable(x[i]);
        if (!f(alone).tracked()) continue;
        CHECK(distance(jvp(g, x[i], t[i]),
                       two_passes([&](In in) { return g(in[0]); }, variables({&x[i], 1}), {&t[i], 1})) < 1e-13);
      }
      if (row.order < 2) continue;
      // recorded, in the inputs and in the tangents
      Tensors all = variables(x), moves = variables(t);
      const Tensor a = jvp(f, all, moves), b = two_passes(f, all, moves);
      all.insert(all.end(), moves.begin(), moves.end());
      const Tensors ga = slopes(a, all), gb = slopes(b, all);
      for (std::size_t i = 0; i < all.size(); ++i) {
        CAPTURE(i);
        CHECK(distance(ga[i], gb[i]) < 1e-12);
      }
      // forward over forward
      CHECK(distance(jvp([&](In in) { return jvp(f, in, t); }, x, s),
                     two_passes([&](In in) { return two_passes(f, in, t); }, variables(x), s)) < 1e-12);
    }
  }
}

TEST_CASE("jvp: many samples at once, for every row of the op table") {
  for (const Row& row : rows()) {
    if (row.name == "dropout") continue;  // a mask for each sample, of one generator
    std::size_t number = 0;
    for (const Case& c : row.cases) {
      INFO(row.name << ", case " << number++);
      const Function& f = row.function(c);
      Tensors in;
      const Tensors x1 = inputs_for(row, c, 1), x2 = inputs_for(row, c, 2), t1 = like(x1, 7), t2 = like(x2, 8);
      for (std::size_t i = 0; i < x1.size(); ++i) in.push_back(stack(Tensors{x1[i], x2[i]}));
      for (std::size_t i = 0; i < x1.size(); ++i) in.push_back(stack(Tensors{t1[i], t2[i]}));
      const auto of_sample = [&](In s) { return jvp(f, s.first(s.size() / 2), s.last(s.size() / 2)); };
      Tensor got;
      try {
        got = vmap(MultiFunction(of_sample), in, {.may_loop = false});
      } catch (const Error& e) {
        FAIL_CHECK(e.what());
        continue;
      }
      CHECK(distance(got, stack(Tensors{jvp(f, x1, t1), jvp(f, x2, t2)})) < 1e-12);
      // the points are the same for all, the tangents are not
      const Tensors tangents(in.begin() + static_cast<std::ptrdiff_t>(x1.size()), in.end());
      CHECK(distance(vmap(MultiFunction([&](In s) { return jvp(f, x1, s); }), tangents),
                     stack(Tensors{jvp(f, x1, t1), jvp(f, x1, t2)})) < 1e-12);
    }
  }
}

TEST_CASE("jvp: one pass over the ops, as many as there are, of a dense layer one product for each side that moves") {
  const auto ops_of = [](int depth) {
    const UnaryFunction f = [depth](const Tensor& t) {
      Tensor y = t;
      for (int i = 0; i < depth; ++i) y = log_softmax(y);  // by its backward
      return y;
    };
    const Tensor x = randn({3, 4}, f64);
    const Count seen;
    (void)jvp(f, x, x);
    return seen.ops;
  };
  CHECK(ops_of(40) - ops_of(20) == ops_of(20) - ops_of(0));
  const Tensor w = randn({6, 5}, f64), b = randn({5}, f64), x = randn({4, 6}, f64);
  const auto products = [](const auto& f) {
    const Count seen("matmul");
    f();
    return seen.ops;
  };
  CHECK(products([&] { (void)jvp([&](const Tensor& t) { return linear(t, w, b, relu); }, x, x); }) == 1);
  const Tensors all{x, w, b};
  CHECK(products([&] { (void)jvp([](In in) { return linear(in[0], in[1], in[2], tanh); }, all, all); }) == 2);
}

TEST_CASE("jvp: inputs that depend on one another, are given back, or do not count, hooks and checkpoints") {
  const Tensor x = tensor({0.5, 1.5}, f64), v = tensor({2, -1}, f64);
  CHECK(same_bits(jvp([](const Tensor& t) { return t; }, x, v), v));
  CHECK(same_bits(jvp([&](const Tensor&) { return x; }, x, v), zeros_like(x)));
  CHECK(same_bits(jvp([](const Tensor& t) { return stop_gradient(t) * 2; }, x, v), zeros_like(x)));
  const Tensors two{x, x}, moves{v, zeros_like(v)};
  CHECK(distance(jvp([](In in) { return in[0] * in[1]; }, two, moves), v * x) == 0);
  const Tensor a = variable(x), b = square(a);  // b moves as it is told, not as a does
  const Tensors chained{a, b};
  const Tensor along = jvp([](In in) { return in[0] * in[1]; }, chained, moves);
  CHECK(distance(along, v * square(x)) < 1e-15);
  CHECK(distance(grad(sum(along), a), v * 2 * x) < 1e-15);
  CHECK(distance(jvp([](const Tensor& t) { return checkpoint([](const Tensor& u) { return sin(u) * u; }, square(t)); },
                     x, v),
                 jvp([](const Tensor& t) { return sin(square(t)) * square(t); }, x, v)) < 1e-15);
  const UnaryFunction halved = [](const Tensor& t) {
    return on_gradient(square(t), [](const Tensor& g) { return 0.5 * g; });
  };
  CHECK(distance(jvp(halved, x, v), x * v) < 1e-15);  // the Jacobian that backward knows
  CHECK(jvp([](const Tensor& t) { return cast(cast(t, f32) * cast(t, f32), f64); }, x, v).to_vector() ==
        std::vector<double>{2, -3});
  // f may take gradients itself
  CHECK(distance(jvp([](const Tensor& t) { return grad(sum(sin(t)), t, {.create_graph = true}); }, x, v), -sin(x) * v) <
        1e-15);
}

namespace {

/// x^3 (and x alone, added up), with what it promises.
template <Tangent promise>
struct Cube {
  static constexpr std::string_view name = "cube";
  static constexpr Keeps keeps = Keeps::inputs;
  static constexpr Tangent tangents = promise;
  Tensor forward(const Tensor& x) const { return x * x * x; }
  Tensor backward(const Saved& s, const Tensor& g) const { return 3 * g * square(s.input(0)); }
};

/// Not a word about forward mode; state that forward leaves; two inputs that share work.
struct Plain {
  static constexpr std::string_view name = "plain";
  static constexpr Keeps keeps = Keeps::inputs;
  static constexpr bool broadcasts = true;
  Tensor twice = {};
  Tensor forward(const Tensor& a, const Tensor& b) { return twice = 2 * b, sin(a) * twice; }
  Tensors backward(const Saved& s, const Tensor& g) const {
    return {g * cos(s.input(0)) * (2 * s.input(1)), s.wants(1) ? 2 * g * sin(s.input(0)) : Tensor()};
  }
};

/// Each row times a number of its own, the sum of b's row: the rule adds up itself, so that symmetric is only half the
/// truth.
struct Summed {
  static constexpr std::string_view name = "summed";
  static constexpr Keeps keeps = Keeps::inputs;
  static constexpr bool broadcasts = true;
  static constexpr Tangent tangents = Tangent::symmetric;
  Tensor forward(const Tensor& a, const Tensor& b) const { return a * b; }
  Tensor backward(const Saved& s, const Tensor& g, int i) const {
    return i == 0 ? g * s.input(1) : sum(g * s.input(0), 1, {.keepdims = true});
  }
};

template <Tangent promise>
struct Product {
  static constexpr std::string_view name = "product";
  static constexpr Keeps keeps = Keeps::other_inputs;
  static constexpr Tangent tangents = promise;
  Tensor forward(In x) const { return x[0] * x[1]; }
  Tensor backward(const Saved& s, const Tensor& g, int i) const { return g * s.input(1 - i); }
};

/// Right forward and backward, by loops.
struct Doubled {
  static constexpr std::string_view name = "doubled";
  Tensor forward(const Tensor& x) const { return twice(x); }
  Tensor backward(const Saved&, const Tensor& g) const { return twice(g); }
  static Tensor twice(const Tensor& x) {
    Tensor y = x.clone();
    for (double& v : y.mutable_values<double>()) v *= 2;
    return y;
  }
};

/// A rule of its own, which forgets a factor when asked.
struct Own {
  static constexpr std::string_view name = "own";
  static constexpr Keeps keeps = Keeps::inputs;
  double factor = 1;
  Tensor forward(const Tensor& x) const { return square(x); }
  Tensor backward(const Saved& s, const Tensor& g) const { return 2 * g * s.input(0); }
  Tensor tangent(const Saved& s, In t) const { return t[0] * s.input(0) * (2 * factor); }
};

/// An orthogonal map: its transpose is its inverse, not itself.
struct Turned {
  static constexpr std::string_view name = "turned";
  static constexpr Tangent tangents = Tangent::symmetric;
  Tensor forward(const Tensor& t) const { return concat({slice(t, {.begin = 1}), slice(t, {.end = 1})}); }
  Tensor backward(const Saved&, const Tensor& g) const {
    return concat({slice(g, {.begin = -1}), slice(g, {.end = -1})});
  }
};

}  // namespace

TEST_CASE("jvp: ops of a user's own, with and without a promise") {
  const Tensor x = tensor({0.5, -1.5, 2}, f64), v = tensor({2, -1, 0.5}, f64), row = tensor({0.3, 0.7}, {2, 1}, f64);
  CHECK(distance(jvp([](const Tensor& t) { return ebb::apply(Cube<Tangent::by_backward>{}, t); }, x, v),
                 3 * square(x) * v) < 1e-15);
  CHECK(distance(jvp([](const Tensor& t) { return ebb::apply(Cube<Tangent::symmetric>{}, t); }, x, v),
                 3 * square(x) * v) < 1e-15);
  CHECK(distance(jvp([](const Tensor& t) { return ebb::apply(Own{}, t); }, x, v), 2 * x * v) < 1e-15);
  const Tensors in{x, row}, moves{v, row};
  CHECK(distance(jvp([](In t) { return ebb::apply(Plain{}, t[0], t[1]); }, in, moves),
                 jvp([](In t) { return sin(t[0]) * (2 * t[1]); }, in, moves)) < 1e-15);
  const Tensor matrix = randn({2, 3}, f64);
  const Tensors summed{matrix, row}, along{randn({2, 3}, f64), row};
  CHECK(distance(jvp([](In t) { return ebb::apply(Summed{}, t[0], t[1]); }, summed, along),
                 jvp([](In t) { return t[0] * t[1]; }, summed, along)) < 1e-15);
  const Tensors pair{x, v}, moved{v, x};
  CHECK(distance(jvp([](In t) { return ebb::apply(Product<Tangent::multilinear>{}, t); }, pair, moved),
                 square(v) + square(x)) < 1e-15);
  for (const int order : {1, 2}) {
    CHECK(gradcheck([](auto& t) { return ebb::apply(Cube<Tangent::symmetric>{}, t); }, {x}, {.order = order}));
    CHECK(gradcheck([](auto& t) { return ebb::apply(Own{}, t); }, {x}, {.order = order}));
    CHECK(gradcheck([](auto& a, auto& b) { return ebb::apply(Plain{}, a, b); }, {x, row}, {.order = order}));
    CHECK(gradcheck(
        [](auto& a, auto& b) {
          return ebb::apply(Product<Tangent::multilinear>{}, Tensors{a, b});
        },
        {x, v}, {.order = order}));
  }
  CHECK(gradcheck([](auto& t) { return ebb::apply(Doubled{}, t); }, {x}, {.order = 1}));
  CHECK_THROWS_WITH_AS(jvp([](const Tensor& t) { return ebb::apply(Doubled{}, t); }, x, v),
                       "doubled: backward computes its gradient outside of ops, so that no tangent follows from it: "
                       "write it in ops, or say how tangents go (Tangent)",
                       GradientError);
  CHECK_THROWS_AS(jvp(
                      [](const Tensor& t) {
                        const Tensor y = exp(t);
                        return backward(sum(y)), y;
                      },
                      x, v),
                  GradientError);  // what y keeps was freed
}

TEST_CASE("gradcheck at order 2 finds a promise about forward mode that is not kept") {
  const Tensor x = tensor({0.5, -1.5, 2}, f64), y = tensor({2, -1, 0.5}, f64);
  const auto broken = [](const GradcheckReport& r) {
    CHECK_FALSE(r);
    CAPTURE(r.str());
    CHECK(r.str().find("gradcheck FAILED: forward mode (jvp) gives ") == 0);
    CHECK(r.str().find(": an op promises too much (Tangent)") != std::string::npos);
  };
  broken(gradcheck([](auto& t) { return ebb::apply(Cube<Tangent::linear>{}, t); }, {x}, {.order = 2}));
  broken(gradcheck([](auto& t) { return ebb::apply(Cube<Tangent::multilinear>{}, t); }, {x}, {.order = 2}));
  broken(gradcheck(
      [](auto& a, auto& b) {
        return ebb::apply(Product<Tangent::linear>{}, Tensors{a, b});
      },
      {x, y}, {.order = 2}));
  broken(gradcheck([](auto& t) { return ebb::apply(Own{1.001}, t); }, {x}, {.order = 2}));
  broken(gradcheck([](auto& t) { return ebb::apply(Turned{}, t); }, {x}, {.order = 2}));
}

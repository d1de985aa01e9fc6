// Many samples at once against one after another, for every row of the op table: values, gradients and second
// derivatives; and that no op falls back to a loop.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include <ebb/autograd/tools.h>
#include <ebb/autograd/vmap.h>
#include <ebb/graph/apply.h>
#include <ebb/graph/error.h>
#include <ebb/graph/mode.h>

#include "op_table.h"

using namespace ebb;
using namespace ebb::testing;

namespace {

constexpr std::int64_t samples = 3;

using Tensors = std::vector<Tensor>;

/// The definition.
Tensors looped(const ManyFunction& f, In inputs) {
  std::vector<Tensors> results;
  for (std::int64_t i = 0; i < samples; ++i) {
    Tensors sample;
    for (const Tensor& x : inputs) sample.push_back(x.rows(i, i + 1).viewed_as(x.shape().without(0)).clone());
    const Tensors out = f(sample);
    results.resize(out.size());
    for (std::size_t k = 0; k < out.size(); ++k) results[k].push_back(out[k].detach());
  }
  Tensors stacked;
  for (const Tensors& r : results) stacked.push_back(stack(r));
  return stacked;
}

void same_as_loop(const ManyFunction& f, In inputs, bool may_loop = false) {
  const Tensors expected = looped(f, inputs);
  Tensors got;
  try {
    got = vmap(f, inputs, {.may_loop = may_loop});
  } catch (const Error& e) {
    FAIL_CHECK(e.what());
    return;
  }
  REQUIRE(got.size() == expected.size());
  for (std::size_t k = 0; k < got.size(); ++k) {
    CAPTURE(k);
    CHECK(got[k].dtype() == expected[k].dtype());
    CHECK(distance(got[k], expected[k]) < 1e-12);
  }
}

/// Samples of a case's inputs, each drawn with another seed.
Tensors samples_of(const Row& row, const Case& c) {
  std::vector<Tensors> drawn;
  for (std::int64_t i = 0; i < samples; ++i) {
    const Tensors x = inputs_for(row, c, static_cast<std::uint64_t>(i + 1));
    drawn.resize(x.size());
    for (std::size_t k = 0; k < x.size(); ++k) drawn[k].push_back(x[k]);
  }
  Tensors out;
  for (const Tensors& d : drawn) out.push_back(stack(d));
  return out;
}

/// f of some inputs, the others held at their first sample: what is captured is the same for all.
struct Some {
  const Function& f;
  Tensors all;
  unsigned mapped;
  Tensors operator()(In given) const {
    Tensors x = all;
    std::size_t next = 0;
    for (std::size_t k = 0; k < x.size(); ++k)
      if (mapped >> k & 1) x[k] = given[next++];
    return x;
  }
  Tensors mapped_of(In stacked) const {
    Tensors out;
    for (std::size_t k = 0; k < stacked.size(); ++k)
      if (mapped >> k & 1) out.push_back(stacked[k]);
    return out;
  }
};

/// The gradients of <weights, f> for all inputs, and those of their own sum of squares.
Tensors derivatives(const Function& f, In inputs, int order, bool weigh_inputs) {
  const Tensors x = variables(inputs);
  const Tensor y = f(x);
  Generator random(11);
  const Tensor weights = uniform(y.shape(), -1, 1, y.dtype(), random);
  const Tensor u =
      weigh_inputs ? weights * (1 + sum(square(inputs[0].detach()))) : weights;  // batched, or the same for all
  Tensors first = grad(y, x, {.create_graph = order > 1, .allow_unused = true, .cotangent = u}), out;
  Tensor total;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (!first[i].defined()) first[i] = zeros_like(x[i].detach());
    out.push_back(first[i].detach());
    if (order > 1 && first[i].tracked())
      total = total.defined() ? total + sum(square(first[i])) : sum(square(first[i]));
  }
  if (!total.defined()) return out;
  const Tensors second = grad(total, x, {.allow_unused = true});
  for (std::size_t i = 0; i < x.size(); ++i) out.push_back(second[i].defined() ? second[i] : zeros_like(x[i].detach()));
  return out;
}

}  // namespace

TEST_CASE(
    "vmap: every row of the op table gives what a loop gives, with no op in a loop, whichever inputs are batched") {
  for (const Row& row : rows())
    for (const Case& c : row.cases) {
      if (row.name == "dropout") continue;  // draws for each sample: below
      CAPTURE(row.name);
      const Tensors stacked = samples_of(row, c);
      const Function& f = row.function(c);
      const auto all = static_cast<unsigned>((1u << stacked.size()) - 1);
      for (unsigned mapped = 1; mapped <= all; ++mapped) {
        if (stacked.size() > 3 && mapped != all && mapped != 1) continue;
        CAPTURE(mapped);
        const Some some{f, inputs_for(row, c), mapped};
        const Tensors in = some.mapped_of(stacked);
        same_as_loop([&](In x) { return Tensors{f(some(x))}; }, in);
        if (row.order < 1) continue;
        for (const bool weigh : {false, true})
          same_as_loop([&](In x) { return derivatives(f, some(x), row.order, weigh); }, in);
      }
    }
}

TEST_CASE("vmap: ops without a gradient, labels and indices that differ between samples") {
  const Tensor x = randn({samples, 4, 5}, f64),
               labels = tensor({0, 4, 2, 1, 1, 3, 4, 4, 0, 2, 0, 1}, {samples, 4}, i64), table = randn({6, 3}, f64);
  const Tensors both{x, labels};
  same_as_loop(
      [](In s) {
        return Tensors{argmax(s[0]),      argmax(s[0], 0), greater(s[0], 0.0),
                       equal(s[0], s[0]), less(s[0], 0.5), cast(s[0], f32)};
      },
      {&x, 1});
  same_as_loop(
      [](In s) {
        const Tensor e = variable(s[0]);
        const Tensor loss =
            cross_entropy(e, s[1]) + cross_entropy(e, cast(s[1], u8), {.label_smoothing = 0.1}) + sum(pick(e, s[1]));
        return Tensors{one_hot(s[1], 5, f64),
                       pick(s[0], s[1]),
                       place(sum(s[0], 1), s[1], 7),
                       gather(s[0], cast(greater(s[1], 2.0), i64)),
                       backward(loss)[e],
                       loss.detach()};
      },
      both);
  same_as_loop(
      [&](In s) {
        return Tensors{gather(table, s[0]), scatter_rows(ones({4, 2}, f64), s[0], 5)};
      },
      {&labels, 1});
  const Tensor far = full({samples, 2}, 9, i64);
  CHECK_THROWS_WITH_AS(vmap([&](const Tensor& i) { return gather(table, i); }, far),
                       "gather: index 9 is outside of [0, 6)", ValueError);
}

TEST_CASE("vmap: the derivatives of each sample, within one another, of what f captures") {
  const Tensor x = randn({samples, 4}, f64), w = variable(randn({4, 4}, f64));
  const UnaryFunction energy = [&](const Tensor& t) { return sum(sin(matmul(reshape(t, {1, 4}), w)) * t); };
  same_as_loop(
      [&](In s) {
        return Tensors{hessian(energy, s[0]), jacobian([&](const Tensor& t) { return exp(t) * sum(t); }, s[0]),
                       hvp(energy, s[0], ones({4}, f64)), jvp([](const Tensor& t) { return softmax(t); }, s[0], s[0])};
      },
      {&x, 1});
  same_as_loop([&](In s) { return Tensors{backward(energy(s[0]))[w]}; }, {&x, 1});  // (samples, 4, 4)
  same_as_loop(
      [&](In s) {
        return Tensors{vmap([](const Tensor& row) { return exp(row) / sum(row); }, reshape(s[0], {2, 2}))};
      },
      {&x, 1}, true);
  same_as_loop([&](In) { return Tensors{matmul(w, w)}; }, {&x, 1});  // nothing of the sample
  // recorded: within another derivative, and on request
  const Tensor v = variable(ones({4}, f64));
  const Tensor total = sum(vmap([&](const Tensor& t) { return t * v * v; }, x, {.create_graph = true}));
  CHECK(distance(grad(total, v), 2 * sum(x, 0)) < 1e-14);
  CHECK_FALSE(vmap([&](const Tensor& t) { return t * v; }, x).tracked());
  CHECK(distance(jacobian([&](const Tensor& t) { return sum(vmap([](const Tensor& s) { return square(s); }, t)); }, x),
                 2 * x) < 1e-14);
  CHECK(distance(jacobian([&](const Tensor& t) { return sum(vmap([&](const Tensor& s) { return s * t; }, x), 0); },
                          ones({4}, f64))
                     .viewed_as({4, 4}),
                 sum(x, 0) * tensor({1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}, {4, 4}, f64)) < 1e-14);
}

namespace {

/// Without a word about batches: const forward, so it runs for each.
struct Cube {
  static constexpr std::string_view name = "cube";
  static constexpr Keeps keeps = Keeps::inputs;
  Tensor forward(const Tensor& x) const {
    Tensor y = x.clone();
    for (double& v : y.mutable_values<double>()) v = v * v * v;
    return y;
  }
  Tensor backward(const Saved& s, const Tensor& g) const { return 3 * g * square(s.input(0)); }
};

/// Keeps in forward what backward reads: no loop over forward can record that.
struct Remembers {
  static constexpr std::string_view name = "remembers";
  Tensor slope = {};
  Tensor forward(const Tensor& x) { return slope = 2 * x, square(x); }
  Tensor backward(const Saved&, const Tensor& g) const { return g * slope; }
};

/// Captures a tensor: where that one is of the batch, the op cannot run for each.
struct Scaled {
  static constexpr std::string_view name = "scaled";
  static constexpr bool broadcasts = true;
  Tensor by;
  Tensor forward(const Tensor& x) const { return x * by; }
  Tensor backward(const Saved&, const Tensor& g) const { return g * by; }
};

}  // namespace

TEST_CASE("vmap: ops of a user's own run for each sample, and in a loop where they cannot, may_loop refuses it") {
  const Tensor x = randn({samples, 4}, f64);
  const auto gradient_of = [](auto op) {
    return ManyFunction([op](In s) {
      const Tensor t = variable(s[0]), y = apply(op, t);
      return Tensors{y.detach(), backward(sum(y * y))[t]};
    });
  };
  same_as_loop(gradient_of(Cube{}), {&x, 1});
  same_as_loop(gradient_of(Remembers{}), {&x, 1}, true);
  const ManyFunction captured = [](In s) { return Tensors{apply(Scaled{s[0]}, s[0])}; };
  same_as_loop(captured, {&x, 1}, true);
  CHECK_THROWS_WITH_AS(vmap(captured, {&x, 1}, {.may_loop = false}),
                       "tensor: (4,) stands for 3 tensors within vmap() or jacobian(): no single value can be read",
                       ValueError);
  CHECK_THROWS_WITH_AS(vmap(gradient_of(Remembers{}), {&x, 1}, {.may_loop = false}),
                       "remembers: forward changes the op, so it cannot run once for each of a batch", ValueError);
  int calls = 0;
  const ManyFunction chooses = [&](In s) {  // by a value
    ++calls;
    return Tensors{s[0].to_vector()[0] > 0 ? s[0] : -s[0]};
  };
  same_as_loop(chooses, {&x, 1}, true);
  CHECK(calls == samples + 1 + samples);  // the definition; once at once, in vain; and the loop
  Tensor leaked;
  const Tensor y = vmap([&](const Tensor& t) { return leaked = t * 2, t; }, x);
  CHECK_THROWS_WITH_AS(leaked.to_vector(),
                       "tensor: (4,) stands for 3 tensors within vmap() or jacobian(): no single value can be read",
                       ValueError);
  CHECK_THROWS_AS(exp(leaked), ValueError);
  // in another one, of as many samples or of others: as an op's input, held by one, and as it is; in jacobian() too
  const std::string refused =
      "(4,) stands for 3 tensors of another vmap() or jacobian(): only what f returns leaves one";
  const VmapOptions once{.may_loop = false};
  const Tensor mask = [&] {
    Tensor out;
    (void)vmap([&](const Tensor& t) { return out = greater(t, 0.0), t; }, x);
    return out;
  }();
  for (const Tensor& again : {x, randn({5, 4}, f64)}) {
    CHECK_THROWS_WITH_AS(vmap([&](const Tensor& t) { return leaked * t; }, again, once), ("mul: " + refused).c_str(),
                         ValueError);
    CHECK_THROWS_WITH_AS(vmap([&](const Tensor&) { return leaked; }, again, once), ("vmap: " + refused).c_str(),
                         ValueError);
    CHECK_THROWS_WITH_AS(vmap([&](const Tensor& t) { return where(mask, t, -t); }, again, once),
                         ("where: " + refused).c_str(), ValueError);
    CHECK_THROWS_AS(vmap([&](const Tensor& t) { return leaked * t; }, again), ValueError);
    CHECK_THROWS_AS(vmap([&](const Tensor&) { return leaked; }, again), ValueError);
  }
  CHECK_THROWS_AS(
      jacobian([&](const Tensor& t) { return on_gradient(t * t, [&](const Tensor& g) { return g * leaked; }); },
               ones({4}, f64)),
      ValueError);
  CHECK(same_bits(y, x));
}

TEST_CASE("vmap: checkpoints, hooks, dropout, and what is refused") {
  const Tensor x = randn({samples, 4}, f64), w = variable(randn({4, 4}, f64));
  same_as_loop(
      [&](In s) {
        const Tensor t = variable(s[0]);
        const Tensor y = checkpoint(
            [&](const Tensor& u) {
              return tanh(matmul(reshape(u, {1, 4}), w));
            },
            on_gradient(t, [](const Tensor& g) { return 2 * g; }));
        const Gradients g = backward(sum(square(y)));
        return Tensors{g[t], g[w]};
      },
      {&x, 1});
  // a mask for each sample, the same one when a checkpoint runs again
  manual_seed(1);
  const Tensor many = ones({64, 100}, f64);
  const auto masked = [](In s) {
    const Tensor t = variable(s[0]), y = checkpoint([](const Tensor& u) { return dropout(u, 0.5); }, t);
    return Tensors{y.detach(), backward(sum(y))[t]};
  };
  const Tensors out = vmap(masked, {&many, 1}, {.may_loop = false});
  CHECK(same_bits(out[0], out[1]));
  CHECK_FALSE(same_bits(out[0].rows(0, 1), out[0].rows(1, 2)));
  CHECK(std::abs(mean(out[0]).item() - 1) < 0.05);
  // jacobian() takes the mask that was drawn, for all of its passes
  const Tensor j = jacobian(
      [](const Tensor& t) { return checkpoint([](const Tensor& u) { return dropout(u, 0.5); }, t); }, ones({50}, f64));
  CHECK(sum(j).item() == doctest::Approx(2 * sum(cast(greater(j, 0.0), f64)).item()));
  CHECK_THROWS_WITH_AS(vmap([](const Tensor& t) { return t; }, scalar(1)),
                       "vmap: input 0, float32 (), has no samples: its first axis must be one of at least 1",
                       ShapeError);
  CHECK_THROWS_WITH_AS(vmap([](In s) { return s[0]; }, Tensors{ones({2}), ones({3})}),
                       "vmap: inputs need a first axis of one size: got float32 (2,) and float32 (3,)", ShapeError);
  CHECK_THROWS_WITH_AS(vmap([](In s) { return s[0]; }, Tensors{ones({2}), ones({0, 3})}),
                       "vmap: input 1, float32 (0, 3), has no samples: its first axis must be one of at least 1",
                       ShapeError);
  CHECK_THROWS_WITH_AS(vmap([](In s) { return s[0]; }, Tensors{ones({2}), Tensor()}), "vmap: input 1 is undefined",
                       ValueError);
  // a slice is a constant, as in a loop
  CHECK_THROWS_WITH_AS(vmap([](const Tensor& t) { return grad(sum(sin(t)), t); }, x),
                       "grad: float64 () does not depend on any variable; was it computed under NoGrad, or of "
                       "constants? variable(x) makes one",
                       GradientError);
  CHECK_THROWS_WITH_AS(vmap([](In) { return scalar(1); }, Tensors{}), "vmap: needs an input", ValueError);
  CHECK_THROWS_WITH_AS(vmap([](const Tensor&) { return Tensor(); }, x), "vmap: f gave an undefined tensor", ValueError);
  CHECK_THROWS_WITH_AS(vmap(ManyFunction([](In s) {
                              return Tensors{s[0], Tensor()};
                            }),
                            {&x, 1}),
                       "vmap: f gave an undefined tensor", ValueError);
}

TEST_CASE("vmap: infinite and missing logits") {
  const double inf = std::numeric_limits<double>::infinity();
  const Tensor x = tensor({-inf, 0, 0, 1, 2, 3, inf, 0, 1}, {samples, 3}, f64);
  const ManyFunction f = [](In s) {
    const Tensor t = variable(s[0]), row = reshape(t, {1, 3});
    const Gradients g = backward(logsumexp(t) + cross_entropy(row, tensor({1}, i64)));
    return Tensors{logsumexp(s[0]), g[t]};
  };
  const Tensors expected = looped(f, {&x, 1}), got = vmap(f, {&x, 1}, {.may_loop = false});
  for (std::size_t k = 0; k < got.size(); ++k)
    for (std::size_t i = 0; i < got[k].to_vector().size(); ++i) {
      const double a = got[k].to_vector()[i], b = expected[k].to_vector()[i];
      CHECK((a == b || std::abs(a - b) < 1e-15 || (std::isnan(a) && std::isnan(b))));
    }
}

#include <ebb/autograd/jacobian.h>

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include <ebb/autograd/backward.h>
#include <ebb/autograd/forward.h>
#include <ebb/autograd/tools.h>
#include <ebb/graph/batch.h>
#include <ebb/graph/error.h>
#include <ebb/graph/given.h>
#include <ebb/graph/mode.h>
#include <ebb/ops/ops.h>

namespace ebb {
namespace {

thread_local int nested = 0;  // functions of this file that run now

/// While one lives, ops are recorded, and layers behave as they did before. It knows whether the result is to be
/// recorded too: within another such function always, since that one may differentiate in what f captures.
class Derivative {
 public:
  Derivative(std::span<const Tensor> inputs, DerivativeOptions options)
      : training_(training()),
        record_(std::exchange(detail::mode.record, true)),
        graph_(record_ && (options.create_graph || nested > 0)) {
    for (const Tensor& x : inputs) graph_ |= record_ && x.tracked();
    ++nested;
    for (const Tensor& x : inputs) xs_.push_back(graph_ && x.tracked() ? detail::separate(x) : variable(x.detach()));
  }
  ~Derivative() {
    detail::mode.record = record_;
    --nested;
  }
  Derivative(const Derivative&) = delete;
  Derivative& operator=(const Derivative&) = delete;

  bool graph() const { return graph_; }
  std::span<const Tensor> xs() const { return xs_; }  ///< the inputs as f gets them
  Tensor of(const Tensor& t) const { return graph_ ? t : t.detach(); }

  /// f of them. Throws ValueError when that is undefined.
  Tensor value(const MultiFunction& f) const {
    Tensor y = f(xs_);
    if (!y.defined()) fail<ValueError>("f", "gave an undefined tensor: there is nothing to differentiate");
    return y;
  }
  /// Gradients of <cotangent, y> for the xs, zeros where there is none.
  std::vector<Tensor> gradients(const Tensor& y, const Tensor& cotangent, bool graph) const {
    std::vector<Tensor> out(xs_.size());
    if (y.tracked())
      out = grad(y, xs_, {.retain_graph = true, .create_graph = graph, .allow_unused = true, .cotangent = cotangent});
    for (std::size_t i = 0; i < xs_.size(); ++i)
      if (!out[i].defined()) out[i] = zeros_like(xs_[i].detach());
    return out;
  }

 private:
  Training training_;
  bool record_, graph_;
  std::vector<Tensor> xs_;
};

void expect_like(const char* op, const Tensor& v, const Tensor& x, const char* what) {
  if (v.shape() != x.shape() || v.dtype() != x.dtype())
    fail<ShapeError>(op, fmt::format("the {} {} does not fit {}", what, describe(v), describe(x)));
}

void expect_each_like(const char* op, std::span<const Tensor> vs, std::span<const Tensor> xs, const char* what) {
  if (vs.size() != xs.size()) fail<ValueError>(op, fmt::format("{} inputs and {} {}s", xs.size(), vs.size(), what));
  for (std::size_t i = 0; i < xs.size(); ++i) expect_like(op, vs[i], xs[i], what);
}

Shape joined(const Shape& a, const Shape& b) {
  std::vector<std::int64_t> sizes(a.begin(), a.end());
  sizes.insert(sizes.end(), b.begin(), b.end());
  return Shape(sizes);
}

/// Cotangents of elements [begin, begin + n) of y: (n, y.shape), each with a 1 in its place.
Tensor basis(const Tensor& y, std::int64_t begin, std::int64_t n) {
  Tensor out = zeros(y.shape().inserted(0, n), y.dtype());
  visit_float(y.dtype(), [&](auto zero) {
    for (std::int64_t i = 0; i < n; ++i)
      out.mutable_values<decltype(zero)>()[static_cast<std::size_t>(i * y.numel() + begin + i)] = 1;
  });
  return out;
}

std::vector<Tensor> row_of(const Derivative& d, const Tensor& y, std::int64_t k) {
  std::vector<Tensor> row = d.gradients(y, basis(y, k, 1).viewed_as(y.shape()), d.graph());
  for (Tensor& t : row) t = reshape(d.of(t), t.shape().inserted(0, 1));
  return row;
}

/// Rows [begin, begin + n) by one reverse pass; nothing where it cannot be (a rule or hook reads the values of a
/// cotangent).
std::vector<Tensor> rows_at_once(const Derivative& d, const Tensor& y, std::int64_t begin, std::int64_t n) {
  try {
    const detail::Batching batching(n);
    std::vector<Tensor> rows = d.gradients(y, detail::apart(basis(y, begin, n), n), false);
    for (Tensor& t : rows) t = detail::joined(std::move(t), n);
    return rows;
  } catch (const Error&) {
    return {};
  }
}

/// How many reverse passes run at once: their largest values together stay within some megabytes.
std::int64_t rows_together(const Derivative& d, const Tensor& y) {
  if (d.graph() || detail::batching() || !y.tracked()) return 1;
  std::int64_t largest = 1;
  const Graph graph(y);
  for (const Node* node : graph.nodes()) largest = std::max(largest, node->shape().numel());
  return std::clamp<std::int64_t>((std::int64_t{1} << 22) / largest, 1, std::max<std::int64_t>(1, y.numel()));
}

/// d y / d xs of an already computed y.
std::vector<Tensor> rows_of(const Derivative& d, const Tensor& y) {
  std::vector<std::vector<Tensor>> parts(d.xs().size());
  const auto add = [&](std::vector<Tensor> rows) {
    for (std::size_t i = 0; i < parts.size(); ++i) parts[i].push_back(std::move(rows[i]));
  };
  std::int64_t together = rows_together(d, y);
  for (std::int64_t k = 0; k < y.numel();) {
    const std::int64_t n = std::min(together, y.numel() - k);
    std::vector<Tensor> rows;
    if (n > 1) rows = rows_at_once(d, y, k, n);
    if (rows.empty()) together = 1;
    add(rows.empty() ? row_of(d, y, k) : std::move(rows));
    k += together == 1 ? 1 : n;
  }
  std::vector<Tensor> out;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Shape shape = joined(y.shape(), d.xs()[i].shape());
    if (parts[i].empty()) out.push_back(zeros(shape, d.xs()[i].dtype()));
    else out.push_back(reshape(parts[i].size() == 1 ? parts[i][0] : concat(parts[i]), shape));
  }
  return out;
}

std::vector<Tensor> gradient_graph(const char* op, const Derivative& d, const MultiFunction& f) {
  const Tensor y = d.value(f);
  if (y.numel() != 1) fail<ShapeError>(op, fmt::format("needs a function with one element, got {}", y.shape().str()));
  return d.gradients(y, ones(y.shape(), y.dtype()), true);
}

MultiFunction of_one(const char* op, const UnaryFunction& f) {
  detail::expect_given(f, op);
  return [&f](std::span<const Tensor> x) { return f(x[0]); };
}

}  // namespace

bool detail::differentiating() { return nested > 0; }

std::vector<Tensor> vjp(const MultiFunction& f, std::span<const Tensor> inputs, const Tensor& cotangent,
                        DerivativeOptions options) {
  detail::expect_given(f, "vjp");
  const Derivative d(inputs, options);
  const Tensor y = d.value(f);
  expect_like("vjp", cotangent, y, "cotangent");
  return d.gradients(y, d.of(cotangent), d.graph());
}

Tensor jvp(const MultiFunction& f, std::span<const Tensor> inputs, std::span<const Tensor> tangents,
           DerivativeOptions options) {
  detail::expect_given(f, "jvp");
  expect_each_like("jvp", tangents, inputs, "tangent");
  const Derivative d(inputs, options);
  const Tensor y = d.value(f);
  std::vector<Tensor> ts;
  for (const Tensor& t : tangents) ts.push_back(d.of(t));
  const Tensor out = detail::pushed({&y, 1}, d.xs(), ts, d.graph())[0];
  return out.defined() ? out : zeros_like(y.detach());
}

Tensor jvp(const UnaryFunction& f, const Tensor& x, const Tensor& tangent, DerivativeOptions options) {
  return jvp(of_one("jvp", f), {&x, 1}, {&tangent, 1}, options);
}

std::vector<Tensor> jacobian(const MultiFunction& f, std::span<const Tensor> inputs, DerivativeOptions options) {
  detail::expect_given(f, "jacobian");
  const Derivative d(inputs, options);
  return rows_of(d, d.value(f));
}

Tensor jacobian(const UnaryFunction& f, const Tensor& x, DerivativeOptions options) {
  return jacobian(of_one("jacobian", f), {&x, 1}, options)[0];
}

std::vector<std::vector<Tensor>> hessian(const MultiFunction& f, std::span<const Tensor> inputs,
                                         DerivativeOptions options) {
  detail::expect_given(f, "hessian");
  const Derivative d(inputs, options);
  std::vector<std::vector<Tensor>> out;
  for (const Tensor& g : gradient_graph("hessian", d, f)) out.push_back(rows_of(d, g));
  return out;
}

Tensor hessian(const UnaryFunction& f, const Tensor& x, DerivativeOptions options) {
  return hessian(of_one("hessian", f), {&x, 1}, options)[0][0];
}

std::vector<Tensor> hvp(const MultiFunction& f, std::span<const Tensor> inputs, std::span<const Tensor> v,
                        DerivativeOptions options) {
  detail::expect_given(f, "hvp");
  expect_each_like("hvp", v, inputs, "vector");
  const Derivative d(inputs, options);
  const std::vector<Tensor> g = gradient_graph("hvp", d, f);
  Tensor s = scalar(0, g.empty() ? f32 : g[0].dtype());
  for (std::size_t i = 0; i < g.size(); ++i)
    if (g[i].tracked()) s = s + cast(sum(g[i] * d.of(v[i])), s.dtype());
  return d.gradients(s, ones(s.shape(), s.dtype()), d.graph());
}

Tensor hvp(const UnaryFunction& f, const Tensor& x, const Tensor& v, DerivativeOptions options) {
  return hvp(of_one("hvp", f), {&x, 1}, {&v, 1}, options)[0];
}

}  // namespace ebb

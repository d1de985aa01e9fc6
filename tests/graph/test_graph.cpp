// Shapes, storage, tensors, modes, and what recording and freeing a graph promise.
// (over 400 lines because it covers shapes, storage, tensors, modes and the life of a graph)
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <semaphore>
#include <sstream>
#include <thread>

#include <ebb/autograd/backward.h>
#include <ebb/graph/analysis.h>
#include <ebb/graph/dot.h>
#include <ebb/graph/error.h>
#include <ebb/graph/graph.h>
#include <ebb/graph/mode.h>
#include <ebb/graph/observe.h>
#include <ebb/ops/ops.h>

using namespace ebb;

namespace {
#ifdef __SANITIZE_ADDRESS__
constexpr bool cache_is_off = true;  // so that the sanitizer sees every block come and go
#else
constexpr bool cache_is_off = false;
#endif
}  // namespace

TEST_CASE("shape: sizes, axes, text") {
  const Shape s{2, 3, 4};
  CHECK(s.rank() == 3);
  CHECK(s.numel() == 24);
  CHECK(s.at(-1) == 4);
  CHECK(s.str() == "(2, 3, 4)");
  CHECK(Shape{10}.str() == "(10,)");
  CHECK(Shape{}.str() == "()");
  CHECK(Shape{}.numel() == 1);
  CHECK(Shape{0, 5}.numel() == 0);
  CHECK(s.with(1, 7) == Shape{2, 7, 4});
  CHECK(s.without(0) == Shape{3, 4});
  CHECK(s.inserted(3, 9) == Shape{2, 3, 4, 9});
  CHECK(s.inserted(0, 9) == Shape{9, 2, 3, 4});
  CHECK_FALSE(Shape{2} == Shape{2, 1});
  CHECK(broadcast({2, 1}, {3}, "x") == Shape{2, 3});
  CHECK(broadcast({0, 3}, {1}, "x") == Shape{0, 3});
  CHECK(broadcasts_to({3, 1}, {2, 3, 4}));
  CHECK_FALSE(broadcasts_to({2, 3}, {3}));
  CHECK_THROWS_WITH_AS(s.at(3), "shape: axis 3 does not exist in (2, 3, 4)", ShapeError);
  CHECK_THROWS_WITH_AS(s.normalize(-4, "sum"), "sum: axis -4 does not exist in (2, 3, 4)", ShapeError);
  CHECK_THROWS_WITH_AS(Shape({2, -1}), "shape: negative size in (2, -1)", ShapeError);
  CHECK_THROWS_WITH_AS(Shape({1, 1, 1, 1, 1, 1, 1, 1, 1}), "shape: 9 axes, at most 8 are supported", ShapeError);
  CHECK_THROWS_AS(Shape({1LL << 40, 1LL << 40}), ShapeError);
  CHECK_THROWS_AS(Shape({0, 1LL << 40, 1LL << 40}), ShapeError);
  CHECK_THROWS_WITH_AS(broadcast({2}, {3}, "add"), "add: shapes do not broadcast: (2,) and (3,)", ShapeError);
}

TEST_CASE("storage: alignment, versions, reuse") {
  for (const std::size_t bytes : {0, 1, 63, 64, 65, 1000, 100000}) {
    const Ref<Storage> s = Storage::allocate(bytes);
    CHECK(s->bytes() == bytes);
    CHECK(reinterpret_cast<std::uintptr_t>(s->data()) % 64 == 0);
    CHECK(s->unique());
    const Ref<Storage> again = s;
    CHECK_FALSE(s->unique());
  }
  Tensor t = zeros({3});
  const std::uint32_t version = t.storage()->version();
  (void)t.values<float>();
  CHECK(t.storage()->version() == version);
  (void)t.mutable_values<float>();
  CHECK(t.storage()->version() == version + 1);
  t.assign(ones({3}));
  CHECK(t.storage()->version() == version + 2);

  const std::size_t before = memory_stats().in_use;
  reset_peak_memory();
  { const Tensor big = zeros({1000, 1000}); }
  CHECK(memory_stats().in_use == before);
  CHECK(memory_stats().peak >= before + 4'000'000);
  if (!cache_is_off) CHECK(memory_stats().cached >= 4'000'000);
  release_cached_memory();
  CHECK(memory_stats().cached == 0);
}

TEST_CASE("storage: a thread works again in the memory that its cache holds") {
  if (cache_is_off) return;
  const void *own = nullptr, *others = nullptr;
  std::binary_semaphore taken{0}, returned{0};
  Tensor here = Tensor::workspace({5000});
  own = here.raw();
  std::thread other([&] {
    const Tensor there = Tensor::workspace({5000});
    others = there.raw();
    taken.release();
    returned.acquire();
  });
  taken.acquire();
  here = Tensor();
  returned.release();
  other.join();  // what came back last is the other's
  CHECK(own != others);
  here = Tensor::workspace({5000});
  CHECK(here.raw() == own);
  CHECK(Tensor::empty({5000}).raw() != others);      // values are not mixed with them
  CHECK(Tensor::workspace({5000}).raw() == others);  // rather than new memory
}

TEST_CASE("storage: what does not fit is refused") {
  CHECK_THROWS_WITH_AS(zeros({1LL << 61}, f64), "allocate: float64 (2305843009213693952,) is too large", MemoryError);
  CHECK_THROWS_WITH_AS(Tensor::empty({1LL << 49}, f64), "allocate: 4503599627370560 bytes asked for", MemoryError);
  CHECK_THROWS_AS(detail::allocate_block(~std::size_t{0}), MemoryError);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which end the program instead
  // More than any machine has: what was cached is given back, and nothing is counted as in use.
  { const Tensor cached = zeros({1000, 1000}); }
  const MemoryStats before = memory_stats();
  CHECK(before.cached >= 4'000'000);
  try {
    (void)Tensor::empty({1LL << 46}, f64);
    FAIL("nothing was thrown");
  } catch (const MemoryError& e) {
    CHECK(std::string(e.what()).starts_with("allocate: no memory for 536870912.0 MiB ("));
  }
  CHECK(memory_stats().in_use == before.in_use);
  CHECK(memory_stats().peak == before.peak);
  CHECK(memory_stats().cached == 0);
#endif
}

TEST_CASE("storage: a repeated training step asks the system for nothing") {
  const Tensor x = randn({64, 100});
  Tensor w = variable(randn({100, 10})), b = variable(zeros({10}));
  const auto step = [&] {
    const Gradients g = backward(mean(square(relu(linear(x, w, b)))));
    const NoGrad off;
    w.assign(w - g[w] * 0.01);
    b.assign(b - g[b] * 0.01);
  };
  for (int i = 0; i < 3; ++i) step();
  const MemoryStats before = memory_stats();
  for (int i = 0; i < 10; ++i) step();
  const MemoryStats after = memory_stats();
  CHECK(after.in_use == before.in_use);
  CHECK(after.requests > before.requests);
  if (!cache_is_off) CHECK(after.system_requests == before.system_requests);
}

TEST_CASE("tensor: values, views, copies") {
  Tensor t = tensor({1, 2, 3, 4, 5, 6}, {3, 2});
  CHECK(t.values<float>()[3] == 4);
  CHECK(t.bytes() == 24);
  CHECK(t.size(-1) == 2);
  CHECK(t.rows(1, 3).to_vector() == std::vector<double>{3, 4, 5, 6});
  CHECK(t.rows(1, 1).numel() == 0);
  CHECK(t.rows(1, 2).storage() == t.storage());
  CHECK(t.viewed_as({6}).shape() == Shape{6});
  Tensor copy = t.clone();
  t.mutable_values<float>()[0] = 9;
  CHECK(copy.values<float>()[0] == 1);
  CHECK(t.rows(0, 1).to_vector()[0] == 9);
  copy.assign(t);
  CHECK(same_bits(copy, t));
  CHECK_FALSE(same_bits(copy, t.viewed_as({6})));
  CHECK_FALSE(same_bits(zeros({2}), zeros({2}, i64)));
  CHECK(same_bits(zeros({0}), zeros({0})));
  CHECK(scalar(2.5).item() == 2.5);
  CHECK(tensor({7}, u8).item() == 7);
  CHECK(arange(4, i64).to_vector() == std::vector<double>{0, 1, 2, 3});
  CHECK(full({2}, 3, u8).to_vector() == std::vector<double>{3, 3});
  CHECK(Tensor::from(std::vector<double>{1, 2}, {2, 1}).dtype() == f64);
  CHECK(ones_like(t).shape() == t.shape());
  CHECK(zeros_like(tensor({1}, i64)).dtype() == i64);
  CHECK(describe(t) == "float32 (3, 2)");
  CHECK(describe(Tensor()) == "undefined");
}

TEST_CASE("tensor: errors") {
  Tensor t = zeros({3, 2});
  CHECK_THROWS_WITH_AS((void)t.values<double>(), "tensor: holds float32 elements, asked for float64", DTypeError);
  CHECK_THROWS_WITH_AS(t.mutable_values<std::uint8_t>(), "tensor: holds float32 elements, asked for uint8", DTypeError);
  CHECK_THROWS_WITH_AS((void)t.item(), "item: needs exactly one element, got (3, 2)", ShapeError);
  CHECK_THROWS_WITH_AS(t.rows(2, 4), "rows: [2, 4) is not a range of the first axis of (3, 2)", ShapeError);
  CHECK_THROWS_WITH_AS(t.rows(-1, 1), "rows: [-1, 1) is not a range of the first axis of (3, 2)", ShapeError);
  CHECK_THROWS_WITH_AS(scalar(1).rows(0, 0), "rows: [0, 0) is not a range of the first axis of ()", ShapeError);
  CHECK_THROWS_WITH_AS(t.viewed_as({5}), "viewed_as: (5,) does not have as many elements as (3, 2)", ShapeError);
  CHECK_THROWS_WITH_AS(t.assign(zeros({2, 3})), "assign: shapes differ: (3, 2) and (2, 3)", ShapeError);
  CHECK_THROWS_WITH_AS(t.assign(zeros({3, 2}, f64)), "assign: types differ: float32 and float64", DTypeError);
  CHECK_THROWS_WITH_AS(tensor({1, 2}, {3}), "tensor: 2 values do not fill (3,)", ShapeError);
  CHECK_THROWS_WITH_AS(Tensor::from(std::vector<float>{1}, {2}), "tensor: 1 values do not fill (2,)", ShapeError);
  CHECK_THROWS_WITH_AS(variable(zeros({2}, i64)), "variable: gradients need float32 or float64, got int64 (2,)",
                       DTypeError);
  CHECK_THROWS_WITH_AS(variable(Tensor()), "variable: the value is undefined", ValueError);
  const char* undefined = "tensor: undefined: no value was ever given to it";
  Tensor none;
  CHECK_THROWS_WITH_AS((void)none.values<float>(), undefined, ValueError);
  CHECK_THROWS_WITH_AS((void)none.item(), undefined, ValueError);
  CHECK_THROWS_WITH_AS((void)none.to_vector(), undefined, ValueError);
  CHECK_THROWS_WITH_AS(none.clone(), undefined, ValueError);
  CHECK_THROWS_WITH_AS(none.assign(zeros({})), undefined, ValueError);
  CHECK_THROWS_WITH_AS(zeros({}).assign(none), undefined, ValueError);
  CHECK(same_bits(none, Tensor()));
  CHECK_FALSE(same_bits(none, zeros({})));
}

TEST_CASE("modes: NoGrad, Training and Scope nest and end") {
  CHECK(recording());
  CHECK(training());
  {
    const NoGrad off;
    CHECK_FALSE(recording());
    CHECK_FALSE(training());
    {
      const Training on(true);
      CHECK(training());
      const NoGrad not_really(false);
      CHECK_FALSE(recording());
    }
    CHECK_FALSE(training());
  }
  {
    const Training off(false);
    CHECK(recording());
    CHECK_FALSE(training());
  }
  CHECK(current_scope() == "");
  {
    const Scope a("encoder");
    CHECK(current_scope() == "encoder");
    const Scope b("conv1"), unnamed("");
    CHECK(current_scope() == "encoder.conv1");
    CHECK(located("op", "text") == "encoder.conv1: op: text");
    std::thread([] {
      CHECK(current_scope() == "");
      CHECK(recording());
    }).join();
  }
  CHECK(located("op", "text") == "op: text");
  CHECK(located("", "text") == "text");
  try {
    const Scope a("left by an exception");
    const NoGrad off;
    throw 1;
  } catch (int) {
  }
  CHECK(current_scope() == "");
  CHECK(recording());
}

TEST_CASE("backward refuses values that were changed in place, with op and input") {
  const auto change = [](Tensor t) { t.mutable_raw(); };
  {
    const Tensor a = variable(ones({2})), b = ones({2});
    const Tensor y = sum(a * b);
    change(b);
    CHECK_THROWS_WITH_AS(backward(y),
                         "mul: input 1 (2,) was changed in place after the op ran; compute the gradient "
                         "before changing it, or give the op a copy",
                         GradientError);
  }
  {
    const Tensor a = variable(ones({2})), y = exp(a);
    const Tensor loss = sum(y);
    change(y.detach());
    const Scope elsewhere("elsewhere");
    CHECK_THROWS_WITH_AS(backward(loss),
                         "exp: its output (2,) was changed in place after the op ran; compute the gradient "
                         "before changing it, or give the op a copy",
                         GradientError);
  }
  {
    const Tensor a = variable(ones({2})), y = sum(a + 1);  // reads nothing: free to change
    change(a);
    CHECK(backward(y)[a].to_vector() == std::vector<double>{1, 1});
  }
  {
    const Tensor w = variable(ones({2, 2})), x = ones({2, 2});  // an optimizer's update between forward and backward
    Tensor loss;
    {
      const Scope layer("fc1");
      loss = sum(matmul(square(w), x));
    }
    Tensor value = w.detach();
    value.assign(zeros({2, 2}));
    CHECK_THROWS_WITH_AS(backward(loss),
                         "fc1: square: input 0 (2, 2) was changed in place after the op ran; compute the "
                         "gradient before changing it, or give the op a copy",
                         GradientError);
  }
}

TEST_CASE("backward refuses changed labels, indices and conditions") {
  const auto check = [](const std::function<Tensor(const Tensor&, const Tensor&)>& f, Tensor held,
                        const std::string& message) {
    const Tensor x = variable(uniform({2, 3}, 0.5, 1, f64));
    const Tensor y = f(x, held);
    const Tensor g = grad(y, x, {.create_graph = true});  // unchanged so far
    (void)held.mutable_raw();
    CHECK_THROWS_WITH_AS(backward(y),
                         (message + " changed in place after the op ran; compute the gradient before "
                                    "changing them, or give the op a copy")
                             .c_str(),
                         GradientError);
    if (g.tracked()) CHECK_THROWS_AS(grad(g, x, {.allow_unused = true, .cotangent = ones({2, 3}, f64)}), GradientError);
  };
  const Tensor index = tensor({1, 0}, i64);
  check([](auto& x, auto& t) { return cross_entropy(x, t); }, index.clone(), "cross_entropy: labels (2,)");
  check([](auto& x, auto& t) { return cross_entropy(x, t); }, full({2, 3}, 0.3, f64), "cross_entropy: labels (2, 3)");
  check([](auto& x, auto& t) { return sum(square(gather(x, t))); }, index.clone(), "gather: indices (2,)");
  check([](auto& x, auto& t) { return sum(square(pick(x, t))); }, index.clone(), "pick: indices (2,)");
  check([](auto& x, auto& t) { return sum(square(scatter_rows(x, t, 4))); }, index.clone(),
        "scatter_rows: indices (2,)");
  check([](auto& x, auto& t) { return sum(square(place(sum(x, 1), t, 4))); }, index.clone(), "place: indices (2,)");
  check([](auto& x, auto& t) { return sum(square(where(t, x, x * 2))); }, ones({2, 3}, u8), "where: conditions (2, 3)");
}

TEST_CASE("a graph serves one backward, or more when retained") {
  const Tensor x = variable(tensor({3}));
  const Tensor y = sum(square(x));
  CHECK(backward(y, {.retain_graph = true})[x].item() == 6);
  CHECK(backward(y)[x].item() == 6);
  const char* message =
      "sum: backward ran through this graph before and freed it; pass {.retain_graph = true} the first time, "
      "or compute the value again";
  CHECK_THROWS_WITH_AS(backward(y), message, GradientError);
  CHECK_THROWS_WITH_AS(grad(y, x), message, GradientError);
  // a new op on a freed part is refused where the freed part begins
  CHECK_THROWS_AS(backward(y * 2), GradientError);
}

TEST_CASE("backward frees kept values as it walks") {
  const Tensor x = variable(zeros({1000, 250}));  // 1 MB
  Tensor y = x;
  for (int i = 0; i < 20; ++i) y = exp(y);  // keeps 20 outputs
  Tensor loss = sum(y);
  y = Tensor();
  const std::size_t held = memory_stats().in_use;
  reset_peak_memory();
  const Gradients g = backward(loss);
  CHECK(memory_stats().peak < held + 5'000'000);         // a few gradients at a time, not twenty
  CHECK(memory_stats().in_use < held - 18 * 1'000'000);  // though the loss still holds the nodes
}

TEST_CASE("a chain of a million nodes") {
  const std::size_t before = memory_stats().in_use;
  {
    const Tensor x = variable(scalar(1, f64));
    Tensor y = x;
    for (int i = 0; i < 1'000'000; ++i) y = y + 1e-6;
    CHECK(y.item() == doctest::Approx(2));
    CHECK(Graph(y).size() == 1'000'001);
    CHECK(backward(y)[x].item() == 1);
  }
  CHECK(memory_stats().in_use == before);
  release_cached_memory();
}

TEST_CASE("an op of a thousand inputs: values, gradients of those asked for, second order, observed") {
  std::vector<Tensor> parts;
  for (int i = 0; i < 1000; ++i) parts.push_back(i % 10 == 5 ? full({2}, i + 1, f64) : variable(full({2}, i + 1, f64)));
  for (const bool stacked : {false, true}) {
    CAPTURE(stacked);
    const Profiler watching;
    const Tensor all = stacked ? stack(parts) : concat(parts), loss = sum(all * square(all));
    CHECK(all.numel() == 2000);
    CHECK(watching.by_op().at("concat").flops == 2000);
    CHECK(all.node()->inputs().size() == 1000);
    CHECK(all.node()->flops() == 2000);
    const std::vector<Tensor> xs{parts[0], parts[63], parts[64], parts[999]};
    const std::vector<Tensor> g = grad(loss, xs, {.create_graph = true});
    Tensor slopes = sum(square(g[0]));
    for (std::size_t i = 1; i < g.size(); ++i) slopes = slopes + sum(square(g[i]));
    const std::vector<Tensor> second = grad(slopes, xs, {.retain_graph = true});
    for (std::size_t i = 0; i < xs.size(); ++i) {
      const double x = xs[i].to_vector()[0];
      CHECK(g[i].to_vector() == std::vector<double>(2, 3 * x * x));
      CHECK(second[i].to_vector() == std::vector<double>(2, 2 * 3 * x * x * 6 * x));
    }
    CHECK_FALSE(grad(loss, parts[5], {.retain_graph = true, .allow_unused = true}).defined());
    const Gradients every = backward(loss);
    CHECK(every.size() == 900);
    CHECK(every[parts[500]].to_vector() == std::vector<double>(2, 3 * 501.0 * 501.0));
  }
  CHECK_THROWS_WITH_AS(concat(std::vector<Tensor>{}), "concat: nothing to join", ValueError);
}

TEST_CASE("deep sharing costs linear time") {
  const Tensor x = variable(scalar(1, f64));
  Tensor y = x;
  for (int i = 0; i < 60; ++i) y = y + y;
  const Graph graph(y);
  CHECK(graph.size() == 61);
  CHECK(graph.edges() == 120);
  CHECK(backward(y)[x].item() == std::ldexp(1.0, 60));
}

TEST_CASE("a hundred thousand nodes: order, verify, drawing") {
  Generator random(5);
  std::vector<Tensor> pool{variable(scalar(1), "x"), variable(scalar(2), "y")};
  for (int i = 0; i < 100'000; ++i) {
    const Tensor &a = pool[pool.size() - 1 - random.below(std::min<std::size_t>(pool.size(), 50))], &b = pool.back();
    pool.push_back(i % 2 ? a + b : a * b);
  }
  const Graph graph(pool.back());
  CHECK(graph.size() > 100'000);
  for (std::size_t i = 1; i < graph.size(); ++i) REQUIRE(graph.nodes()[i - 1]->id() < graph.nodes()[i]->id());
  verify(graph);
  std::ostringstream out;
  write_dot(out, graph, {.collapse = 0});
  CHECK(out.str().size() > 100'000 * 20);
}

TEST_CASE("graph: what it holds, in which order") {
  const Tensor a = variable(ones({2}), "a"), b = variable(ones({2}), "b"), unused = variable(ones({2}), "c");
  const Tensor p = a * b, q = p + p, constant = ones({2});
  const Tensor r = q - constant;
  const Graph graph(r);
  REQUIRE(graph.size() == 5);
  const Node* expected[] = {a.node().get(), b.node().get(), p.node().get(), q.node().get(), r.node().get()};
  for (std::size_t i = 0; i < 5; ++i) {
    CHECK(graph.nodes()[i] == expected[i]);
    CHECK(graph.index_of(expected[i]) == i);
  }
  CHECK(graph.edges() == 5);
  CHECK_FALSE(graph.contains(unused.node().get()));
  CHECK_FALSE(graph.contains(nullptr));
  CHECK(Graph(constant).size() == 0);
  CHECK(Graph(std::vector{p, r, unused, constant}).size() == 6);
  CHECK(q.node()->op() == "add");
  CHECK(a.node()->op() == "variable");
  CHECK(a.node()->name() == "a");
  CHECK(graph.nodes()[2]->inputs().size() == 2);
}

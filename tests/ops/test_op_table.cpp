// What must hold for every op, run over the op table.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "op_table.h"
#include "restore.h"

using namespace ebb;
using namespace ebb::testing;

namespace {

void for_each_case(const std::function<void(const Row&, const Case&)>& use, bool large = false) {
  for (const Row& row : rows()) {
    std::size_t i = 0;
    for (const Case& c : row.cases) {
      INFO(row.name << ", case " << i++);
      use(row, c);
    }
    if (!large) continue;
    i = 0;
    for (const Case& c : row.large) {
      INFO(row.name << ", large case " << i++);
      use(row, c);
    }
  }
}

Tensor cotangent_for(const Tensor& y) {
  Generator random(99);
  return cast(uniform(y.shape(), -1, 1, f64, random), y.dtype());
}

/// The value of a case followed by its gradients.
std::vector<Tensor> value_and_gradients(const Row& row, const Case& c, In inputs, bool create_graph = false) {
  const std::vector<Tensor> x = variables(inputs);
  const Tensor y = row.function(c)(x);
  std::vector<Tensor> out{y.detach()};
  for (Tensor& g : grad(y, x, {.create_graph = create_graph, .cotangent = cotangent_for(y)}))
    out.push_back(std::move(g));
  return out;
}

std::string read(const std::string& path) {
  std::ifstream in(std::string(EBB_SOURCE_DIR) + "/" + path);
  REQUIRE(in);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// What to write where an op has no row.
std::string row_of(const std::string& name) {
  return fmt::format(
      "\"{0}\" has no row: add one to apps/gradcheck/op_table_*.cpp, such as unary(\"{0}\", "
      "\"torch.{0}(x)\", {0}), or {{\"{0}\", \"torch.{0}(x)\", [](In x) {{ return {0}(x[0]); }}, "
      "{{{{{{{{2, 3}}}}}}}}}},",
      name);
}

/// All matches of a pattern's first group.
std::vector<std::pair<std::string, std::size_t>> matches(const std::string& text, const std::string& pattern) {
  std::vector<std::pair<std::string, std::size_t>> out;
  const std::regex re(pattern);
  for (std::sregex_iterator it(text.begin(), text.end(), re), end; it != end; ++it)
    out.emplace_back((*it)[1], static_cast<std::size_t>(it->position()));
  return out;
}

void collect_ops(std::span<const Tensor> roots, std::set<std::string, std::less<>>& names) {
  const Graph graph(roots);
  for (const Node* n : graph.nodes()) names.emplace(n->op());
}

/// Names of all ops in the graphs of a case's value, gradients and second gradients.
void collect_ops(const Row& row, const Case& c, In inputs, std::set<std::string, std::less<>>& names) {
  std::vector<Tensor> x = variables(inputs);
  const Tensor y = row.function(c)(x);
  collect_ops({&y, 1}, names);
  const Tensor cotangent = variable(cotangent_for(y));
  const std::vector<Tensor> g = grad(y, x, {.create_graph = true, .cotangent = cotangent});
  collect_ops(g, names);
  Tensor total = scalar(0, y.dtype());
  for (const Tensor& t : g) total = total + sum(square(cast(t, y.dtype())));
  x.push_back(cotangent);
  std::vector<Tensor> second;
  for (Tensor& t : grad(total, x, {.create_graph = true, .allow_unused = true}))
    if (t.defined()) second.push_back(std::move(t));
  collect_ops(second, names);
}

}  // namespace

TEST_CASE("op table: gradients agree with differences at order 1 and 2") {
  std::set<std::string> passed[3], all[3];
  double worst_error[3] = {};
  std::string worst_op[3];
  std::size_t index = 0;
  for (const Row& row : rows()) {
    const std::string key = fmt::format("{}#{}", row.name, index++);
    for (int order = 1; order <= row.order; ++order) all[order].insert(key), passed[order].insert(key);
    std::size_t number = 0;
    for (const Case& c : row.cases) {
      const std::vector<Tensor> inputs = inputs_for(row, c);
      std::int64_t elements = 0;
      for (const Tensor& x : inputs) elements += x.numel();
      for (int order = 1; order <= row.order; ++order)
        for (const Probe probe : {Probe::direction, Probe::elements}) {
          if (probe == Probe::elements && elements > 40) continue;
          const GradcheckReport report = gradcheck(row.function(c), inputs, {.order = order, .probe = probe});
          INFO(row.name << ", case " << number << ", order " << order);
          CHECK(report);
          if (!report) passed[order].erase(key);
          if (report.order == order && report.error > worst_error[order]) {
            worst_error[order] = report.error;
            worst_op[order] = row.name;
          }
        }
      ++number;
    }
  }
  fmt::print("gradcheck: {} of {} rows at order 1 (worst {}: {:.1e}), {} of {} at order 2 (worst {}: {:.1e})\n",
             passed[1].size(), all[1].size(), worst_op[1], worst_error[1], passed[2].size(), all[2].size(), worst_op[2],
             worst_error[2]);
  std::fflush(stdout);
}

TEST_CASE("op table: float32 agrees with float64 in value and gradient") {
  for_each_case(
      [](const Row& row, const Case& c) {
        const std::vector<Tensor> single = cast_all(inputs_for(row, c), f32);
        const std::vector<Tensor> a = value_and_gradients(row, c, single);
        const std::vector<Tensor> b = value_and_gradients(row, c, cast_all(single, f64));
        for (std::size_t i = 0; i < a.size(); ++i) {
          CAPTURE(i);
          CHECK((a[i].dtype() == f32 || (i == 0 && row.name == "cast")));
          CHECK(b[i].dtype() == f64);
          CHECK(distance(a[i], b[i]) <= (i == 0 ? 1e-5 : 1e-4));
        }
      },
      true);
}

TEST_CASE("op table: an op's fast rule agrees with the one that can be differentiated again") {
  for (const DType dtype : {f32, f64})
    for_each_case(
        [&](const Row& row, const Case& c) {
          CAPTURE(name_of(dtype));
          const std::vector<Tensor> inputs = cast_all(inputs_for(row, c), dtype);
          const std::vector<Tensor> fast = value_and_gradients(row, c, inputs);
          const std::vector<Tensor> in_ops = value_and_gradients(row, c, inputs, true);
          for (std::size_t i = 0; i < fast.size(); ++i)
            CHECK(distance(fast[i], in_ops[i]) <= (dtype == f32 ? 1e-5 : 1e-12));
        },
        true);
}

TEST_CASE("op table: integers are refused where an op takes floats") {
  for (const Row& row : rows()) {
    if (!row.floats_only) continue;
    CAPTURE(row.name);
    const Case& c = row.cases.front();
    CHECK_THROWS_AS(row.function(c)(cast_all(inputs_for(row, c), i64)), DTypeError);
    CHECK_THROWS_AS(row.function(c)(cast_all(inputs_for(row, c), u8)), DTypeError);
  }
}

TEST_CASE("op table: what is refused, and with which words") {
  std::size_t count = 0;
  for (const Row& row : rows())
    for (const Refusal& r : row.errors) {
      CAPTURE(row.name);
      CAPTURE(r.message);
      CHECK(r.verdict() == "");
      const Scope outer("model"), inner("fc1");
      try {
        r.call();
      } catch (const Error& e) {
        CHECK(e.what() == "model.fc1: " + r.message);
      }
      ++count;
    }
  CHECK(count > 100);
}

TEST_CASE("op table: all memory comes back") {
  for_each_case([](const Row& row, const Case& c) {
    const std::size_t before = memory_stats().in_use;
    {
      const std::vector<Tensor> out = value_and_gradients(row, c, inputs_for(row, c));
      CHECK(memory_stats().in_use > before);
      std::set<std::string, std::less<>> names;
      collect_ops(row, c, inputs_for(row, c), names);
    }
    CHECK(memory_stats().in_use == before);
    for (const Refusal& r : row.errors) CHECK_THROWS_AS(r.call(), Error);
    CHECK(memory_stats().in_use == before);
  });
}

TEST_CASE("op table: constants get no gradient, and change none") {
  for_each_case([](const Row& row, const Case& c) {
    const std::vector<Tensor> inputs = inputs_for(row, c);
    const std::vector<Tensor> expected = value_and_gradients(row, c, inputs);
    for (std::size_t fixed = 0; fixed < inputs.size(); ++fixed) {
      CAPTURE(fixed);
      std::vector<Tensor> x = variables(inputs);
      x[fixed] = inputs[fixed];
      const Tensor y = row.function(c)(x);
      CHECK(y.tracked() == (inputs.size() > 1));
      if (!y.tracked()) continue;
      const Graph graph(y);
      std::size_t leaves = 0;
      for (const Node* n : graph.nodes()) leaves += n->is_variable();
      CHECK(leaves == inputs.size() - 1);
      const std::vector<Tensor> g = grad(y, x, {.allow_unused = true, .cotangent = cotangent_for(y)});
      for (std::size_t i = 0; i < g.size(); ++i) {
        CHECK(g[i].defined() == (i != fixed));
        if (g[i].defined()) CHECK(distance(g[i], expected[i + 1]) <= 1e-13);
      }
    }
  });
}

TEST_CASE("op table: an input given several times gets the sum of its gradients") {
  std::size_t count = 0;
  for_each_case([&](const Row& row, const Case& c) {
    if (c.shapes.size() < 2 || std::ranges::any_of(c.shapes, [&](const Shape& s) { return s != c.shapes[0]; })) return;
    const Tensor value = inputs_for(row, c)[0], x = variable(value);
    const std::vector<Tensor> apart = value_and_gradients(row, c, std::vector(c.shapes.size(), value));
    const Tensor y = row.function(c)(std::vector(c.shapes.size(), x));
    CHECK(same_bits(y, apart[0]));
    Tensor sum = apart[1];
    for (std::size_t i = 2; i < apart.size(); ++i) sum = sum + apart[i];
    CHECK(distance(grad(y, x, {.cotangent = cotangent_for(y)}), sum) <= 1e-14);
    ++count;
  });
  CHECK(count > 20);
}

TEST_CASE("op table: parts of larger tensors and transposed ones are inputs like any other") {
  for (const DType dtype : {f32, f64})
    for_each_case(
        [&](const Row& row, const Case& c) {
          CAPTURE(name_of(dtype));
          const std::vector<Tensor> inputs = cast_all(inputs_for(row, c), dtype);
          const std::vector<Tensor> expected = value_and_gradients(row, c, inputs);
          std::vector<Tensor> parts;  // three elements into a block: at an address that no vector register likes
          for (const Tensor& x : inputs)
            parts.push_back(
                concat({zeros({3}, dtype), x.viewed_as({x.numel()})}).rows(3, 3 + x.numel()).viewed_as(x.shape()));
          const std::vector<Tensor> of_parts = value_and_gradients(row, c, parts);
          for (std::size_t i = 0; i < expected.size(); ++i) CHECK(same_bits(of_parts[i], expected[i]));
        },
        true);
  for_each_case([](const Row& row, const Case& c) {
    const std::vector<Tensor> inputs = inputs_for(row, c), expected = value_and_gradients(row, c, inputs);
    std::vector<Tensor> turned;
    for (const Tensor& x : inputs) turned.push_back(transpose(x));
    const Case back{{}, [&](In x) {
                      std::vector<Tensor> again;
                      for (const Tensor& t : x) again.push_back(transpose(t));
                      return row.function(c)(again);
                    }};
    const std::vector<Tensor> of_turned = value_and_gradients(row, back, turned);
    CHECK(same_bits(of_turned[0], expected[0]));
    for (std::size_t i = 1; i < expected.size(); ++i) CHECK(same_bits(transpose(of_turned[i]), expected[i]));
  });
}

TEST_CASE("op table: the same bits with any number of threads") {
  const Threads restore;
  std::vector<std::vector<Tensor>> expected;
  for (const int n : {1, 2, 3, 4}) {
    set_threads(n);
    std::size_t i = 0;
    for_each_case(
        [&](const Row& row, const Case& c) {
          CAPTURE(n);
          std::vector<Tensor> out = value_and_gradients(row, c, cast_all(inputs_for(row, c), f32));
          if (n == 1) return expected.push_back(std::move(out));
          REQUIRE(out.size() == expected[i].size());
          for (std::size_t k = 0; k < out.size(); ++k) CHECK(same_bits(out[k], expected[i][k]));
          ++i;
        },
        true);
  }
}

TEST_CASE("op table: every instruction set agrees") {
  const Instructions restore;
  for (const DType dtype : {f32, f64}) {
    std::vector<std::vector<Tensor>> expected;
    for (const detail::Isa isa : {detail::Isa::baseline, detail::Isa::avx2, detail::Isa::avx512}) {
      if (isa > detail::best_isa()) continue;
      detail::set_isa(isa);
      std::size_t i = 0;
      for_each_case(
          [&](const Row& row, const Case& c) {
            CAPTURE(detail::name_of(isa));
            CAPTURE(name_of(dtype));
            std::vector<Tensor> out = value_and_gradients(row, c, cast_all(inputs_for(row, c), dtype));
            if (isa == detail::Isa::baseline) return expected.push_back(std::move(out));
            for (std::size_t k = 0; k < out.size(); ++k)
              CHECK(distance(out[k], expected[i][k]) <= (dtype == f32 ? 1e-5 : 1e-12));
            ++i;
          },
          true);
    }
  }
}

TEST_CASE("op table: drawings show the op") {
  for (const Row& row : rows()) {
    CAPTURE(row.name);
    const Case& c = row.cases.front();
    std::ostringstream out;
    const Tensor y = row.function(c)(variables(inputs_for(row, c)));
    write_dot(out, Graph(y), {.collapse = 0});
    CHECK(out.str().find("[label=\"" + row.op() + "\\n") != std::string::npos);
  }
}

TEST_CASE("op table: nothing is recorded under NoGrad, and values are the same") {
  for_each_case([](const Row& row, const Case& c) {
    const std::vector<Tensor> x = variables(inputs_for(row, c));
    const Tensor recorded = row.function(c)(x);
    CHECK(recorded.tracked());
    verify(Graph(recorded));
    const NoGrad off;
    const Tensor y = row.function(c)(x);
    CHECK_FALSE(y.tracked());
    CHECK(same_bits(y, recorded));
  });
}

TEST_CASE("op table: ops without a gradient give the right values") {
  for (const ValueRow& row : value_rows()) {
    CAPTURE(row.name);
    const std::vector<double> v = row.f().to_vector();
    REQUIRE(v.size() == row.expected.size());
    for (std::size_t i = 0; i < v.size(); ++i)
      CHECK((v[i] == row.expected[i] || (std::isnan(v[i]) && std::isnan(row.expected[i]))));
  }
}

TEST_CASE("op table: every primitive and every function of ops.h has a row") {
  std::set<std::string, std::less<>> seen, listed, functions;
  for (const Row& row : rows()) functions.insert(row.name);
  for (const ValueRow& row : value_rows()) listed.insert(row.name);
  for_each_case([&](const Row& row, const Case& c) {
    collect_ops(row, c, inputs_for(row, c), seen);
    collect_ops(row, c, cast_all(inputs_for(row, c), f32), seen);
  });
  std::size_t primitives = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(std::string(EBB_SOURCE_DIR) + "/ops")) {
    if (entry.path().extension() != ".cpp") continue;
    const std::string text = read(std::filesystem::relative(entry.path(), EBB_SOURCE_DIR).string());
    for (const auto& [name, at] : matches(text, "static constexpr std::string_view name = \"(\\w+)\"")) {
      const std::string body = text.substr(at, text.find("\n};", at) - at);
      if (body.find(" backward(") != std::string::npos) CHECK_MESSAGE(seen.contains(name), row_of(name));
      else
        CHECK_MESSAGE(listed.contains(name), "\"" << name
                                                  << "\" has no gradient and no row: add one to value_rows() in "
                                                  << "apps/gradcheck/op_table_class.cpp: {\"" << name
                                                  << "\", [] { return " << name << "(tensor({1, 2})); }, {1, 2}},");
      ++primitives;
    }
  }
  CHECK(primitives > 50);
  const auto declared = matches(read("ops/ops.h"), "\\nTensor (\\w+)\\(");
  CHECK(declared.size() > 70);
  for (const auto& [name, at] : declared) {
    CHECK_MESSAGE((functions.contains(name) || listed.contains(name)), row_of(name));
  }
}

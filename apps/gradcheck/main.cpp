// gradcheck: proves the gradients of ebb's ops, from the same table as the tests.
#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <set>
#include <sstream>

#include <ebb/ebb.h>
#include <ebb/graph/names.h>

#include "op_table.h"
#include "program.h"

namespace po = app::po;
using app::UsageError;
using ebb::testing::Case;
using ebb::testing::Row;

namespace {

/// "2,3 3,4" as shapes; "()" is a scalar.
std::vector<ebb::Shape> shapes_from(const std::string& text) {
  std::vector<ebb::Shape> out;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    std::vector<std::int64_t> sizes;
    for (const char* p = word.data(); word != "()" && p < word.data() + word.size(); ++p) {
      std::int64_t n = 0;
      const auto [stop, error] = std::from_chars(p, word.data() + word.size(), n);
      const char* const end = word.data() + word.size();
      if (error != std::errc() || n < 0 || (stop != end && (*stop != ',' || stop + 1 == end)))
        throw UsageError(fmt::format("--shape takes sizes such as \"2,3 3,4\", one group an input; got \"{}\"", word));
      sizes.push_back(n);
      p = stop;
    }
    out.emplace_back(sizes);
  }
  return out;
}

/// The case of --shape. Throws UsageError unless the op takes inputs of these shapes.
Case case_of(const Row& row, const std::string& text) {
  Case c{{}, row.f};
  try {
    c.shapes = shapes_from(text);
  } catch (const ebb::Error& e) {
    throw UsageError(fmt::format("--shape \"{}\": {}", text, e.what()));
  }
  std::set<std::size_t> counts;
  const bool own = std::ranges::all_of(row.cases, [](const Case& known) { return known.f != nullptr; });
  for (const Case& known : row.cases)
    if (own || !known.f) counts.insert(known.shapes.size());
  if (!counts.contains(c.shapes.size())) {
    std::string list;
    for (const std::size_t n : counts) list += fmt::format("{}{}", list.empty() ? "" : " or ", n);
    throw UsageError(fmt::format("--shape: {} takes {} inputs, got {}", row.name, list, c.shapes.size()));
  }
  try {
    const ebb::NoGrad quiet;
    (void)row.function(c)(ebb::testing::inputs_for(row, c));
  } catch (const std::exception& e) {  // also of an allocation
    throw UsageError(fmt::format("--shape \"{}\": {}", text, e.what()));
  }
  return c;
}

/// Largest difference between float32 and float64 in the value and in the gradients of a weighted sum of outputs.
double float32_difference(const Row& row, const Case& c, std::uint64_t seed) {
  const std::vector<ebb::Tensor> x64 = ebb::testing::inputs_for(row, c, seed);
  std::vector<std::vector<ebb::Tensor>> gradients;
  for (const ebb::DType t : {ebb::f64, ebb::f32}) {
    const std::vector<ebb::Tensor> x = ebb::testing::variables(ebb::testing::cast_all(x64, t));
    const ebb::Tensor y = row.function(c)(x);
    ebb::Generator random(seed);
    const ebb::Tensor weights = cast(ebb::uniform(y.shape(), -1, 1, ebb::f64, random), y.dtype());
    gradients.push_back(y.tracked() ? ebb::grad(y, x, {.allow_unused = true, .cotangent = weights})
                                    : std::vector<ebb::Tensor>(x.size()));
    gradients.back().push_back(y.detach());
  }
  double worst = 0;
  for (std::size_t i = 0; i < gradients[0].size(); ++i)
    if (gradients[0][i].defined())
      worst = std::max(worst, ebb::testing::distance(cast(gradients[1][i], ebb::f64), gradients[0][i]));
  return worst;
}

po::options_description options() {
  return app::option_group(
      "Options",
      {
          {"op", app::text(), "check this op only; default: all"},
          {"list", "print the names of the ops"},
          {"order", app::number(2, 1, 2), "1, or 2 to check the gradients of the gradients too"},
          {"dtype", app::one_of("f64", {"f64", "f32"}),
           "f64: against differences; f32: values and gradients against those of f64 (1e-4), of larger inputs too"},
          {"shape", app::text(), "input shapes instead of the table's, such as \"2,3 3,4\" (with --op)"},
          {"probe", app::one_of("direction", {"direction", "elements", "jacobian"}), "{}"},
          {"seed", app::number<std::uint64_t>(1, 0, UINT64_MAX), "seed of inputs and directions"},
          {"sees", app::number(0.0, 0.0, 1e9),
           "an error of one element by this part of its input's size is seen for certain (direction); 0: not asked"},
          {"vectors", "print the cases that tests/parity.py compares with PyTorch, with inputs, one JSON text a line"},
      });
}

int run(app::Values& v) {
  const auto dtype = v["dtype"].as<std::string>(), probe = v["probe"].as<std::string>();
  const int order = v["order"].as<int>();
  if (v.count("shape") && !v.count("op")) throw UsageError("--shape needs --op");
  const auto seed = v["seed"].as<std::uint64_t>();
  const double sees = v["sees"].as<double>();
  if (sees != 0 && !(sees > 2e-5)) throw UsageError(fmt::format("--sees must be 0 or more than 2e-5, got {}", sees));

  std::vector<const Row*> chosen;
  std::vector<std::string> names;
  for (const Row& row : ebb::testing::rows()) {
    names.emplace_back(row.name);
    if (!v.count("op") || row.name == v["op"].as<std::string>()) chosen.push_back(&row);
  }
  if (chosen.empty()) {
    const auto op = v["op"].as<std::string>();
    throw UsageError(fmt::format("unknown op \"{}\"; --list prints the names{}", op,
                                 ebb::detail::did_you_mean(ebb::detail::nearest(op, names))));
  }
  if (v.count("list")) {
    for (const Row* row : chosen) app::print("{}\n", row->name);
    return 0;
  }

  if (v.count("vectors")) {
    for (const auto& [name, row, c, torch] : ebb::testing::parity_cases()) {
      nlohmann::ordered_json line{{"name", name}, {"torch", torch}, {"inputs", nlohmann::json::array()}};
      for (const ebb::Tensor& x : ebb::testing::inputs_for(row, c, seed))
        line["inputs"].push_back({{"shape", x.shape()}, {"values", x.to_vector()}});
      app::print("{}\n", line.dump());
    }
    return 0;
  }

  ebb::GradcheckOptions how{.probe = probe == "direction"  ? ebb::Probe::direction
                                     : probe == "elements" ? ebb::Probe::elements
                                                           : ebb::Probe::jacobian,
                            .sees = sees,
                            .seed = seed};
  app::print("{:<20}{:>6}{:>7}{:>13}{:>7}  {}\n", "op", "cases", "order", "worst error", "kinks", "result");
  int failed = 0;
  double worst = 0;
  std::string worst_op;
  for (const Row* row : chosen) {
    std::vector<Case> cases = row->cases;
    if (dtype == "f32")
      cases.insert(cases.end(), row->large.begin(), row->large.end());  // some ways are only taken by these
    if (v.count("shape")) cases = {case_of(*row, v["shape"].as<std::string>())};
    double error = 0;
    std::int64_t kinks = 0;
    std::string problem;
    how.order = std::min(order, row->order);
    for (const Case& c : cases) {
      if (dtype == "f32") {
        const double d = float32_difference(*row, c, seed);
        error = std::max(error, d);
        if (!(d <= 1e-4) && problem.empty()) problem = fmt::format("float32 differs by {:.2e}", d);
        continue;
      }
      const ebb::GradcheckReport r = ebb::gradcheck(row->function(c), ebb::testing::inputs_for(*row, c, seed), how);
      error = std::max(error, r.error);
      kinks += r.kinks;
      if (!r && problem.empty()) problem = r.str();
    }
    app::print("{:<20}{:>6}{:>7}{:>13.2e}{:>7}  {}\n", row->name, cases.size(), dtype == "f32" ? 1 : how.order, error,
               kinks, problem.empty() ? "passed" : problem);
    failed += !problem.empty();
    if (error >= worst) {
      worst = error;
      worst_op = row->name;
    }
  }
  app::print("{} of {} ops passed; worst: {} with {:.2e}\n", chosen.size() - static_cast<std::size_t>(failed),
             chosen.size(), worst_op, worst);
  return failed ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  const app::Command command[] = {{
      .name = "gradcheck",
      .about = "check every op's gradient in float64 against central differences",
      .arguments = "[OPTIONS]",
      .description = "",
      .examples = "  gradcheck --op conv2d\n  gradcheck --op matmul --shape \"3,4 4,5\" --probe jacobian\n",
      .options = options,
      .run = run,
  }};
  return app::run_program(
      {.name = "gradcheck",
       .about = "check the gradients of ebb's ops",
       .commands = command,
       .examples = "",
       .exit_codes = "Exit codes: 0 all passed; 1 a gradient is wrong or cannot be told, or results\n"
                     "could not be written; 2 wrong usage.\n"},
      argc, argv);
}

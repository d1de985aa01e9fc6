// mnist transfer: what a network learned from one set of pictures, put to use on another.
#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include <cmath>
#include <exception>
#include <filesystem>
#include <stdexcept>
#include <system_error>
#include <vector>

#include <ebb/models/data/mnist.h>
#include <ebb/models/report.h>
#include <ebb/models/train.h>

#include "command.h"
#include "json_text.h"
#include "saving.h"
#include "signals.h"
#include "training_options.h"

namespace mnist {
namespace {

po::options_description transfer_options() {
  return joined(
      {app::option_group(
           "Transfer",
           {
               {"head-epochs", number(3, 0, 1'000'000),
                "epochs in which only the new last layer learns, the others frozen"},
               {"epochs", number(3, 0, 1'000'000),
                "epochs after that in which all layers learn, at a tenth of the rate"},
               {"lr", number(1e-3, 0.0, 1e9), "learning rate (Adam)"},
               {"batch", number<std::int64_t>(default_batch, 1, 1'000'000), "samples in each step"},
               {"limit", number<std::int64_t>(1, 1'000'000'000),
                "use only the first N training samples: transfer helps most with few"},
               {"seed", number<std::uint64_t>(1, 0, UINT64_MAX), "seed of the new layer, sample order and dropout"},
               {"no-baseline", "do not train the same network from scratch for comparison"},
           }),
       data_options(), output_options("write the transferred model to this file (safetensors)")});
}

/// Gives the layers of `to` the weights of those of `from`, all but the last one that has any: returns the
/// ones that got them.
std::vector<ebb::Layer> borrow(const ebb::Sequential& from, const ebb::Sequential& to) {
  std::vector<ebb::Layer> copied;
  std::size_t head = from.layers().size();
  while (head > 0 && ebb::parameter_count(*from.layers()[head - 1]) == 0) --head;
  for (std::size_t i = 0; i + 1 < head; ++i) {
    if (ebb::parameter_count(*from.layers()[i]) == 0) continue;
    ebb::copy_state(*from.layers()[i], *to.layers()[i]);
    copied.push_back(to.layers()[i]);
  }
  if (copied.empty())
    throw UsageError(
        "only the last layer of this network has weights, and that one is replaced: nothing is left to "
        "transfer");
  return copied;
}

struct Row {
  std::string what;
  int epochs;
  std::int64_t trained;  // parameters
  ebb::Metrics result;
};

int run_transfer(Values& v) {
  const std::string file = model_file(v);
  const auto seed = v["seed"].as<std::uint64_t>();
  const int head_epochs = v["head-epochs"].as<int>(), epochs = v["epochs"].as<int>();
  if (head_epochs + epochs < 1) throw UsageError("--head-epochs and --epochs are both 0: nothing is trained");
  const auto batch = v["batch"].as<std::int64_t>();
  const double lr = v["lr"].as<double>();
  use_threads(v);
  const bool quiet = v.count("quiet") > 0;

  ebb::SavedModel model = ebb::load_model(file);
  refuse_not_finite(model, file);
  const double scale = scale_of(model, file);
  const auto fresh = [&] {
    ebb::manual_seed(seed);
    return build_network(model.architecture);
  };
  ebb::Sequential net = fresh();
  const std::string out = output_file(v, "save", false, bytes_of(net));
  const std::vector<ebb::Layer> borrowed = borrow(model.net, net);
  const ebb::Mnist data = load_data(v);
  const ebb::Dataset train = first_of(v, data.train.scaled(scale)), test = data.test.scaled(scale);

  catch_signals();
  put_by();
  std::vector<Row> rows;
  std::error_code none;
  const std::filesystem::path target = place_of(out);
  const bool once = takes_one_model(target);
  bool saved = false;
  std::string holds =
      out.empty() ? ""
                  : fmt::format("; {} is {}", out, std::filesystem::exists(target, none) ? "as it was" : "not written");
  const auto save = [&] {
    if (out.empty()) return;
    keep(
        target,
        [&](const std::filesystem::path& to) {
          ebb::save_model(
              net, model.architecture, to,
              {{"dataset", data.name}, {"scale", fmt::format("{}", scale)}, {"transferred_from", app::utf8(file)}});
        },
        [&] { return holds; });
    holds = fmt::format("; {} holds the last stage that went well", out);
    saved = true;
  };
  const auto run = [&](ebb::Sequential& network, const std::string& what, int n, double rate, bool last) {
    if (n == 0 || caught_signal()) return;
    std::int64_t trained = 0;
    for (const ebb::Tensor& t : ebb::parameters(network)) trained += t.numel();
    if (!quiet)
      app::note("{}: {} parameters, {} samples of {}\n", what, ebb::with_commas(trained), train.size(), data.name);
    const bool mine = &network == &net;
    ebb::History so_far, history;
    try {
      history = ebb::fit(network, ebb::Adam({.lr = rate}), train,
                         {.epochs = n,
                          .batch = batch,
                          .seed = seed,
                          .callbacks = {ebb::TerminateOnNaN()},
                          .verbose = quiet ? ebb::Verbose::silent : ebb::Verbose::automatic,
                          .interrupted = [] { return caught_signal() != 0; },
                          .failed = [&](const ebb::History& h) { so_far = h; }});
    } catch (const std::exception& e) {
      const std::string there = mine && !out.empty() ? up_to_there(so_far, net) : "";
      if (mine && (!there.empty() || (!saved && !rows.empty()))) save();
      throw std::runtime_error(
          fmt::format("{}: {}{}", what, words_of(e),
                      there.empty() ? holds : fmt::format("; {} holds the network up to there: {}", out, there)));
    }
    std::string bad = went_wrong(network, {&train, &test});
    if (history.epochs() > 0 && !std::isfinite(history["loss"].back()))
      bad = fmt::format("the loss became {}", history["loss"].back());
    if (!bad.empty()) throw std::runtime_error(fmt::format("{}: {}; try a smaller --lr{}", what, bad, holds));
    if (mine && (!once || last || caught_signal())) save();  // before anything else can fail
    try {
      rows.push_back({what, history.epochs(), trained, ebb::evaluate(network, test)});
    } catch (const std::exception& e) {
      if (mine && !saved) save();
      throw std::runtime_error(fmt::format("{}: {}{}", what, words_of(e), holds));
    }
  };
  for (const ebb::Layer& layer : borrowed) ebb::freeze(*layer);
  run(net, "new last layer, others frozen", head_epochs, lr, epochs == 0);
  for (const ebb::Layer& layer : borrowed) ebb::unfreeze(*layer);
  run(net, "all layers, a tenth of the rate", epochs, lr / 10, true);
  if (!saved && !rows.empty()) save();
  std::exception_ptr failure;
  if (!v.count("no-baseline")) {
    ebb::Sequential scratch = fresh();
    try {
      run(scratch, "the same network from scratch", head_epochs + epochs, lr, true);
    } catch (const std::exception&) {  // what the stages gave is told without
      failure = std::current_exception();
    }
  }

  end_on_signals();
  if (v.count("json")) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const Row& r : rows)
      list.push_back({{"what", r.what},
                      {"epochs", r.epochs},
                      {"trained_parameters", r.trained},
                      {"test_accuracy", r.result.accuracy},
                      {"test_loss", r.result.loss}});
    app::print("{}\n", app::json_text({{"dataset", data.name}, {"samples", train.size()}, {"stages", list}}));
  } else {
    app::print("{:<34}{:>7}{:>12}{:>15}{:>11}\n", fmt::format("{} samples of {}", train.size(), data.name), "epochs",
               "parameters", "test accuracy", "test loss");
    for (const Row& r : rows)
      app::print("{:<34}{:>7}{:>12}{:>15.4f}{:>11.4f}\n", r.what, r.epochs, ebb::with_commas(r.trained),
                 r.result.accuracy, r.result.loss);
    if (!out.empty()) app::print("saved {}\n", out);
  }
  if (failure) std::rethrow_exception(failure);
  return caught_signal() ? 128 + caught_signal() : ok;
}

}  // namespace

const app::Command transfer_command{
    .name = "transfer",
    .about = "use what a saved network learned for other pictures",
    .arguments = "FILE [OPTIONS]",
    .description =
        "FILE is what mnist train --save wrote. Its last layer is made anew and trained\n"
        "with the others frozen; then all are trained on.\n",
    .examples =
        "  From digits to clothes:\n"
        "  mnist train --model cnn --epochs 2 --save digits.safetensors\n"
        "  mnist transfer digits.safetensors --dataset fashion --limit 1000\n",
    .options = transfer_options,
    .run = run_transfer,
    .files = 1,
};

}  // namespace mnist

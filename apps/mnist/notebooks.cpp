#include "notebooks.h"

#include <fmt/core.h>

namespace mnist {
namespace {

// Dense layers on 28 x 28 pixels, and the convolutional network that two of the notebooks share.
std::string dense(const std::vector<int>& widths, const std::string& activation) {
  std::string text = "flatten";
  for (const int w : widths) text += fmt::format(", dense {} {}", w, activation);
  return text + ", dense 10";
}
std::string cnn(int width) {
  return fmt::format("conv 32 3 relu, pool 2, conv 64 3 relu, pool 2, conv 64 3 relu, flatten, dense {} relu, dense 10",
                     width);
}

/// N1: shallow and deep networks on raw pixels, trained on 20 % and on 75 % of the table, early stopping.
void n1(std::vector<Experiment>& all) {
  const std::string shallow = dense({50, 50}, "relu"), deep = dense({75, 75, 75, 75}, "relu");
  const auto add = [&](const char* id, const char* about, const std::string& net, double split, Score train,
                       Score validation, double band) {
    all.push_back({.id = id,
                   .about = about,
                   .architecture = net,
                   .optimizer = "adam",
                   .source = Source::table,
                   .scaled = false,
                   .validation_split = split,
                   .epochs = 30,
                   .patience = 3,
                   .band = band,
                   .train = train,
                   .validation = validation});
  };
  add("N1-a", "50-50, trained on 20 %", shallow, 0.80, {.2148, .9439}, {.4789, .9107}, 1.5);
  add("N1-b", "50-50, trained on 75 %", shallow, 0.25, {.1080, .9683}, {.1938, .9535}, 0.5);
  add("N1-c", "75 four times, trained on 20 %", deep, 0.80, {.1336, .9636}, {.3279, .9288}, 0.5);
  add("N1-d", "75 four times, trained on 75 %", deep, 0.25, {.0672, .9814}, {.1320, .9704}, 0.5);
}

/// N2: three networks on scaled pixels. Its third fit trains the second network on, by a slip of the pen.
void n2(std::vector<Experiment>& all) {
  const std::string wide = "flatten, dense 512 relu, dropout 0.2, dense 512 relu, dropout 0.2, dense 10";
  const std::string narrow = "flatten, dense 128 relu, dropout 0.15, dense 64 relu, dropout 0.15, dense 10";
  const Score first{.11606594287808984, .9655}, second{.07339886176826549, .9805};
  all.push_back({.id = "N2-1",
                 .about = "50-25",
                 .architecture = dense({50, 25}, "relu"),
                 .optimizer = "rmsprop",
                 .batch = 128,
                 .epochs = 5,
                 .train = {.1075, .9685},
                 .validation = first,
                 .test = first});
  all.push_back({.id = "N2-2",
                 .about = "512-512 with dropout",
                 .architecture = wide,
                 .optimizer = "adam",
                 .batch = 128,
                 .epochs = 200,
                 .patience = 3,
                 .train = {.0300, .9901},
                 .validation = second,
                 .test = second});
  all.push_back({.id = "N2-3",
                 .about = "as written: N2-2 trained on",
                 .architecture = wide,
                 .optimizer = "adam",
                 .batch = 128,
                 .epochs = 200,
                 .patience = 3,
                 .continues = "N2-2",
                 .reading = Reading::as_written,
                 .train = {.0155, .9949},
                 .validation = {.0751, .9827},
                 .test = {.0751, .9827}});
  all.push_back({.id = "N2-3-meant",
                 .about = "as meant: 128-64 with dropout; never run there",
                 .architecture = narrow,
                 .optimizer = "adam",
                 .batch = 128,
                 .epochs = 200,
                 .patience = 3,
                 .reading = Reading::as_meant});
}

/// N3: sigmoid networks of many depths and widths on raw pixels, plain gradient descent.
void n3(std::vector<Experiment>& all) {
  const auto add = [&](const std::string& id, const std::string& about, const std::vector<int>& widths, Score test) {
    all.push_back({.id = id,
                   .about = about,
                   .architecture = dense(widths, "sigmoid"),
                   .optimizer = "sgd",
                   .scaled = false,
                   .validation_split = 0.1,
                   .batch = 128,
                   .epochs = 5,
                   .band = 1.5,
                   .test = test});
    return &all.back();
  };
  const auto repeated = [](int width, int depth) { return std::vector<int>(static_cast<std::size_t>(depth), width); };
  add("N3-first", "the first network, 32", {32}, {.512, .887});
  for (int depth = 1; depth <= 4; ++depth)
    add(fmt::format("N3-chain-{}", depth), fmt::format("longer chains: 32 x {}", depth), repeated(32, depth),
        depth == 1 ? Score{.493, .890} : Score{});
  for (const int width : {32, 64, 128, 256, 512, 1024, 2048})
    add(fmt::format("N3-width-{}", width), fmt::format("one layer of {}", width), {width},
        width == 32   ? Score{.502, .886}
        : width == 64 ? Score{.373, NAN}
                      : Score{});
  for (const auto& [width, first] :
       {std::pair{32, Score{.484, .890}}, {128, Score{.317, .918}}, {512, Score{.242, .934}}})
    for (int depth = 1; depth <= 5; ++depth)
      add(fmt::format("N3-{}x{}", width, depth), fmt::format("{} x {}", width, depth), repeated(width, depth),
          depth == 1 ? first : Score{});
  const std::vector<std::pair<int, std::vector<Score>>> rounds{
      {32, {{2.11, .359}, {1.77, .613}, {1.27, .744}, {.867, .802}, {.689, .836}}},
      {128, {{1.72, .595}, {.922, .830}, {.516, .887}, {.377, .908}, {.311, .919}}},
      {256, {{1.25, .739}, {.555, .876}, {.374, .905}, {.304, .919}, {.267, .928}}}};
  for (const auto& [width, scores] : rounds)
    for (const int depth : {3, 4, 5})
      for (int round = 1; round <= 5; ++round) {
        const auto id = [&](int r) { return fmt::format("N3-rounds-{}x{}-{}", width, depth, r); };
        Experiment* e = add(id(round), fmt::format("{} x {}, round {} of 5 epochs", width, depth, round),
                            repeated(width, depth), depth == 3 ? scores[static_cast<std::size_t>(round - 1)] : Score{});
        if (round > 1) e->continues = id(round - 1);
      }
  Experiment* forced = add("N3-forced", "32 x 5, batch 16, 30 epochs: \"eventually it learns\"", repeated(32, 5), {});
  forced->batch = 16;
  forced->epochs = 30;
}

/// N4: a small network on raw, then on scaled pixels, and a convolutional one; digits split at random. The
/// second network is made of the first one's layers, so that it starts from trained weights.
void n4(std::vector<Experiment>& all) {
  const Score second{.1726, .9501};
  all.push_back({.id = "N4-1",
                 .about = "32, raw pixels",
                 .architecture = dense({32}, "relu"),
                 .optimizer = "adam",
                 .source = Source::seventh,
                 .scaled = false,
                 .epochs = 20,
                 .train = {.2325, .9416},
                 .validation = {.3716, .9240},
                 .test = {.3716, .9240}});
  all.push_back({.id = "N4-2",
                 .about = "as written: scaled pixels, N4-1's layers",
                 .architecture = dense({32}, "relu"),
                 .optimizer = "adam",
                 .source = Source::seventh,
                 .epochs = 20,
                 .continues = "N4-1",
                 .keeps_optimizer = false,
                 .reading = Reading::as_written,
                 .train = {.1061, .9683},
                 .validation = second,
                 .test = second});
  all.push_back({.id = "N4-2-meant",
                 .about = "as meant: scaled pixels, fresh weights",
                 .architecture = dense({32}, "relu"),
                 .optimizer = "adam",
                 .source = Source::seventh,
                 .epochs = 20,
                 .reading = Reading::as_meant});
  all.push_back({.id = "N4-3",
                 .about = "convolutions, 64",
                 .architecture = cnn(64),
                 .optimizer = "adam",
                 .source = Source::seventh,
                 .epochs = 10,
                 .train = {.0080, .9973},
                 .validation = {.0363, .9919},
                 .test = {.0363, .9919}});
}

/// N5: three networks, each trained for 100 epochs and, afresh, for as many as seemed best. The long log of
/// the first one begins from a network that was trained before.
void n5(std::vector<Experiment>& all) {
  const auto add = [&](const char* id, const char* about, const std::string& net, int epochs, Score train,
                       Score validation, bool published_test) {
    all.push_back({.id = id,
                   .about = about,
                   .architecture = net,
                   .optimizer = "rmsprop",
                   .batch = 128,
                   .epochs = epochs,
                   .train = train,
                   .validation = validation,
                   .test = published_test ? validation : Score{}});
    return &all.back();
  };
  const std::string one = dense({512}, "relu"), two = "flatten, dense 512 relu, dropout 0.5, dense 10";
  add("N5-1", "512", one, 15, {.0027, .9991}, {.0898, .9811000227928162}, true);
  Experiment* e = add("N5-1-long", "as written: N5-1 trained on", one, 100, {4.2816e-09, 1}, {.1545, .9830}, false);
  e->continues = "N5-1";
  e->reading = Reading::as_written;
  e->one_seed = true;
  e = add("N5-1-long-meant", "as meant: fresh weights", one, 100, {}, {}, false);
  e->reading = Reading::as_meant;
  e->one_seed = true;
  add("N5-2", "512 with dropout", two, 44, {.0235, .9933}, {.0976, .9839000105857849}, true);
  add("N5-2-long", "the same", two, 100, {.0161, .9962}, {.1394, .9843}, false)->one_seed = true;
  add("N5-3", "convolutions, 512", cnn(512), 5, {.0182, .9942}, {.0243, .9916999936103821}, true);
  add("N5-3-long", "the same", cnn(512), 100, {.0017, .9998}, {.2283, .9906}, false)->one_seed = true;
}

}  // namespace

const std::vector<Experiment>& experiments() {
  static const std::vector<Experiment> all = [] {
    std::vector<Experiment> list;
    n1(list);
    n2(list);
    n3(list);
    n4(list);
    n5(list);
    return list;
  }();
  return all;
}

}  // namespace mnist

// Summaries, byte for byte.
#include <doctest/doctest.h>
#include <ebb/autograd/backward.h>
#include <ebb/graph/error.h>
#include <ebb/models/report/summary.h>
#include <ebb/ops/ops.h>

#include <memory>
#include <string>
#include <vector>

namespace {

using namespace ebb;

/// The CNN of the notebooks with a dense layer of so many units.
Sequential cnn(std::int64_t units) {
  return Sequential(
      {28, 28, 1},
      {Conv2D({.filters = 32, .activation = relu}), MaxPool2D(2), Conv2D({.filters = 64, .activation = relu}),
       MaxPool2D(2), Conv2D({.filters = 64, .activation = relu}), Flatten(), Dense(units, relu), Dense(10)});
}

Sequential mlp(const std::vector<std::int64_t>& widths) {
  Sequential net(Shape{784}, std::vector<Layer>{});
  for (const std::int64_t n : widths) net.add(Dense(n, relu));
  net.add(Dense(10));
  return net;
}

std::string total(Sequential& net, KerasStyle style = KerasStyle::keras2) {
  const std::string text = summary(net, {.style = style});
  const auto begin = text.find("Total params");
  return text.substr(begin, text.find('\n', begin) - begin);
}

struct Block : Module {
  Dense a{4}, b{3};
  Tensor forward(const Tensor& x) override { return x + b(relu(a(x))); }
  void visit(Visitor& v) override {
    v("a", a);
    v("b", b);
  }
  std::string_view type() const override { return "Block"; }
};

struct Residual : Module {
  Dense stem{3};
  Block block;
  Tensor forward(const Tensor& x) override { return block(stem(x)); }
  void visit(Visitor& v) override {
    v("stem", stem);
    v("block", block);
  }
};

const std::string thin(65, '_'), thick(65, '='), blank(65, ' ');

/// Lines with a newline after each.
std::string lines(const std::vector<std::string>& all) {
  std::string out;
  for (const std::string& line : all) out += line + "\n";
  return out;
}

}  // namespace

// The tables are those that the notebooks show.
TEST_CASE("summary: Keras 2.2, byte for byte") {
  Sequential net = mlp({50, 25});
  CHECK(summary(net, {.style = KerasStyle::keras2_2}) ==
        lines({thin, "Layer (type)                 Output Shape              Param #   ", thick,
               "dense (Dense)                (None, 50)                39250     ", thin,
               "dense_1 (Dense)              (None, 25)                1275      ", thin,
               "dense_2 (Dense)              (None, 10)                260       ", thick, "Total params: 40,785",
               "Trainable params: 40,785", "Non-trainable params: 0", thin}));
}

TEST_CASE("summary: Keras 2.13, byte for byte") {
  Sequential net = cnn(64);
  CHECK(summary(net) == lines({"Model: \"sequential\"",
                               thin,
                               " Layer (type)                Output Shape              Param #   ",
                               thick,
                               " conv2d (Conv2D)             (None, 26, 26, 32)        320       ",
                               blank,
                               " max_pooling2d (MaxPooling2  (None, 13, 13, 32)        0         ",
                               " D)                                                              ",
                               blank,
                               " conv2d_1 (Conv2D)           (None, 11, 11, 64)        18496     ",
                               blank,
                               " max_pooling2d_1 (MaxPoolin  (None, 5, 5, 64)          0         ",
                               " g2D)                                                            ",
                               blank,
                               " conv2d_2 (Conv2D)           (None, 3, 3, 64)          36928     ",
                               blank,
                               " flatten (Flatten)           (None, 576)               0         ",
                               blank,
                               " dense (Dense)               (None, 64)                36928     ",
                               blank,
                               " dense_1 (Dense)             (None, 10)                650       ",
                               blank,
                               thick,
                               "Total params: 93322 (364.54 KB)",
                               "Trainable params: 93322 (364.54 KB)",
                               "Non-trainable params: 0 (0.00 Byte)",
                               thin}));
}

TEST_CASE("summary: Keras 3, byte for byte, with the optimizer's state once it has some") {
  Sequential net = mlp({64});
  net.set_name("sequential_3");
  const std::string table =
      "Model: \"sequential_3\"\n"
      "┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━┓\n"
      "┃ Layer (type)                    ┃ Output Shape           ┃       Param # ┃\n"
      "┡━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━┩\n"
      "│ dense (Dense)                   │ (None, 64)             │        50,240 │\n"
      "├─────────────────────────────────┼────────────────────────┼───────────────┤\n"
      "│ dense_1 (Dense)                 │ (None, 10)             │           650 │\n"
      "└─────────────────────────────────┴────────────────────────┴───────────────┘\n";
  const std::string own =
      " Trainable params: 50,890 (198.79 KB)\n"
      " Non-trainable params: 0 (0.00 B)\n";
  Adam adam;
  const SummaryOptions options{.style = KerasStyle::keras3, .optimizer = &adam};
  CHECK(summary(net, options) == table + " Total params: 50,890 (198.79 KB)\n" + own);
  adam.step(net, backward(sum(net(ones({1, 784})))));
  CHECK(summary(net, options) ==
        table + " Total params: 152,672 (596.38 KB)\n" + own + " Optimizer params: 101,782 (397.59 KB)\n");

  Sequential pool({4, 4, 2}, {AvgPool2D(2), Flatten(), Dense(2)});
  pool.layers()[0]->set_name("a_layer_whose_name_is_long");
  CHECK(summary(pool, {.style = KerasStyle::keras3})
            .find("│ a_layer_whose_name_is_long      │ (None, 2, 2, 2)        │             0 │\n"
                  "│ (AveragePooling2D)              │                        │               │\n") !=
        std::string::npos);
  pool.layers()[0]->set_name("one_word_that_no_line_of_the_box_holds");
  CHECK(summary(pool, {.style = KerasStyle::keras3})
            .find("│ one_word_that_no_line_of_the_bo │ (None, 2, 2, 2)        │             0 │\n"
                  "│ x_holds (AveragePooling2D)      │                        │               │\n") !=
        std::string::npos);
}

TEST_CASE("summary: totals of the notebooks' networks") {
  struct Row {
    std::vector<std::int64_t> widths;
    const char* text;
  };
  for (const Row& row : std::vector<Row>{{{50, 25}, "Total params: 40785 (159.32 KB)"},
                                         {{32}, "Total params: 25450 (99.41 KB)"},
                                         {{512, 512}, "Total params: 669706 (2.55 MB)"},
                                         {{512}, "Total params: 407050 (1.55 MB)"},
                                         {{50, 50}, "Total params: 42310 (165.27 KB)"},
                                         {{75, 75, 75, 75}, "Total params: 76735 (299.75 KB)"},
                                         {{128, 64}, "Total params: 109386 (427.29 KB)"}}) {
    Sequential net = mlp(row.widths);
    CHECK(total(net) == row.text);
  }
  Sequential small = cnn(64);
  CHECK(total(small) == "Total params: 93322 (364.54 KB)");
}

TEST_CASE("summary: sizes") {
  CHECK(format_bytes(25450 * 4) == "99.41 KB");
  CHECK(format_bytes(93322 * 4) == "364.54 KB");
  CHECK(format_bytes(40785 * 4) == "159.32 KB");
  CHECK(format_bytes(669706 * 4) == "2.55 MB");
  CHECK(format_bytes(407050 * 4) == "1.55 MB");
  CHECK(format_bytes(356298 * 4) == "1.36 MB");
  CHECK(format_bytes(0) == "0.00 B");
  CHECK(format_bytes(1023) == "1023.00 B");
  CHECK(format_bytes(1024) == "1.00 KB");
  CHECK(format_bytes(3.0 * 1024 * 1024 * 1024) == "3.00 GB");
  CHECK(format_bytes(0x1p60) == "1048576.00 TB");
  CHECK(with_commas(0) == "0");
  CHECK(with_commas(999) == "999");
  CHECK(with_commas(1000) == "1,000");
  CHECK(with_commas(40785) == "40,785");
  CHECK(with_commas(1628170) == "1,628,170");
  CHECK(with_commas(-5) == "-5");
}

TEST_CASE("summary: frozen parameters, functions, Dropout and long names") {
  Sequential net({4}, {Dense(3), relu, Dropout(0.5), Dense({.units = 2, .use_bias = false})});
  freeze(*net.layers()[0]);
  net.layers()[3]->set_name("a_name_that_is_longer_than_its_column");
  CHECK(summary(net, {.style = KerasStyle::keras2_2}) ==
        lines({thin, "Layer (type)                 Output Shape              Param #   ", thick,
               "dense (Dense)                (None, 3)                 15        ", thin,
               "function (Function)          (None, 3)                 0         ", thin,
               "dropout (Dropout)            (None, 3)                 0         ", thin,
               "a_name_that_is_longer_than_i (None, 2)                 6         ", thick, "Total params: 21",
               "Trainable params: 6", "Non-trainable params: 15", thin}));
  const std::string text = summary(net);
  CHECK(text.find(" a_name_that_is_longer_than  (None, 2)                 6         \n"
                  " _its_column (Dense)                                             \n") != std::string::npos);
  CHECK(
      text.find(
          "Total params: 21 (84.00 Byte)\nTrainable params: 6 (24.00 Byte)\nNon-trainable params: 15 (60.00 Byte)\n") !=
      std::string::npos);
}

TEST_CASE("summary: a module of one's own") {
  Residual net;
  CHECK(summary(net, {2}) ==
        lines({"Model: \"Module\"", thin, " Layer (type)                Output Shape              Param #   ", thick,
               " stem (Dense)                                          9         ", blank,
               " block (Block)                                         31        ", blank,
               " output                      (None, 3)                 0         ", blank, thick,
               "Total params: 40 (160.00 Byte)", "Trainable params: 40 (160.00 Byte)",
               "Non-trainable params: 0 (0.00 Byte)", thin}));
}

TEST_CASE("summary: a layer that is used twice counts once") {
  const auto tied = std::make_shared<Dense>(3);
  Sequential net({3}, {tied, relu, tied});
  CHECK(total(net) == "Total params: 12 (48.00 Byte)");
}

TEST_CASE("summary: builds the model, or says what it needs") {
  Sequential net({Flatten(), Dense(3)});
  CHECK_THROWS_WITH_AS(
      summary(net),
      "summary: the model has not seen its input; give the shape of a sample: summary(model, {28, 28, 1})", ValueError);
  CHECK(summary(net, {4, 2}).find(" dense (Dense)               (None, 3)                 27        \n") !=
        std::string::npos);
  CHECK(parameter_count(net) == 27);
}

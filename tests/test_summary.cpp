#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/summary.h>
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

std::string total(Sequential& net) {
  const std::string text = summary(net);
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

}  // namespace

TEST_CASE("summary: the CNN of the notebooks, byte for byte") {
  Sequential net = cnn(512);
  CHECK(summary(net) ==
        "Model: \"sequential\"\n"
        "_________________________________________________________________\n"
        "Layer (type)                 Output Shape              Param #\n"
        "=================================================================\n"
        "conv2d (Conv2D)              (None, 26, 26, 32)        320\n"
        "_________________________________________________________________\n"
        "maxpool2d (MaxPool2D)        (None, 13, 13, 32)        0\n"
        "_________________________________________________________________\n"
        "conv2d_1 (Conv2D)            (None, 11, 11, 64)        18496\n"
        "_________________________________________________________________\n"
        "maxpool2d_1 (MaxPool2D)      (None, 5, 5, 64)          0\n"
        "_________________________________________________________________\n"
        "conv2d_2 (Conv2D)            (None, 3, 3, 64)          36928\n"
        "_________________________________________________________________\n"
        "flatten (Flatten)            (None, 576)               0\n"
        "_________________________________________________________________\n"
        "dense (Dense)                (None, 512)               295424\n"
        "_________________________________________________________________\n"
        "dense_1 (Dense)              (None, 10)                5130\n"
        "=================================================================\n"
        "Total params: 356,298 (1.36 MB)\n"
        "Trainable params: 356,298\n"
        "Non-trainable params: 0\n"
        "_________________________________________________________________\n");
}

TEST_CASE("summary: totals of the notebooks' networks") {
  struct Row {
    std::vector<std::int64_t> widths;
    const char* text;
  };
  for (const Row& row : std::vector<Row>{{{50, 25}, "Total params: 40,785 (159.32 KB)"},
                                         {{32}, "Total params: 25,450 (99.41 KB)"},
                                         {{512, 512}, "Total params: 669,706 (2.55 MB)"},
                                         {{512}, "Total params: 407,050 (1.55 MB)"},
                                         {{50, 50}, "Total params: 42,310 (165.27 KB)"},
                                         {{75, 75, 75, 75}, "Total params: 76,735 (299.75 KB)"},
                                         {{128, 64}, "Total params: 109,386 (427.29 KB)"}}) {
    Sequential net = mlp(row.widths);
    CHECK(total(net) == row.text);
  }
  Sequential small = cnn(64);
  CHECK(total(small) == "Total params: 93,322 (364.54 KB)");
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
  CHECK(summary(net) ==
        "Model: \"sequential\"\n"
        "_________________________________________________________________\n"
        "Layer (type)                 Output Shape              Param #\n"
        "=================================================================\n"
        "dense (Dense)                (None, 3)                 15\n"
        "_________________________________________________________________\n"
        "function (Function)          (None, 3)                 0\n"
        "_________________________________________________________________\n"
        "dropout (Dropout)            (None, 3)                 0\n"
        "_________________________________________________________________\n"
        "a_name_that_is_longer_than_i (None, 2)                 6\n"
        "=================================================================\n"
        "Total params: 21 (84.00 B)\n"
        "Trainable params: 6\n"
        "Non-trainable params: 15\n"
        "_________________________________________________________________\n");
}

TEST_CASE("summary: a module of one's own") {
  Residual net;
  CHECK(summary(net, {2}) ==
        "Model: \"Module\"\n"
        "_________________________________________________________________\n"
        "Layer (type)                 Output Shape              Param #\n"
        "=================================================================\n"
        "stem (Dense)                                           9\n"
        "_________________________________________________________________\n"
        "block (Block)                                          31\n"
        "_________________________________________________________________\n"
        "output                       (None, 3)                 0\n"
        "=================================================================\n"
        "Total params: 40 (160.00 B)\n"
        "Trainable params: 40\n"
        "Non-trainable params: 0\n"
        "_________________________________________________________________\n");
}

TEST_CASE("summary: a layer that is used twice counts once") {
  const auto tied = std::make_shared<Dense>(3);
  Sequential net({3}, {tied, relu, tied});
  CHECK(total(net) == "Total params: 12 (48.00 B)");
}

TEST_CASE("summary: builds the model, or says what it needs") {
  Sequential net({Flatten(), Dense(3)});
  CHECK_THROWS_WITH_AS(
      summary(net),
      "summary: the model has not seen its input; give the shape of a sample: summary(model, {28, 28, 1})",
      ValueError);
  CHECK(summary(net, {4, 2}).find("dense (Dense)                (None, 3)                 27\n") !=
        std::string::npos);
  CHECK(parameter_count(net) == 27);
}

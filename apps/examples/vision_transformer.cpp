// A small vision transformer (Dosovitskiy et al. 2021): a digit as 16 patches that look at one another.
// `example_vision_transformer 5` trains five epochs on MNIST, without an argument briefly on made-up digits.
#include <ebb/ebb.h>
#include <ebb/models/data/synthetic.h>

#include <cstdlib>
#include <iostream>
#include <vector>
using namespace ebb;

int main(int argc, char** argv) {
  const int epochs = argc > 1 ? std::atoi(argv[1]) : 0;
  const Mnist data = epochs ? find_dataset(DatasetName::mnist) : synthetic_digits(2000, 500);
  manual_seed(1);

  constexpr std::int64_t width = 48;
  Sequential net(Shape{28, 28, 1}, {Conv2D({.filters = width, .kernel = 7, .stride = 7}),  // (n, 4, 4, width)
                                    Reshape({16, width}), PositionEmbedding()});
  for (int block = 0; block < 2; ++block) {
    net.add(Residual({LayerNormalization(), MultiHeadAttention(4)}));
    net.add(Residual({LayerNormalization(), Dense(2 * width, gelu), Dense(width)}));
  }
  net.add(LayerNormalization());
  net.add([](const Tensor& x) { return mean(x, 1); });  // of the patches
  net.add(Dense(10));
  std::cout << summary(net);

  fit(net, Adam({.lr = 2e-3}), data.train, {.epochs = epochs ? epochs : 4, .batch = 50, .validation = data.test});
  const Metrics m = evaluate(net, data.test);
  std::cout << "accuracy on the test set: " << m.accuracy << '\n';
  return m.accuracy > 0.5 ? 0 : 1;
}

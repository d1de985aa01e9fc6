// An autoencoder: digits through 16 numbers and back. autoencoder.png shows eight digits above what became of them.
// `example_autoencoder 10` trains ten epochs on MNIST, without an argument briefly on made-up digits.
#include <ebb/ebb.h>
#include <ebb/models/data/synthetic.h>

#include <cstdlib>
#include <iostream>
using namespace ebb;

int main(int argc, char** argv) {
  const int epochs = argc > 1 ? std::atoi(argv[1]) : 0;
  const Mnist data = epochs ? find_dataset(DatasetName::mnist) : synthetic_digits(2000, 500);
  const Dataset train = data.train;
  manual_seed(1);

  Sequential net({28, 28, 1},
                 {Flatten(), Dense(128, relu), Dense(16),                // the encoder
                  Dense(128, relu), Dense(784), Reshape({28, 28, 1})});  // the decoder, to logits of pixels
  Adam opt({.lr = 2e-3});
  double first = 0, last = 0;
  for (int epoch = 0; epoch < (epochs ? epochs : 5); ++epoch) {
    double total = 0;
    const Batches batches(train, {.size = 64, .seed = 1, .stream = static_cast<std::uint64_t>(epoch)});
    for (auto [x, label] : batches) {
      const Tensor loss = bce_with_logits(net(x), x);  // the images are the labels
      opt.step(net, backward(loss));
      total += loss.item() / static_cast<double>(batches.count());
      if (first == 0) first = loss.item();
    }
    last = total;
    std::cout << "epoch " << epoch + 1 << ": loss " << last << '\n';
  }

  const NoGrad quiet;
  const Tensor shown = Batches(data.test, {.size = 8, .shuffle = false})[0].inputs;
  write_png("autoencoder.png", image_grid(concat({shown, sigmoid(net(shown))}, 0), 8));
  return last < 0.6 * first ? 0 : 1;
}

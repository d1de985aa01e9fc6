// An autoencoder: digits through 16 numbers and back. autoencoder.pgm shows eight digits above what became of them.
// `example_autoencoder 10` trains ten epochs on MNIST, without an argument briefly on made-up digits.
#include <ebb/ebb.h>
#include <ebb/models/synthetic.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iostream>
using namespace ebb;

// (h, w) floats, 0 black and 1 white.
void write_pgm(const char* path, const Tensor& picture) {
  std::ofstream out(path, std::ios::binary);
  out << "P5 " << picture.size(1) << ' ' << picture.size(0) << " 255\n";
  for (const float v : picture.values<float>()) out.put(static_cast<char>(std::lround(255 * std::clamp(v, 0.f, 1.f))));
}

// Images (n, 28, 28, 1) beside one another: (28, 28 n).
Tensor row(const Tensor& images) { return reshape(transpose(images, {1, 0, 2, 3}), {28, -1}); }

int main(int argc, char** argv) {
  const int epochs = argc > 1 ? std::atoi(argv[1]) : 0;
  const Mnist data = epochs ? find_dataset(DatasetName::mnist) : synthetic_digits(2000, 500);
  const Dataset train = data.train;
  manual_seed(1);

  Sequential net({28, 28, 1}, {Flatten(), Dense(128, relu), Dense(16),                   // the encoder
                               Dense(128, relu), Dense(784), Reshape({28, 28, 1})});     // the decoder, to logits of pixels
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
  write_pgm("autoencoder.pgm", concat({row(shown), row(sigmoid(net(shown)))}, 0));
  return last < 0.6 * first ? 0 : 1;
}

// A variational autoencoder (Kingma and Welling 2014): digits drawn from noise. vae.png shows new ones.
// `example_vae 20` trains twenty epochs on MNIST, without an argument briefly on made-up digits.
#include <ebb/ebb.h>
#include <ebb/models/data/synthetic.h>

#include <cstdlib>
#include <iostream>
using namespace ebb;

constexpr int latent = 8;

struct Vae : Module {
  Sequential encoder{Flatten(), Dense(128, relu)}, decoder{Dense(128, relu), Dense(784), Reshape({28, 28, 1})};
  Dense mean_of{latent}, log_variance_of{latent};

  // Minus the evidence lower bound, per image.
  Tensor loss(const Tensor& x) {
    const Tensor h = encoder(x), m = mean_of(h), log_v = log_variance_of(h);
    const Tensor z = m + exp(log_v * 0.5) * randn(m.shape());                 // a draw that gradients pass through
    const Tensor distance = sum(square(m) + exp(log_v) - log_v - 1.0) * 0.5;  // KL(N(m, v) || N(0, 1))
    return bce_with_logits(decoder(z), x) * 784.0 + distance / static_cast<double>(x.size(0));
  }
  Tensor forward(const Tensor& z) override { return sigmoid(decoder(z)); }
  void visit(Visitor& v) override {
    v("encoder", encoder), v("mean", mean_of), v("log_variance", log_variance_of), v("decoder", decoder);
  }
};

int main(int argc, char** argv) {
  const int epochs = argc > 1 ? std::atoi(argv[1]) : 0;
  const Mnist data = epochs ? find_dataset(DatasetName::mnist) : synthetic_digits(2000, 100);
  const Dataset train = data.train;
  manual_seed(1);

  Vae net;
  Adam opt({.lr = 2e-3});
  double first = 0, last = 0;
  for (int epoch = 0; epoch < (epochs ? epochs : 5); ++epoch) {
    double total = 0;
    const Batches batches(train, {.size = 64, .seed = 1, .stream = static_cast<std::uint64_t>(epoch)});
    for (auto [x, label] : batches) {
      const Tensor loss = net.loss(x);
      opt.step(net, backward(loss));
      total += loss.item() / static_cast<double>(batches.count());
      if (first == 0) first = loss.item();
    }
    last = total;
    std::cout << "epoch " << epoch + 1 << ": loss " << last << '\n';
  }

  const NoGrad quiet;
  const Tensor drawn = net(randn({40, latent}));  // five rows of eight
  write_png("vae.png", image_grid(drawn, 8));
  return last < 0.7 * first ? 0 : 1;
}

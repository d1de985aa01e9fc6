// Adversarial digits by the sign of the gradient with respect to the image (Goodfellow et al. 2015). adversarial.png
// shows eight digits above what fools the network. `example_adversarial 3` trains three epochs on MNIST, without an
// argument briefly on made-up digits.
#include <ebb/ebb.h>
#include <ebb/models/data/synthetic.h>

#include <cstdlib>
#include <iostream>
using namespace ebb;

int main(int argc, char** argv) {
  const int epochs = argc > 1 ? std::atoi(argv[1]) : 0;
  const Mnist data = epochs ? find_dataset(DatasetName::mnist) : synthetic_digits(3000, 500);
  manual_seed(1);
  Sequential net({28, 28, 1}, {Flatten(), Dense(128, relu), Dense(10)});
  fit(net, Adam(), data.train, {.epochs = epochs ? epochs : 5, .batch = 64});

  const auto [images, labels] = Batches(data.test, {.size = 500, .shuffle = false})[0];
  const auto accuracy = [&](const Tensor& x) {
    const NoGrad quiet;
    return static_cast<double>(count_correct(net(x), labels)) / static_cast<double>(x.size(0));
  };
  const Training off(false);  // gradients of the network as it is at inference
  const Tensor x = variable(images), g = grad(cross_entropy(net(x), labels), x);
  const Tensor sign = where(greater(g, 0.0), ones_like(g), -ones_like(g));
  const double before = accuracy(images);
  double after = before;
  for (const double step : {0.02, 0.05, 0.1}) {
    const Tensor changed = clip(images + sign * step, 0, 1);
    after = accuracy(changed);
    std::cout << "each pixel changed by " << step << ": accuracy " << before << " -> " << after << '\n';
    write_png("adversarial.png", image_grid(concat({images.rows(0, 8), changed.rows(0, 8)}, 0), 8));
  }
  return before > 0.7 && after < before / 2 ? 0 : 1;
}

// A recurrent network reads digits as 28 rows, one after the other. `example_gru_rows 3` trains three epochs on MNIST,
// without an argument briefly on made-up digits.
#include <ebb/ebb.h>
#include <ebb/models/data/synthetic.h>

#include <cstdlib>
#include <iostream>
using namespace ebb;

int main(int argc, char** argv) {
  const int epochs = argc > 1 ? std::atoi(argv[1]) : 0;
  const Mnist data = epochs ? find_dataset(DatasetName::mnist) : synthetic_digits(2000, 500);
  manual_seed(1);

  Sequential net({28, 28, 1}, {Reshape({28, 28}), GRU(48), Dense(10)});
  Adam opt({.lr = 5e-3});
  const auto clipped = [&](const Tensor& loss) {  // long chains of steps make steep gradients now and then
    Gradients g = backward(loss);
    for (auto& entry : g.entries()) entry.gradient = clip(entry.gradient, -0.1, 0.1);
    return g;
  };
  for (int epoch = 0; epoch < (epochs ? epochs : 4); ++epoch) {
    for (auto [x, label] : Batches(data.train, {.size = 50, .seed = 1, .stream = static_cast<std::uint64_t>(epoch)}))
      opt.step(net, clipped(cross_entropy(net(x), label)));
    std::cout << "epoch " << epoch + 1 << ": accuracy on the test set " << evaluate(net, data.test).accuracy << '\n';
  }
  return evaluate(net, data.test).accuracy > 0.5 ? 0 : 1;
}

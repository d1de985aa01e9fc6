// A training loop with nothing hidden: batches, forward, loss, backward, clipping, momentum, evaluation.
// `example_training_loop 5` trains five epochs on MNIST, without an argument briefly on made-up digits.
#include <ebb/ebb.h>
#include <ebb/models/data/synthetic.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <vector>
using namespace ebb;

int main(int argc, char** argv) {
  const int epochs = argc > 1 ? std::atoi(argv[1]) : 0;
  const Mnist data = epochs ? find_dataset(DatasetName::mnist) : synthetic_digits(3000, 500);
  const Dataset train = data.train, test = data.test;
  manual_seed(1);

  // Parameters are variables; a model is a function of them.
  Tensor w1 = variable(he_normal({784, 64}), "w1"), b1 = variable(zeros({64}), "b1");
  Tensor w2 = variable(glorot_uniform({64, 10}), "w2"), b2 = variable(zeros({10}), "b2");
  const auto model = [&](const Tensor& x) { return linear(relu(linear(flatten(x), w1, b1)), w2, b2); };

  std::vector<Tensor> parameters{w1, b1, w2, b2}, speeds;
  for (const Tensor& p : parameters) speeds.push_back(zeros_like(p));
  double accuracy = 0;
  for (int epoch = 0; epoch < (epochs ? epochs : 4); ++epoch) {
    const double lr = 0.05 * std::pow(0.7, epoch);
    double total = 0;
    const Batches batches(train, {.size = 64, .seed = 1, .stream = static_cast<std::uint64_t>(epoch)});
    for (auto [x, labels] : batches) {
      const Tensor loss = cross_entropy(model(x), labels);
      const Gradients g = backward(loss);  // a value; the graph is gone

      double squares = 0;
      for (const Tensor& p : parameters) squares += sum(square(g[p])).item();
      const double shrink = std::min(1.0, 5.0 / std::sqrt(squares));  // no longer than 5
      for (std::size_t i = 0; i < parameters.size(); ++i) {
        speeds[i] = speeds[i] * 0.9 - g[parameters[i]] * (lr * shrink);
        parameters[i].assign(parameters[i] + speeds[i]);
      }
      total += loss.item() / static_cast<double>(batches.count());
    }

    const NoGrad quiet;
    double correct = 0;
    for (auto [x, labels] : Batches(test, {.size = 250, .shuffle = false}))
      correct += static_cast<double>(count_correct(model(x), labels));
    accuracy = correct / static_cast<double>(test.size());
    std::cout << "epoch " << epoch + 1 << ": loss " << total << ", accuracy on the test set " << accuracy << '\n';
  }
  return accuracy > 0.7 ? 0 : 1;
}

// A multilayer perceptron for digits. `example_mlp 5` trains five epochs on MNIST, without an argument briefly on
// made-up digits.
#include <ebb/ebb.h>
#include <ebb/models/data/synthetic.h>

#include <cstdlib>
#include <iostream>
using namespace ebb;

int main(int argc, char** argv) {
  const int epochs = argc > 1 ? std::atoi(argv[1]) : 0;
  const Mnist data = epochs ? find_dataset(DatasetName::mnist) : synthetic_digits(3000, 500);
  manual_seed(1);  // of the initial weights

  Sequential net({28, 28, 1}, {Flatten(), Dense(128, relu), Dropout(0.2), Dense(10)});
  std::cout << summary(net);
  fit(net, Adam(), data.train,
      {.epochs = epochs ? epochs : 4,
       .batch = 64,
       .validation = data.test,
       .callbacks = {EarlyStopping({.patience = 3})}});
  const Metrics m = evaluate(net, data.test);
  std::cout << "accuracy on the test set: " << m.accuracy << '\n';
  return m.accuracy > 0.7 ? 0 : 1;
}

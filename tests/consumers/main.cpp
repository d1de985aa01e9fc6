// What each consumer builds: trains a small network, prints its loss, and catches an error of ebb's by its type.
#include <ebb/ebb.h>

#include <cstdio>

int main() {
  ebb::manual_seed(1);
  const ebb::Tensor x = ebb::randn({64, 2});
  const ebb::Tensor y = ebb::greater(ebb::sum(ebb::square(x), 1), 1.4);  // outside of a circle, or in it
  ebb::Sequential net({2}, {ebb::Dense(16, ebb::tanh), ebb::Dense(2)});
  ebb::Adam adam({.lr = 0.05});
  double first = 0, last = 0;
  for (int step = 0; step < 100; ++step) {
    const ebb::Tensor loss = ebb::cross_entropy(net(x), y);
    adam.step(net, ebb::backward(loss));
    (step ? last : first) = loss.item();
  }
  std::printf("loss %.4f, at the first step %.4f\n", last, first);
  try {
    net(ebb::zeros({1, 3}));
  } catch (const ebb::ShapeError& e) {
    std::printf("%s\n", e.what());
    return last < 0.3 * first ? 0 : 1;
  }
  return 1;
}

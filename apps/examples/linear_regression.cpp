// Linear regression: find the numbers that made the data.
#include <ebb/ebb.h>

#include <iostream>
using namespace ebb;

int main() {
  const Tensor x = randn({200, 3}), truth = tensor({2, -1, 0.5}, {3, 1});
  const Tensor y = matmul(x, truth) + 0.7 + randn({200, 1}) * 0.01;
  Tensor w = variable(zeros({3, 1})), b = variable(zeros({1}));
  for (int step = 0; step < 100; ++step) {
    const Gradients g = backward(mse(linear(x, w, b), y));
    w.assign(w - g[w] * 0.2);
    b.assign(b - g[b] * 0.2);
  }
  for (const double v : w.to_vector()) std::cout << v << ' ';
  std::cout << "and " << b.item() << ", from 2 -1 0.5 and 0.7\n";
  return max(abs(w - truth)).item() < 0.01 ? 0 : 1;
}

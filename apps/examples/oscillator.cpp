// A network that solves a differential equation (Raissi et al. 2019): u'' = -u with u(0) = 1, u'(0) = 0, whose solution
// is cos t. No data: the loss is how far the network is from obeying. `example_oscillator 5000` takes 5000 steps.
#include <ebb/ebb.h>

#include <cstdlib>
#include <iostream>
using namespace ebb;

int main(int argc, char** argv) {
  const int steps = argc > 1 ? std::atoi(argv[1]) : 1500;
  manual_seed(1);
  Sequential net({1}, {Dense(32, tanh), Dense(32, tanh), Dense(1)});
  const auto u = [&](const Tensor& t) {
    return square(t) * net(t) + 1.0;
  };  // obeys both conditions at 0, whatever the network is

  Adam opt({.lr = 3e-3});
  for (int step = 0; step < steps; ++step) {
    if (step == steps * 2 / 3) opt.set_lr(5e-4);
    const Tensor t = variable(rand({64, 1}) * 4.0);
    const Tensor y = u(t);
    const Tensor velocity = grad(sum(y), t, {.create_graph = true});             // u'
    const Tensor acceleration = grad(sum(velocity), t, {.create_graph = true});  // u''
    const Tensor loss = mean(square(acceleration + y));
    opt.step(net, backward(loss));
    if (step % 300 == 0) std::cout << "step " << step << ": loss " << loss.item() << '\n';
  }

  const NoGrad quiet;
  const Tensor t = reshape(arange(81), {81, 1}) * 0.05;  // 0 to 4
  const double error = max(abs(u(t) - cos(t))).item();
  std::cout << "largest error on [0, 4]: " << error << '\n';
  return error < 0.1 ? 0 : 1;
}

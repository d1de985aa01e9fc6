// Two networks against each other (Goodfellow et al. 2014), each with an optimizer of its own: one makes points, the
// other tells them from points on a circle. `example_gan 5000` takes 5000 steps.
#include <ebb/ebb.h>

#include <cmath>
#include <cstdlib>
#include <iostream>
#include <numbers>
using namespace ebb;

Tensor circle(std::int64_t n) {
  const Tensor angle = rand({n, 1}) * (2 * std::numbers::pi);
  return concat({cos(angle), sin(angle)}, 1) + randn({n, 2}) * 0.05;
}

int main(int argc, char** argv) {
  const int steps = argc > 1 ? std::atoi(argv[1]) : 1200;
  manual_seed(1);
  constexpr std::int64_t n = 128;

  Sequential generator({4}, {Dense(48, relu), Dense(48, relu), Dense(2)});
  const auto leaky = [](const Tensor& x) { return leaky_relu(x, 0.2); };
  Sequential judge({2}, {Dense(48), leaky, Dense(48), leaky, Dense(1)});  // a logit: real or not
  Adam makes({.lr = 1e-3, .beta1 = 0.5}), judges({.lr = 1e-3, .beta1 = 0.5});
  const Tensor real = ones({n, 1}), made = zeros({n, 1});

  for (int step = 0; step < steps; ++step) {
    const Tensor points = generator(randn({n, 4}));
    const Tensor mistakes = bce_with_logits(judge(circle(n)), real) + bce_with_logits(judge(points.detach()), made);
    judges.step(judge, backward(mistakes));

    const Tensor caught =
        bce_with_logits(judge(points), real);  // gradients pass through the judge, steps only the generator
    makes.step(generator, backward(caught));
    if (step % 200 == 0)
      std::cout << "step " << step << ": judge " << mistakes.item() << ", generator " << caught.item() << '\n';
  }

  const NoGrad quiet;
  const Tensor points = generator(randn({2000, 4})), radius = sqrt(sum(square(points), 1));
  const double r = mean(radius).item(), spread = std::sqrt(variance(radius).item());
  const Tensor center = mean(points, 0);
  std::cout << "radius " << r << " +- " << spread << ", center " << center.to_vector()[0] << ' '
            << center.to_vector()[1] << '\n';
  return std::abs(r - 1) < 0.25 && spread < 0.35 && max(abs(center)).item() < 0.4 ? 0 : 1;
}

// A network whose graph depends on its data: a cell that is applied as often as the list is long, to find the mean of
// the list. `example_dynamic_graph 5000` takes 5000 steps.
#include <ebb/ebb.h>

#include <cmath>
#include <cstdlib>
#include <iostream>
#include <vector>
using namespace ebb;

struct Reader : Module {
  Dense cell{16, tanh}, answer{1};
  Tensor read(const std::vector<float>& list) {
    Tensor h = zeros({1, 16});
    for (const float v : list) h = cell(concat({h, full({1, 1}, v)}, 1));  // an ordinary loop is recorded as it runs
    return answer(h);
  }
  Tensor forward(const Tensor& x) override {
    const auto v = x.values<float>();
    return read({v.begin(), v.end()});
  }
  void visit(Visitor& v) override { v("cell", cell), v("answer", answer); }
};

int main(int argc, char** argv) {
  const int steps = argc > 1 ? std::atoi(argv[1]) : 1500;
  manual_seed(1);
  Generator random(2);
  const auto list = [&] {
    std::vector<float> out(1 + random.below(6));
    for (float& v : out) v = static_cast<float>(2 * random.uniform() - 1);
    return out;
  };
  const auto mean_of = [](const std::vector<float>& v) {
    double total = 0;
    for (const float x : v) total += x;
    return total / static_cast<double>(v.size());
  };

  Reader net;
  Adam opt({.lr = 3e-3});
  const auto error = [&](const std::vector<float>& v) { return square(net.read(v) - mean_of(v)); };
  for (int step = 0; step < steps; ++step) {
    Tensor loss = scalar(0);
    for (int k = 0; k < 8; ++k) loss = loss + sum(error(list())) / 8.0;
    if (step < 3) std::cout << "step " << step << ": a graph of " << Graph(loss).nodes().size() << " nodes\n";
    opt.step(net, backward(loss));
  }

  const NoGrad quiet;
  double total = 0;
  for (int k = 0; k < 200; ++k) total += sum(error(list())).item() / 200;
  const std::vector<float> example{0.5f, -0.1f, 0.8f};
  std::cout << "mean of 0.5 -0.1 0.8: " << net.read(example).item() << ", root of the mean squared error "
            << std::sqrt(total) << '\n';
  return std::sqrt(total) < 0.15 ? 0 : 1;
}

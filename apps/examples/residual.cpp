// A residual network for digits as a struct: members, forward, and one line naming them. `example_residual 3` trains
// three epochs on MNIST, without an argument briefly on made-up digits.
#include <ebb/ebb.h>
#include <ebb/models/data/synthetic.h>

#include <cstdlib>
#include <iostream>
using namespace ebb;

struct ResNet : Module {
  Conv2D stem{{.filters = 16}}, a{{.filters = 16, .pad = Padding::same()}}, b{{.filters = 16, .pad = Padding::same()}};
  BatchNormalization norm_a{{.momentum = 0.9}}, norm_b{{.momentum = 0.9}};  // quick to follow: a short training
  Dense head{10};

  Tensor forward(const Tensor& x) override {
    const Tensor h = max_pool2d(relu(stem(x)));  // (n, 13, 13, 16)
    const Tensor f = norm_b(b(relu(norm_a(a(h)))));
    return head(mean(relu(h + f), {1, 2}));
  }
  void visit(Visitor& v) override {
    v("stem", stem), v("a", a), v("norm_a", norm_a), v("b", b), v("norm_b", norm_b), v("head", head);
  }
};

int main(int argc, char** argv) {
  const int epochs = argc > 1 ? std::atoi(argv[1]) : 0;
  const Mnist data = epochs ? find_dataset(DatasetName::mnist) : synthetic_digits(2000, 500);
  manual_seed(1);

  ResNet net;
  fit(net, Adam({.lr = 3e-3}), data.train, {.epochs = epochs ? epochs : 4, .batch = 32, .validation = data.test});
  save(net, "resnet.safetensors");
  const Metrics m = evaluate(net, data.test);
  std::cout << "accuracy on the test set: " << m.accuracy << '\n';
  return m.accuracy > 0.4 ? 0 : 1;
}

// A residual network for digits: members, forward, and one line naming them.
#include <ebb/ebb.h>
using namespace ebb;

struct ResNet : Module {
  Conv2D stem{{.filters = 32}}, a{{.filters = 32, .pad = Padding::same()}}, b{{.filters = 32, .pad = Padding::same()}};
  Dense head{10};
  Tensor forward(const Tensor& x) override {
    Tensor h = max_pool2d(relu(stem(x)));
    return head(mean(relu(h + b(relu(a(h)))), {1, 2}));
  }
  void visit(Visitor& v) override { v("stem", stem), v("a", a), v("b", b), v("head", head); }
};

int main() {
  Mnist data = find_dataset(DatasetName::mnist);
  ResNet net;
  fit(net, Adam(), data.train, {.epochs = 3, .batch = 64, .validation = data.test});
  save(net, "resnet.safetensors");
}

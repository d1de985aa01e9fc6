// The defaults of the library beside those of Keras 3.6 (keras.io/api). Where ebb differs, the row says why.
#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include <ebb/models/layers.h>
#include <ebb/models/train.h>
#include <ebb/ops/ops.h>

using namespace ebb;

namespace {

struct Row {
  template <class T>  // a number or a switch
  Row(const char* name, T ebb, double other, const char* reason = nullptr)
      : what(name), ours(static_cast<double>(ebb)), keras(other), why(reason) {}
  std::string what;
  double ours, keras;
  const char* why;  ///< why they differ
};

/// Equal where no reason is given, different where one is: a reason that no longer holds is dropped.
void check(const std::vector<Row>& rows) {
  for (const Row& r : rows) {
    CAPTURE(r.what);
    CAPTURE(r.ours);
    CAPTURE(r.keras);
    CHECK((r.ours == r.keras) == (r.why == nullptr));
  }
}

}  // namespace

TEST_CASE("defaults: optimizers have those of Keras, each option of each") {
  const std::map<std::string, std::map<std::string, double>> keras{
      {"sgd", {{"lr", .01}, {"momentum", 0}, {"nesterov", 0}, {"weight_decay", 0}}},
      {"rmsprop",
       {{"lr", .001},
        {"rho", .9},
        {"momentum", 0},
        {"epsilon", 1e-7},
        {"centered", 0},
        {"epsilon_inside_sqrt", 1},
        {"weight_decay", 0}}},
      {"adam", {{"lr", .001}, {"beta1", .9}, {"beta2", .999}, {"epsilon", 1e-7}, {"weight_decay", 0}}},
      {"adamw", {{"lr", .001}, {"beta1", .9}, {"beta2", .999}, {"epsilon", 1e-7}, {"weight_decay", .004}}},
      // momentum_decay: the factor of the exponent in Keras' formula, which has no option for it
      {"nadam",
       {{"lr", .001}, {"beta1", .9}, {"beta2", .999}, {"epsilon", 1e-7}, {"momentum_decay", 1}, {"weight_decay", 0}}},
      {"adagrad", {{"lr", .001}, {"initial_accumulator_value", .1}, {"epsilon", 1e-7}, {"weight_decay", 0}}},
      {"lion", {{"lr", .001}, {"beta1", .9}, {"beta2", .99}, {"weight_decay", 0}}}};
  for (const std::string& name : optimizer_names()) {
    CAPTURE(name);
    REQUIRE_MESSAGE(keras.contains(name), "a row is missing here");
    CHECK(make_optimizer(name)->options() == keras.at(name));
  }
  CHECK(keras.size() == optimizer_names().size());
}

TEST_CASE("defaults: layers have those of Keras") {
  const auto same = [](Padding p) { return p.is_same ? 1. : 0.; };
  const auto one = [](Pair p) { return p.h == p.w ? static_cast<double>(p.h) : -1; };
  const char* asked = "Keras has no default and asks for it";
  check({
      {"Dense: weight is glorot_uniform", DenseOptions{}.weight_init == glorot_uniform, 1},
      {"Dense: bias is zeros", DenseOptions{}.bias_init == zeros_init, 1},
      {"Dense: bias", DenseOptions{}.use_bias, 1},
      {"Dense: activation", DenseOptions{}.activation != nullptr, 0},
      {"Conv2D: weight is glorot_uniform", Conv2DOptions{}.weight_init == glorot_uniform, 1},
      {"Conv2D: bias is zeros", Conv2DOptions{}.bias_init == zeros_init, 1},
      {"Conv2D: bias", Conv2DOptions{}.use_bias, 1},
      {"Conv2D: stride", one(Conv2DOptions{}.stride), 1},
      {"Conv2D: dilation", one(Conv2DOptions{}.dilation), 1},
      {"Conv2D: groups", static_cast<double>(Conv2DOptions{}.groups), 1},
      {"Conv2D: padding is same", same(Conv2DOptions{}.pad), 0},
      {"Conv2D: kernel", one(Conv2DOptions{}.kernel), 0, asked},
      {"DepthwiseConv2D: multiplier", static_cast<double>(DepthwiseConv2DOptions{}.multiplier), 1},
      {"DepthwiseConv2D: stride", one(DepthwiseConv2DOptions{}.stride), 1},
      {"DepthwiseConv2D: padding is same", same(DepthwiseConv2DOptions{}.pad), 0},
      {"DepthwiseConv2D: weight is glorot_uniform", DepthwiseConv2DOptions{}.weight_init == glorot_uniform, 1},
      {"DepthwiseConv2D: kernel", one(DepthwiseConv2DOptions{}.kernel), 0, asked},
      {"Conv2DTranspose: stride", one(Conv2DTransposeOptions{}.stride), 1},
      {"Conv2DTranspose: padding is same", same(Conv2DTransposeOptions{}.pad), 0},
      {"Conv2DTranspose: weight is glorot_uniform", Conv2DTransposeOptions{}.weight_init == glorot_uniform, 1},
      {"Conv2DTranspose: kernel", one(Conv2DTransposeOptions{}.kernel), 0, asked},
      {"MaxPool2D: size", one(PoolOptions{}.size), 2},
      {"MaxPool2D: padding is same", same(PoolOptions{}.pad), 0},
      {"Dropout: rate", DropoutOptions{}.rate, 0, asked},
      {"BatchNormalization: momentum", BatchNormalizationOptions{}.momentum, .99},
      {"BatchNormalization: epsilon", BatchNormalizationOptions{}.epsilon, 1e-3},
      {"BatchNormalization: scale", BatchNormalizationOptions{}.scale, 1},
      {"BatchNormalization: center", BatchNormalizationOptions{}.center, 1},
      {"LayerNormalization: epsilon", LayerNormalizationOptions{}.epsilon, 1e-3},
      {"LayerNormalization: scale", LayerNormalizationOptions{}.scale, 1},
      {"LayerNormalization: center", LayerNormalizationOptions{}.center, 1},
      {"GroupNormalization: groups", static_cast<double>(GroupNormalizationOptions{}.groups), 32},
      {"GroupNormalization: epsilon", GroupNormalizationOptions{}.epsilon, 1e-3},
      {"GroupNormalization: scale", GroupNormalizationOptions{}.scale, 1},
      {"GroupNormalization: center", GroupNormalizationOptions{}.center, 1},
      {"LSTM, GRU, SimpleRNN: weight is glorot_uniform", RecurrentOptions{}.weight_init == glorot_uniform, 1},
      {"LSTM, GRU, SimpleRNN: recurrent weight is orthogonal", RecurrentOptions{}.recurrent_init == orthogonal, 1},
      {"LSTM, GRU, SimpleRNN: return_sequences", RecurrentOptions{}.return_sequences, 0},
      {"MultiHeadAttention: bias", MultiHeadAttentionOptions{}.use_bias, 1},
      {"MultiHeadAttention: causal", MultiHeadAttentionOptions{}.causal, 0},
  });
  const Tensor below = Tensor::from(std::vector<double>{-1}, {1}), big = Tensor::from(std::vector<double>{3}, {1});
  check({
      {"leaky_relu: slope", -leaky_relu(below).item(), .3},  // of the layer LeakyReLU
      {"elu: alpha", -elu(below).item() / (1 - std::exp(-1.)), 1},
      {"huber: delta", huber(big, zeros({1}, f64)).item(), 2.5},  // 3 - 1/2
  });
}

TEST_CASE("defaults: training has those of Keras") {
  const FitOptions fit;
  const EarlyStoppingOptions stop;
  const ReduceLROnPlateauOptions plateau;
  const ModelCheckpointOptions checkpoint;
  const char* large = "the results are the same; larger batches are faster";
  check({
      {"fit: batch", static_cast<double>(fit.batch), 32},
      {"fit: epochs", static_cast<double>(fit.epochs), 1},
      {"fit: shuffle", fit.shuffle, 1},
      {"fit: validation_split", fit.validation_split, 0},
      {"fit: clip_norm", fit.clip_norm, 0},
      {"fit: clip_value", fit.clip_value, 0},
      {"evaluate: batch", static_cast<double>(EvaluateOptions{}.batch), 32, large},
      {"predict: batch", static_cast<double>(PredictOptions{}.batch), 32, large},
      {"EarlyStopping: min_delta", stop.min_delta, 0},
      {"EarlyStopping: patience", static_cast<double>(stop.patience), 0},
      {"EarlyStopping: restore_best", stop.restore_best, 0},
      {"ReduceLROnPlateau: factor", plateau.factor, .1},
      {"ReduceLROnPlateau: patience", static_cast<double>(plateau.patience), 10},
      {"ReduceLROnPlateau: min_delta", plateau.min_delta, 1e-4},
      {"ReduceLROnPlateau: cooldown", static_cast<double>(plateau.cooldown), 0},
      {"ReduceLROnPlateau: min_lr", plateau.min_lr, 0},
      {"ModelCheckpoint: best_only", checkpoint.best_only, 0},
  });
  for (const std::string& monitor : {stop.monitor, plateau.monitor, checkpoint.monitor}) CHECK(monitor == "val_loss");
}

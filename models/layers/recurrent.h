// Recurrent layers, with Keras' formulas and order of gates.
#pragma once
#include <cstdint>
#include <string_view>

#include <ebb/models/layers/layers.h>

namespace ebb {

/// Options for Recurrent.
struct RecurrentOptions {
  std::int64_t units = 0;                    ///< size of the state
  bool return_sequences = false;             ///< all states (n, t, units) instead of the last one (n, units)
  Initializer weight_init = glorot_uniform;  ///< first values of the weight
  Initializer recurrent_init = orthogonal;   ///< first values of the recurrent weight
};

/// Base of the recurrent layers: (n, t, in) to (n, units), or (n, t, units). The state starts at zero.
class Recurrent : public Module {
 public:
  Tensor forward(const Tensor& x) override;
  void visit(Visitor& v) override;
  const RecurrentOptions& options() const { return options_; }  ///< as given
  Tensor weight, recurrent_weight, bias;                        ///< undefined until built

 protected:
  Recurrent(RecurrentOptions options, std::string_view type, std::int64_t gates);  ///< ValueError on units below 1
  virtual void make(const Tensor& x);                                              ///< parameters for inputs like x
  /// The next state h (n, units) from x W + b of this step (n, gates * units) and the state; `carry` is a second one.
  virtual Tensor step(const Tensor& xw, const Tensor& h, Tensor& carry) = 0;
  /// Gate i of a row of gates.
  Tensor gate(const Tensor& rows, std::int64_t i) const;
  Tensor recurrent(const Tensor& h) const {
    return matmul(h, recurrent_weight);
  }  ///< the state times the recurrent weight

  RecurrentOptions options_;  ///< as given

 private:
  std::string_view type_;
  std::int64_t gates_;
};

/// h = tanh(x W + h U + b). Parameters: weight W (in, u), recurrent_weight U (u, u), bias b (u).
class SimpleRNN : public Recurrent {
 public:
  explicit SimpleRNN(RecurrentOptions options)
      : Recurrent(options, "SimpleRNN", 1) {}  ///< ValueError on options out of range
  explicit SimpleRNN(std::int64_t units)
      : SimpleRNN(RecurrentOptions{units}) {}  ///< ValueError on options out of range
  std::string_view type() const override { return "SimpleRNN"; }

 protected:
  Tensor step(const Tensor& xw, const Tensor& h, Tensor& carry) override;
};

/// z = s(x Wz + bz + h Uz + cz), r = s(x Wr + br + h Ur + cr), h' = z h + (1 - z) tanh(x Wh + bh + r (h Uh + ch)): Cho
/// et al. 2014 with the reset gate after the product, as Keras 2 and 3 and PyTorch. Parameters, gates in the order z,
/// r, h: weight (in, 3u), recurrent_weight (u, 3u), bias (3u), recurrent_bias (3u).
class GRU : public Recurrent {
 public:
  explicit GRU(RecurrentOptions options) : Recurrent(options, "GRU", 3) {}  ///< ValueError on options out of range
  explicit GRU(std::int64_t units) : GRU(RecurrentOptions{units}) {}        ///< ValueError on options out of range
  void visit(Visitor& v) override;
  std::string_view type() const override { return "GRU"; }
  Tensor recurrent_bias;  ///< undefined until built

 protected:
  void make(const Tensor& x) override;  ///< parameters for inputs like x
  Tensor step(const Tensor& xw, const Tensor& h, Tensor& carry) override;
};

/// i, f, o = s(x W + h U + b), c' = f c + i tanh(x Wc + h Uc + bc), h' = o tanh(c') (Hochreiter and Schmidhuber 1997,
/// Gers et al. 2000). Parameters, gates in the order i, f, c, o: weight (in, 4u), recurrent_weight (u, 4u), bias (4u),
/// whose forget gate starts at 1 as in Keras.
class LSTM : public Recurrent {
 public:
  explicit LSTM(RecurrentOptions options) : Recurrent(options, "LSTM", 4) {}  ///< ValueError on options out of range
  explicit LSTM(std::int64_t units) : LSTM(RecurrentOptions{units}) {}        ///< ValueError on options out of range
  std::string_view type() const override { return "LSTM"; }

 protected:
  void make(const Tensor& x) override;  ///< parameters for inputs like x
  Tensor step(const Tensor& xw, const Tensor& h, Tensor& carry) override;
};

}  // namespace ebb

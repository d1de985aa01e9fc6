// Layers of transformers.
#pragma once
#include <cstdint>
#include <string_view>

#include <ebb/models/layers/layers.h>

namespace ebb {

/// softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017, eq. 1): q (..., t, d), k (..., s, d), v (..., s, e) to (..., t, e).
/// Causal: step i sees steps up to i only.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, bool causal = false);

/// Options for MultiHeadAttention.
struct MultiHeadAttentionOptions {
  std::int64_t heads = 0;    ///< number of heads
  std::int64_t key_dim = 0;  ///< size of a key of each head; 0: features / heads
  bool causal = false;       ///< no step sees a later one
  bool use_bias = true;      ///< the dense layers add a bias
};
/// Self-attention, (n, t, d) to the same: `heads` attentions side by side between dense layers. Parameters:
/// query.weight, key.weight, value.weight (d, heads * key_dim), output.weight (heads * key_dim, d) and their biases.
class MultiHeadAttention : public Module {
 public:
  explicit MultiHeadAttention(MultiHeadAttentionOptions options);  ///< ValueError on options out of range
  explicit MultiHeadAttention(std::int64_t heads)
      : MultiHeadAttention(MultiHeadAttentionOptions{heads}) {}  ///< ValueError on options out of range
  Tensor forward(const Tensor& x) override { return attend(x, x); }
  /// Cross-attention: x (n, t, d) looks at memory (n, s, e).
  Tensor attend(const Tensor& x, const Tensor& memory);
  void visit(Visitor& v) override;
  std::string_view type() const override { return "MultiHeadAttention"; }
  const MultiHeadAttentionOptions& options() const { return options_; }  ///< as given

 private:
  void make(std::int64_t features);
  MultiHeadAttentionOptions options_;
  Dense query_{1}, key_{1}, value_{1}, output_{1};  // made for the input's size by the first pass
  bool made_ = false;
};

/// (n, t, d) to the same: adds one trained vector per place. Parameter: weight (t, d).
class PositionEmbedding : public Module {
 public:
  Tensor forward(const Tensor& x) override;
  void visit(Visitor& v) override { v("weight", weight); }
  std::string_view type() const override { return "PositionEmbedding"; }
  Tensor weight;  ///< undefined until built
};

}  // namespace ebb

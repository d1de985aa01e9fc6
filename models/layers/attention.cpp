#include <ebb/models/layers/attention.h>

#include <fmt/core.h>

#include <cmath>
#include <limits>

#include <ebb/graph/composition.h>
#include <ebb/graph/error.h>

namespace ebb {
namespace {

/// (t, s) of 0, and minus infinity where step j lies after step i.
Tensor causal_mask(std::int64_t t, std::int64_t s, DType dtype) {
  Tensor mask = zeros({t, s}, dtype);
  visit_float(dtype, [&]<class T>(T) {
    T* p = mask.mutable_values<T>().data();
    for (std::int64_t i = 0; i < t; ++i)
      for (std::int64_t j = i + 1; j < s; ++j) p[i * s + j] = -std::numeric_limits<T>::infinity();
  });
  return mask;
}

/// A small normal, as transformers' tables usually start.
Tensor table_init(const Shape& shape, DType dtype) { return normal(shape, 0, 0.02, dtype); }

}  // namespace

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, bool causal) {
  Composition whole("attention");
  Tensor scores = matmul(q / std::sqrt(static_cast<double>(q.size(-1))), k, {.transpose_b = true});
  if (causal && scores.numel() > 0) scores = scores + causal_mask(q.size(-2), k.size(-2), q.dtype());
  return whole.gives(matmul(softmax(scores), v), {&q, &k, &v}, [=] { return Attributes{{"causal", causal}}; });
}

MultiHeadAttention::MultiHeadAttention(MultiHeadAttentionOptions options) : options_(options) {
  if (options.heads < 1)
    throw ValueError(fmt::format("MultiHeadAttention: heads must be at least 1, got {}", options.heads));
  detail::expect(options.key_dim >= 0, "MultiHeadAttention", "key_dim must not be negative",
                 static_cast<double>(options.key_dim));
}

void MultiHeadAttention::make(std::int64_t features) {
  const std::int64_t d = options_.key_dim ? options_.key_dim : features / options_.heads;
  if (d < 1 || (!options_.key_dim && features % options_.heads))
    fail<ShapeError>("MultiHeadAttention", fmt::format("{} features cannot be shared among {} heads; give key_dim",
                                                       features, options_.heads));
  const DenseOptions inner{.units = d * options_.heads, .use_bias = options_.use_bias};
  query_ = Dense(inner), key_ = Dense(inner), value_ = Dense(inner);
  output_ = Dense({.units = features, .use_bias = options_.use_bias});
  query_.set_name("query"), key_.set_name("key"), value_.set_name("value"), output_.set_name("output");
  made_ = true;
}

Tensor MultiHeadAttention::attend(const Tensor& x, const Tensor& memory) {
  if (x.rank() != 3 || memory.rank() != 3)
    fail<ShapeError>("MultiHeadAttention", fmt::format("needs sequences (n, steps, features), got {}",
                                                       (x.rank() == 3 ? memory : x).shape().str()));
  if (!made_) make(x.size(2));
  const auto heads = [&](const Tensor& rows) {  // (n, t, h * d) to (n, h, t, d)
    return transpose(reshape(rows, {rows.size(0), rows.size(1), options_.heads, rows.size(2) / options_.heads}),
                     {0, 2, 1, 3});
  };
  const Tensor y = attention(heads(query_(x)), heads(key_(memory)), heads(value_(memory)), options_.causal);
  return output_(reshape(transpose(y, {0, 2, 1, 3}), {x.size(0), x.size(1), y.size(1) * y.size(3)}));
}

void MultiHeadAttention::visit(Visitor& v) {
  v("query", query_), v("key", key_), v("value", value_), v("output", output_);
}

Tensor PositionEmbedding::forward(const Tensor& x) {
  if (x.rank() != 3)
    fail<ShapeError>("PositionEmbedding", fmt::format("needs sequences (n, steps, features), got {}", x.shape().str()));
  if (!weight.defined()) weight = make_parameter(table_init, {x.size(1), x.size(2)}, x, "weight");
  return x + weight;
}

}  // namespace ebb

// Initial values of parameters.
#pragma once
#include <string_view>

#include <ebb/graph/tensor.h>

namespace ebb {

/// Makes a parameter of a shape and dtype from the default generator. Fans are those of a dense weight (in, out) or a
/// convolution's weight (kh, kw, in, out): fan_in = kh kw in, fan_out = kh kw out, as in Keras.
using Initializer = Tensor (*)(const Shape& shape, DType dtype);

Tensor zeros_init(const Shape& shape, DType dtype = DType::f32);  ///< all 0
Tensor ones_init(const Shape& shape, DType dtype = DType::f32);   ///< all 1
/// U(-l, l), l = sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, eq. 16).
Tensor glorot_uniform(const Shape& shape, DType dtype = DType::f32);
/// Normal cut off at two deviations, variance 2 / (fan_in + fan_out).
Tensor glorot_normal(const Shape& shape, DType dtype = DType::f32);
/// U(-l, l), l = sqrt(6 / fan_in) (He et al. 2015, section 2.2).
Tensor he_uniform(const Shape& shape, DType dtype = DType::f32);
/// Normal cut off at two deviations, variance 2 / fan_in.
Tensor he_normal(const Shape& shape, DType dtype = DType::f32);
/// U(-l, l), l = sqrt(3 / fan_in) (LeCun et al. 1998, section 4.6; for selu).
Tensor lecun_uniform(const Shape& shape, DType dtype = DType::f32);
/// Normal cut off at two deviations, variance 1 / fan_in.
Tensor lecun_normal(const Shape& shape, DType dtype = DType::f32);
/// Orthonormal columns, or rows where those are fewer, of the weight as a matrix (all other axes, last axis): the Q of
/// a standard normal matrix, with R's diagonal positive (Saxe et al. 2014; for recurrent weights).
Tensor orthogonal(const Shape& shape, DType dtype = DType::f32);

/// A parameter for the layer that is running: in the dtype of its input `like`, named after the layer's path.
Tensor make_parameter(Initializer init, const Shape& shape, const Tensor& like, std::string_view name);

namespace detail {
/// Throws ValueError, naming the layer, on a null initializer.
void expect_initializers(std::string_view layer, Initializer weight_init, Initializer bias_init);
}  // namespace detail

}  // namespace ebb

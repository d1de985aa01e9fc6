// Tensor: the only value type a user meets.
#pragma once
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <ebb/graph/dtype.h>
#include <ebb/graph/node.h>
#include <ebb/graph/ref.h>
#include <ebb/graph/shape.h>
#include <ebb/graph/storage.h>

namespace ebb {

/// A cheap handle on {storage, shape, dtype, node}. Dense, row-major, eager: the value is there. Copies share the
/// storage. Without a node it is a constant; with one it is part of a recorded graph and gradients flow through it.
class Tensor {
 public:
  /// An undefined tensor: defined() is false, and nothing else may be asked of it.
  Tensor() = default;
  /// Engine use: a view of some bytes of a storage.
  Tensor(Ref<Storage> storage, std::byte* data, const Shape& shape, DType dtype, Ref<Node> node = {})
      : storage_(std::move(storage)), data_(data), node_(std::move(node)), shape_(shape), dtype_(dtype) {}

  /// Uninitialised elements.
  static Tensor empty(const Shape& shape, DType dtype = DType::f32);
  /// The same for a kernel to work in: counted apart from values, see Storage.
  static Tensor workspace(const Shape& shape, DType dtype = DType::f32);
  /// A copy of `values`, which must be as many as the shape has elements.
  template <class T>
  static Tensor from(std::span<const T> values, const Shape& shape) {
    return from_bytes(values.data(), values.size(), shape, dtype_of<T>());
  }
  template <class T>
  /// The same from a vector.
  static Tensor from(const std::vector<T>& values, const Shape& shape) {
    return from(std::span<const T>(values), shape);
  }

  bool defined() const { return static_cast<bool>(storage_); }  ///< false only for a default-constructed tensor
  const Shape& shape() const { return shape_; }                 ///< sizes of the axes
  int rank() const { return shape_.rank(); }                    ///< number of axes
  /// Size of an axis; a negative axis counts from the last.
  std::int64_t size(int axis) const { return shape_.at(axis); }
  std::int64_t numel() const { return shape_.numel(); }                                      ///< number of elements
  std::size_t bytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype_); }  ///< of the elements
  DType dtype() const { return dtype_; }                                                     ///< type of the elements
  /// True when gradients flow through this tensor.
  bool tracked() const { return static_cast<bool>(node_); }
  const Ref<Node>& node() const { return node_; }           ///< its place in the graph; null for a constant
  const Ref<Storage>& storage() const { return storage_; }  ///< shared with other tensors, perhaps

  /// The elements, row-major. Throws DTypeError when T is not the element type.
  template <class T>
  std::span<const T> values() const {
    expect(dtype_of<T>());
    return {reinterpret_cast<const T*>(data_), static_cast<std::size_t>(numel())};
  }
  /// The elements for changing in place; every tensor that shares the storage sees the change, and backward refuses
  /// to use a kept value that was changed. Throws DTypeError when T is not the element type.
  template <class T>
  std::span<T> mutable_values() {
    expect(dtype_of<T>());
    storage_->changed();
    return {reinterpret_cast<T*>(data_), static_cast<std::size_t>(numel())};
  }
  /// The elements, without a type.
  const std::byte* raw() const {
    if (storage_ && storage_->batch() != 0) refuse_batched();
    return data_;
  }
  /// As mutable_values, without a type.
  std::byte* mutable_raw() {
    storage_->changed();
    return data_;
  }
  /// The value of a tensor with one element, of any type. Throws ShapeError when there are more or none.
  double item() const;
  /// The elements of any type as doubles.
  std::vector<double> to_vector() const;

  /// The same value as a constant.
  Tensor detach() const { return Tensor(storage_, data_, shape_, dtype_); }
  /// A constant with its own copy of the elements.
  Tensor clone() const;
  /// Rows [begin, end) of the first axis as a constant that shares the storage. Throws ShapeError when out of range.
  Tensor rows(std::int64_t begin, std::int64_t end) const;
  /// The same elements as a constant of another shape, sharing the storage; reshape() is the op with a gradient.
  Tensor viewed_as(const Shape& shape) const;
  /// Overwrites the elements with those of `source` (same shape and dtype, else ShapeError or DTypeError).
  void assign(const Tensor& source);

  /// This tensor attached to a node (engine use).
  Tensor with_node(Ref<Node> node) && {
    node_ = std::move(node);
    return std::move(*this);
  }

 private:
  static Tensor from_bytes(const void* values, std::size_t count, const Shape& shape, DType dtype);
  void expect(DType t) const {
    if (t != dtype_ || !storage_) refuse(t);
    if (storage_->batch() != 0) refuse_batched();
  }
  [[noreturn]] void refuse(DType t) const;
  void refuse_batched() const;  // unless it is read as one

  Ref<Storage> storage_;
  std::byte* data_ = nullptr;
  Ref<Node> node_;
  Shape shape_;
  DType dtype_ = DType::f32;
};

/// A leaf through which gradients flow: shares the storage of `value`, which must be float32 or float64
/// (else DTypeError). The name appears in drawings, errors and summaries.
Tensor variable(const Tensor& value, std::string name = {});

/// Constants. `tensor({1, 2, 3})` has shape (3,); with a shape, the values are row-major.
Tensor tensor(std::initializer_list<double> values, DType dtype = DType::f32);
/// Row-major values; ShapeError unless they are as many as the shape has elements.
Tensor tensor(std::initializer_list<double> values, const Shape& shape, DType dtype = DType::f32);
Tensor scalar(double value, DType dtype = DType::f32);                    ///< rank 0
Tensor full(const Shape& shape, double value, DType dtype = DType::f32);  ///< all alike
Tensor zeros(const Shape& shape, DType dtype = DType::f32);               ///< all 0
Tensor ones(const Shape& shape, DType dtype = DType::f32);                ///< all 1
/// 0, 1, ..., n-1.
Tensor arange(std::int64_t n, DType dtype = DType::f32);
Tensor zeros_like(const Tensor& t);  ///< of t's shape and dtype
Tensor ones_like(const Tensor& t);   ///< likewise

/// True when shape, dtype and every bit of the elements agree.
bool same_bits(const Tensor& a, const Tensor& b);
/// "float32 (64, 784)".
std::string describe(const Tensor& t);

}  // namespace ebb

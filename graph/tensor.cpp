#include <ebb/graph/tensor.h>

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include <ebb/graph/error.h>

namespace ebb {
namespace {

/// A leaf of the graph: a parameter or an input whose gradient is wanted.
class VariableNode final : public Node {
 public:
  static Ref<Node> make(const Tensor& value, std::string name) {
    void* block = detail::allocate_block(sizeof(VariableNode));
    return Ref<Node>::adopt(::new (block) VariableNode(value, std::move(name)));
  }
  std::string_view op() const override { return "variable"; }
  std::string_view name() const override { return name_; }
  void backward(const Saved&, const Tensor&, std::span<Tensor>) const override {}

 private:
  VariableNode(const Tensor& value, std::string name)
      : Node(value.shape(), value.dtype(), nullptr, 0, sizeof(VariableNode)), name_(std::move(name)) {}
  std::string name_;
};

Tensor allocate(const Shape& shape, DType dtype, bool workspace) {
  if (shape.numel() > std::int64_t{1} << 50)  // from here on the number of bytes might not fit its type
    fail<MemoryError>("allocate", fmt::format("{} {} is too large", name_of(dtype), shape.str()));
  Ref<Storage> storage = Storage::allocate(static_cast<std::size_t>(shape.numel()) * size_of(dtype), workspace);
  std::byte* data = storage->data();
  return Tensor(std::move(storage), data, shape, dtype);
}

}  // namespace

Tensor Tensor::empty(const Shape& shape, DType dtype) { return allocate(shape, dtype, false); }
Tensor Tensor::workspace(const Shape& shape, DType dtype) { return allocate(shape, dtype, true); }

Tensor Tensor::from_bytes(const void* values, std::size_t count, const Shape& shape, DType dtype) {
  if (count != static_cast<std::size_t>(shape.numel()))
    fail<ShapeError>("tensor", fmt::format("{} values do not fill {}", count, shape.str()));
  Tensor t = empty(shape, dtype);
  if (count) std::memcpy(t.data_, values, t.bytes());
  return t;
}

void Tensor::refuse(DType t) const {
  if (!defined()) fail<ValueError>("tensor", "undefined: no value was ever given to it");
  fail<DTypeError>("tensor", fmt::format("holds {} elements, asked for {}", name_of(dtype_), name_of(t)));
}

void Tensor::refuse_batched() const {
  if (!detail::mode.as_one)
    fail<ValueError>("tensor",
                     fmt::format("{} stands for {} tensors within vmap() or jacobian(): no single value can be read",
                                 shape_.str(), storage_->batch()));
}

double Tensor::item() const {
  expect(dtype_);
  if (numel() != 1) fail<ShapeError>("item", fmt::format("needs exactly one element, got {}", shape_.str()));
  return visit_dtype(dtype_, [&]<class T>(T) {
    T v;
    std::memcpy(&v, data_, sizeof v);
    return static_cast<double>(v);
  });
}

std::vector<double> Tensor::to_vector() const {
  if (!defined()) refuse(dtype_);
  return visit_dtype(dtype_, [&]<class T>(T) {
    const auto v = values<T>();
    return std::vector<double>(v.begin(), v.end());
  });
}

Tensor Tensor::clone() const {
  if (!defined()) refuse(dtype_);
  if (storage_->batch() != 0 && !detail::mode.as_one) {
    Ref<Storage> all = Storage::allocate(storage_->bytes());
    std::memcpy(all->data(), storage_->data(), storage_->bytes());
    all->set_batch(storage_->batch(), storage_->batch_number());
    std::byte* const data = all->data();
    return Tensor(std::move(all), data, shape_, dtype_);
  }
  Tensor t = empty(shape_, dtype_);
  if (bytes()) std::memcpy(t.data_, data_, bytes());
  return t;
}

Tensor Tensor::rows(std::int64_t begin, std::int64_t end) const {
  if (rank() == 0 || begin < 0 || end < begin || end > shape_[0])
    fail<ShapeError>("rows", fmt::format("[{}, {}) is not a range of the first axis of {}", begin, end, shape_.str()));
  expect(dtype_);
  const Shape part = shape_.with(0, end - begin);
  const auto row_bytes = static_cast<std::int64_t>(size_of(dtype_)) * shape_.without(0).numel();
  return Tensor(storage_, data_ + begin * row_bytes, part, dtype_);
}

Tensor Tensor::viewed_as(const Shape& shape) const {
  if (shape.numel() != numel())
    fail<ShapeError>("viewed_as", fmt::format("{} does not have as many elements as {}", shape.str(), shape_.str()));
  return Tensor(storage_, data_, shape, dtype_);
}

void Tensor::assign(const Tensor& source) {
  if (!defined() || !source.defined()) (defined() ? source : *this).refuse(dtype_);
  if (source.shape_ != shape_)
    fail<ShapeError>("assign", fmt::format("shapes differ: {} and {}", shape_.str(), source.shape_.str()));
  if (source.dtype_ != dtype_)
    fail<DTypeError>("assign", fmt::format("types differ: {} and {}", name_of(dtype_), name_of(source.dtype_)));
  expect(dtype_);
  source.expect(dtype_);
  storage_->changed();
  if (bytes()) std::memmove(data_, source.data_, bytes());
}

Tensor variable(const Tensor& value, std::string name) {
  if (!value.defined()) fail<ValueError>("variable", "the value is undefined");
  if (!is_float(value.dtype()))
    fail<DTypeError>("variable", fmt::format("gradients need float32 or float64, got {}", describe(value)));
  return Tensor(value).with_node(VariableNode::make(value, std::move(name)));
}

Tensor tensor(std::initializer_list<double> values, const Shape& shape, DType dtype) {
  if (values.size() != static_cast<std::size_t>(shape.numel()))
    fail<ShapeError>("tensor", fmt::format("{} values do not fill {}", values.size(), shape.str()));
  Tensor t = Tensor::empty(shape, dtype);
  visit_dtype(dtype, [&]<class T>(T) {
    std::ranges::transform(values, t.mutable_values<T>().begin(), [](double v) { return static_cast<T>(v); });
  });
  return t;
}

Tensor tensor(std::initializer_list<double> values, DType dtype) {
  return tensor(values, Shape{static_cast<std::int64_t>(values.size())}, dtype);
}

Tensor full(const Shape& shape, double value, DType dtype) {
  Tensor t = Tensor::empty(shape, dtype);
  visit_dtype(dtype, [&]<class T>(T) { std::ranges::fill(t.mutable_values<T>(), static_cast<T>(value)); });
  return t;
}

Tensor scalar(double value, DType dtype) { return full({}, value, dtype); }
Tensor zeros(const Shape& shape, DType dtype) { return full(shape, 0, dtype); }
Tensor ones(const Shape& shape, DType dtype) { return full(shape, 1, dtype); }
Tensor zeros_like(const Tensor& t) { return zeros(t.shape(), t.dtype()); }
Tensor ones_like(const Tensor& t) { return ones(t.shape(), t.dtype()); }

Tensor arange(std::int64_t n, DType dtype) {
  Tensor t = Tensor::empty({n}, dtype);
  visit_dtype(dtype, [&]<class T>(T) {
    T next{};
    for (T& v : t.mutable_values<T>()) v = next++;
  });
  return t;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         (a.bytes() == 0 || std::memcmp(a.raw(), b.raw(), a.bytes()) == 0);
}

std::string describe(const Tensor& t) {
  return t.defined() ? fmt::format("{} {}", name_of(t.dtype()), t.shape().str()) : "undefined";
}

}  // namespace ebb

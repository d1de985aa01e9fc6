#include <ebb/models/data/dataset.h>

#include <fmt/core.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include <ebb/graph/error.h>
#include <ebb/ops/kernels/loops.h>
#include <ebb/ops/ops.h>
#include <ebb/ops/random.h>

namespace ebb {
namespace {

/// Asks for a row that is needed soon: shuffled rows lie anywhere in memory, and each would be waited for. It comes
/// into the second-level cache; on its way to the first it would hold up the stores of the rows that are made
/// meanwhile.
template <class T>
EBB_INLINE inline void fetch(const T* row, std::int64_t n) {
  const auto* p = reinterpret_cast<const char*>(row);
  for (std::int64_t b = 0; b < n * static_cast<std::int64_t>(sizeof(T)); b += 64) __builtin_prefetch(p + b, 0, 2);
}

/// An index or a count that becomes another one in silence is a wrong number.
template <class To>
void expect_exact(const std::int64_t* row, std::int64_t n) {
  constexpr std::int64_t most = std::int64_t{1} << std::numeric_limits<To>::digits;
  bool small = true;
  for (std::int64_t j = 0; j < n; ++j) small &= row[j] >= -most && row[j] <= most;
  for (std::int64_t j = 0; j < n && !small; ++j)
    if (static_cast<double>(row[j]) >= 0x1p63 || static_cast<std::int64_t>(static_cast<To>(row[j])) != row[j])
      throw ValueError(
          fmt::format("batches: the int64 input {} is no {}: {}", row[j], name_of(dtype_of<To>()),
                      sizeof(To) == 4 ? "ask for batches of float64, scale the inputs, or give the network int64 itself"
                                      : "give the network int64 itself"));
}

/// Rows of `from` in the given order, converted and scaled on the way.
template <class From, class To>
void gather_rows(const Tensor& from, const std::int64_t* order, std::int64_t first, std::int64_t count, double scale,
                 Tensor& to) {
  const std::int64_t n = to.numel() / std::max<std::int64_t>(1, count);
  const From* in = from.values<From>().data();
  To* out = to.mutable_values<To>().data();
  const auto factor = static_cast<To>(scale);
  const std::int64_t rows = from.size(0);
  if constexpr (std::is_same_v<From, std::int64_t>)
    for (std::int64_t i = 0; i < count; ++i) expect_exact<To>(in + (order ? order[first + i] : first + i) * n, n);
  constexpr std::int64_t ahead = 4;  // rows; the last ones ask for those of the next batch
  detail::parallel_for(count, detail::even_rows(count, n), [&](std::int64_t begin, std::int64_t end) {
    detail::simd_for<To>([&]() EBB_INLINE {
      for (std::int64_t i = begin; i < end; ++i) {
        const From* __restrict row = in + (order ? order[first + i] : first + i) * n;
        if (order && first + i + ahead < rows) fetch(in + order[first + i + ahead] * n, n);
        To* __restrict o = out + i * n;
        for (std::int64_t j = 0; j < n; ++j) o[j] = static_cast<To>(row[j]) * factor;
      }
    });
  });
}

}  // namespace

Dataset Dataset::slice(std::int64_t begin, std::int64_t end) const {
  return {inputs.rows(begin, end), labels.defined() ? labels.rows(begin, end) : Tensor(), scale};
}

Dataset Dataset::take(std::span<const std::int64_t> rows) const {
  const Tensor which = Tensor::from(rows, {static_cast<std::int64_t>(rows.size())});
  return {gather(inputs.detach(), which), labels.defined() ? gather(labels.detach(), which) : Tensor(), scale};
}

Dataset concat(const Dataset& a, const Dataset& b) {
  if (a.scale != b.scale)
    throw ValueError(fmt::format("concat: the data sets have scales {} and {}", a.scale, b.scale));
  if (a.labels.defined() != b.labels.defined()) throw ValueError("concat: only one of the data sets has labels");
  return {concat({a.inputs.detach(), b.inputs.detach()}),
          a.labels.defined() ? concat({a.labels.detach(), b.labels.detach()}) : Tensor(), a.scale};
}

std::pair<Dataset, Dataset> split_last(const Dataset& data, double fraction) {
  const std::int64_t n = data.size();
  const bool valid = fraction > 0 && fraction < 1;
  // 70000 * (1 - 0.8) is 13999.999999999996, and Keras cuts at 13999
  const auto at = valid ? static_cast<std::int64_t>(std::floor(static_cast<double>(n) * (1.0 - fraction))) : 0;
  if (at < 1 || at >= n)
    throw ValueError(fmt::format("validation_split: {} of {} samples leaves an empty part", fraction, n));
  return {data.slice(0, at), data.slice(at, n)};
}

Batches::Batches(const Dataset& data, BatchOptions options) : data_(data), options_(options) {
  if (options.size < 1) throw ValueError(fmt::format("batches: the size must be at least 1, got {}", options.size));
  if (!is_float(options.dtype))
    throw DTypeError(fmt::format("batches: inputs become floats, asked for {}", name_of(options.dtype)));
  const std::int64_t n = data.size();
  if (data.labels.defined() && (data.labels.rank() == 0 || data.labels.size(0) != n))
    throw ShapeError(fmt::format("batches: inputs {} and labels {} differ in number", data.inputs.shape().str(),
                                 data.labels.shape().str()));
  count_ = options.drop_last ? n / options.size : n / options.size + (n % options.size != 0);
  if (options.shuffle) order_ = Generator(options.seed, options.stream).permutation(n);
}

Batch Batches::operator[](std::int64_t i) const {
  if (i < 0 || i >= count_) throw ValueError(fmt::format("batches: there is no batch {} of {}", i, count_));
  const std::int64_t first = i * options_.size, count = std::min(options_.size, data_.size() - first);
  const std::int64_t* order = order_.empty() ? nullptr : order_.data();
  Batch b;
  b.inputs = Tensor::empty(data_.inputs.shape().with(0, count), options_.dtype);
  visit_dtype(data_.inputs.dtype(), [&](auto from) {
    visit_float(options_.dtype, [&](auto to) {
      gather_rows<decltype(from), decltype(to)>(data_.inputs, order, first, count, data_.scale, b.inputs);
    });
  });
  if (!data_.labels.defined()) return b;
  b.labels = Tensor::empty(data_.labels.shape().with(0, count), data_.labels.dtype());
  const std::size_t row = data_.labels.bytes() / static_cast<std::size_t>(data_.size());
  std::byte* to = b.labels.mutable_raw();
  for (std::int64_t j = 0; j < count; ++j, to += row)
    std::memcpy(to, data_.labels.raw() + static_cast<std::size_t>(order ? order[first + j] : first + j) * row, row);
  return b;
}

}  // namespace ebb

#include <ebb/models/data/idx.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ebb/graph/error.h>
#include <ebb/models/files/byte_source.h>

namespace ebb {
namespace {

constexpr int max_axes = 4;
/// Far above any known set (the largest, 8 million MNIST images, has 6.4e9 bytes).
constexpr std::int64_t max_elements = std::int64_t{1} << 34;

using detail::Source;

/// The product of the sizes, and whether it is small enough. A size of 0 does not excuse the others.
std::pair<std::int64_t, bool> elements(std::span<const std::int64_t> sizes) {
  std::int64_t product = 1;
  bool empty = false;
  for (const std::int64_t n : sizes) {
    empty |= n == 0;
    if (n != 0 && (__builtin_mul_overflow(product, n, &product) || product > max_elements)) return {0, false};
  }
  return {empty ? 0 : product, true};
}

std::vector<std::int64_t> read_sizes(Source& in, int axes) {
  std::vector<std::int64_t> sizes;
  for (int i = 0; i < axes; ++i) {
    std::array<std::uint8_t, 4> b{};
    if (in.read(b) < b.size())
      in.fail_at(in.position(), fmt::format("expected the size of axis {}, found the end of the data", i));
    sizes.push_back(std::int64_t{b[0]} << 24 | std::int64_t{b[1]} << 16 | std::int64_t{b[2]} << 8 | b[3]);
  }
  return sizes;
}

}  // namespace

Tensor read_idx(const std::filesystem::path& path) {
  Source in(path);
  std::array<std::uint8_t, 4> magic{};
  if (in.read(magic) < magic.size())
    in.fail_at(in.position(), "expected the 4 bytes of the magic, found the end of the data");
  if (magic[0] != 0 || magic[1] != 0 || magic[2] != 8)
    in.fail_at(0, fmt::format("expected magic 00 00 08 NN, found {:02x}", fmt::join(magic, " ")));
  if (magic[3] < 1 || magic[3] > max_axes)
    in.fail_at(3, fmt::format("expected 1 to {} axes, found {}", max_axes, magic[3]));

  const std::vector<std::int64_t> sizes = read_sizes(in, magic[3]);
  const std::string claim = fmt::format("{}", fmt::join(sizes, " x "));
  const auto [count, fits] = elements(sizes);
  if (!fits) in.fail_at(4, fmt::format("expected at most {} elements, found {}", max_elements, claim));
  const std::int64_t header = in.position();
  if (!in.can_hold(header + count)) {
    if (in.packed())
      in.fail_at(header, fmt::format("expected {} elements ({}), found a {} file of {} bytes", count, claim, in.kind(),
                                     in.file_bytes()));
    if (in.limit() > header + count)
      in.fail_at(header + count,
                 fmt::format("expected the end of the data, found {} more bytes", in.limit() - header - count));
    in.fail_at(in.limit(), fmt::format("expected {} elements ({}), found the end of the data after {}", count, claim,
                                       in.limit() - header));
  }

  Tensor out = Tensor::empty(Shape(sizes), DType::u8);
  const std::size_t got = in.read(out.mutable_values<std::uint8_t>());
  if (static_cast<std::int64_t>(got) < count)
    in.fail_at(in.position(),
               fmt::format("expected {} elements ({}), found the end of the data after {}", count, claim, got));
  in.expect_end();
  return out;
}

void write_idx(const std::filesystem::path& path, const Tensor& values) {
  if (!values.defined() || values.dtype() != DType::u8)
    fail<DTypeError>("write_idx", fmt::format("writes uint8 only, got {}", describe(values)));
  const bool in_range = values.rank() >= 1 && values.rank() <= max_axes &&
                        std::ranges::all_of(values.shape(), [](std::int64_t n) { return n <= 0xffffffff; });
  if (!in_range || !elements({values.shape().begin(), values.shape().end()}).second)
    fail<ShapeError>("write_idx", fmt::format("IDX cannot hold {}: 1 to {} axes, at most {} elements",
                                              values.shape().str(), max_axes, max_elements));

  std::vector<std::uint8_t> header{0, 0, 8, static_cast<std::uint8_t>(values.rank())};
  for (const std::int64_t n : values.shape())
    for (const int shift : {24, 16, 8, 0}) header.push_back(static_cast<std::uint8_t>(n >> shift & 0xff));

  const std::array pieces{std::as_bytes(std::span(header)), std::as_bytes(values.values<std::uint8_t>())};
  detail::write_by_name(path, pieces);
}

}  // namespace ebb

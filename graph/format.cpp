#include <ebb/graph/format.h>

namespace ebb {
namespace {

constexpr std::int64_t edge_items = 3;  // kept at each end of a shortened axis

void write(std::string& out, const Tensor& t, int axis, std::int64_t offset, std::int64_t stride) {
  if (axis == t.rank()) {
    visit_dtype(t.dtype(), [&]<class T>(T) {
      const T v = t.values<T>()[static_cast<std::size_t>(offset)];
      // not format_to, which would compile all of the formatting for its iterator
      if constexpr (std::is_floating_point_v<T>) out += fmt::format("{:.6g}", v);
      else out += fmt::format("{}", static_cast<std::int64_t>(v));
    });
    return;
  }
  const std::int64_t n = t.shape()[axis];
  const std::int64_t inner = n ? stride / n : 0;
  const bool last = axis + 1 == t.rank();
  out += '[';
  for (std::int64_t i = 0; i < n; ++i) {
    if (i) out += last ? ", " : ",\n" + std::string(static_cast<std::size_t>(axis) + 1, ' ');
    if (n > 2 * edge_items + 1 && i == edge_items) {
      out += "...";
      i = n - edge_items - 1;
      continue;
    }
    write(out, t, axis + 1, offset + i * inner, inner);
  }
  out += ']';
}

}  // namespace

std::string to_string(const Tensor& t) {
  if (!t.defined()) return "undefined";
  std::string out;
  write(out, t, 0, 0, t.numel());
  return out + " " + describe(t);
}

}  // namespace ebb

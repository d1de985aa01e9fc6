#include <ebb/graph/composition.h>

#include <array>
#include <atomic>
#include <bit>

#include <ebb/graph/observe.h>
#include <ebb/graph/small_array.h>

namespace ebb {
namespace {

/// Paths that this thread asked for: finding one takes no lock.
const ScopePath* path_of(const ScopePath* layer, std::string_view name) {
  struct Known {
    const ScopePath *layer, *path;
  };
  thread_local constinit std::array<Known, 64> known{};
  const auto mixed = std::bit_cast<std::uintptr_t>(layer) / 16 + std::bit_cast<std::uintptr_t>(name.data());
  Known& k = known[mixed % known.size()];
  if (!k.path || k.layer != layer || k.path->name != name) k = {layer, detail::enter_scope(layer, name, true)};
  return k.path;
}

std::uint32_t next_number() {
  static std::atomic<std::uint32_t> last{0};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

}  // namespace

void Composition::begin(std::string_view name) {
  name_ = name, before_ = detail::mode.scope, number_before_ = detail::mode.composition;
  if (detail::mode.record && !(before_ && before_->is_composition)) {
    detail::mode.scope = path_of(before_, name);
    detail::mode.composition = next_number();
  }
  runs_ = true;
  if (detail::mode.observer) [[unlikely]]
    detail::each_observer([&](Observer& o) { o.enters_composition(name); });
}

void Composition::end() {
  runs_ = false;
  detail::mode.scope = before_, detail::mode.composition = number_before_;
  if (detail::mode.observer) [[unlikely]]
    detail::each_observer([](Observer& o) { o.leaves_composition(); });
}

void Composition::tell(const Tensor& result, std::span<const Tensor* const> inputs,
                       const Attributes& attributes) const {
  detail::each_observer([&](Observer& o) { o.composed({name_, inputs, result, attributes}); });
}

void Composition::tell(const Tensor& result, std::span<const Tensor> inputs, const Attributes& attributes) const {
  detail::SmallArray<const Tensor*, 16> in(inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) in[i] = &inputs[i];
  tell(result, in.all(), attributes);
}

}  // namespace ebb

// Internal: the table of layers that a text or JSON can name. The parsers, the error texts, the help and the printer of
// architectures all read it; a new layer is one row in layer_kinds.cpp.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <ebb/graph/error.h>
#include <ebb/models/layers/sequential.h>

namespace ebb::detail {

/// Walks the options of a layer, one call each: a reader sets them, a printer looks at them. `what` names the option in
/// errors. An option that is `needed` has no default and comes first, by position.
class Fields {
 public:
  virtual ~Fields() = default;
  static constexpr bool needed = true;
  virtual void operator()(std::string_view name, std::int64_t& value, std::string_view what, bool need = false) = 0;
  virtual void operator()(std::string_view name, Pair& value, std::string_view what, bool need = false) = 0;
  virtual void number(std::string_view name, double& value, std::string_view what) = 0;
  virtual void rate(double& value) = 0;                       ///< a needed number in [0, 1)
  virtual void flag(std::string_view name, bool& value) = 0;  ///< the word itself, or no+word, turns it
  virtual void padding(Padding& value) = 0;
  virtual void activation(Activation& value) = 0;
  virtual void sizes(std::vector<std::int64_t>& value, std::string_view what) = 0;
  virtual void layers(std::string_view name, std::vector<Layer>& value, std::string_view what, bool need = false) = 0;
  virtual void branches(std::vector<std::vector<Layer>>& value, std::string_view what) = 0;
};

/// Thrown by the readers: its message has the place in the text already.
struct ArchitectureError : ValueError {
  using ValueError::ValueError;
};

struct LayerKind {
  std::string_view word, help;
  void (*defaults)(Fields&);             ///< walks the options of a layer that is not made yet
  Layer (*make)(Fields&);                ///< reads the options and makes the layer
  bool (*look)(const Module&, Fields&);  ///< walks the options of a layer of this kind; false for another kind
};
std::span<const LayerKind> layer_kinds();
/// The row of a word; null when there is none.
const LayerKind* layer_kind(std::string_view word);
/// The row of a layer, which shows its options to `f`; null when there is none.
const LayerKind* layer_kind_of(const Module& layer, Fields& f);

/// conv, dense, ..., without the activations.
std::string kind_words();
/// The layer that a function is; one that does nothing for null.
Layer activation_layer(Activation f);
/// relu, sigmoid, ...
std::string activation_words();

inline constexpr std::int64_t largest_size = 1'000'000;
inline constexpr int deepest_nesting = 16;
/// Most characters of a text, layers of a list, and options of a layer: more than any network has, and few enough to be
/// read at once.
inline constexpr std::size_t longest_architecture = std::size_t{1} << 20, most_layers = 4096, most_options = 64;

}  // namespace ebb::detail

#include <ebb/models/layers/layer_kinds.h>

#include <fmt/format.h>

#include <array>
#include <type_traits>
#include <utility>

#include <ebb/models/layers/architecture.h>
#include <ebb/models/layers/attention.h>
#include <ebb/models/layers/combine.h>
#include <ebb/models/layers/conv.h>
#include <ebb/models/layers/norm.h>
#include <ebb/models/layers/recurrent.h>

namespace ebb::detail {
namespace {

constexpr bool needed = Fields::needed;

// ---- the options of each layer -------------------------------------------------------------------------------------

void fields(Fields& f, Conv2DOptions& o) {
  f("filters", o.filters, "the number of filters", needed);
  f("kernel", o.kernel, "the kernel's size", needed);
  f("stride", o.stride, "the stride");
  f("dilation", o.dilation, "the dilation");
  f("groups", o.groups, "the number of groups");
  f.padding(o.pad);
  f.flag("bias", o.use_bias);
  f.activation(o.activation);
}
void fields(Fields& f, DepthwiseConv2DOptions& o) {
  f("kernel", o.kernel, "the kernel's size", needed);
  f("multiplier", o.multiplier, "the multiplier");
  f("stride", o.stride, "the stride");
  f("dilation", o.dilation, "the dilation");
  f.padding(o.pad);
  f.flag("bias", o.use_bias);
  f.activation(o.activation);
}
void fields(Fields& f, Conv2DTransposeOptions& o) {
  f("filters", o.filters, "the number of filters", needed);
  f("kernel", o.kernel, "the kernel's size", needed);
  f("stride", o.stride, "the stride");
  f.padding(o.pad);
  f.flag("bias", o.use_bias);
  f.activation(o.activation);
}
void fields(Fields& f, DenseOptions& o) {
  f("units", o.units, "the number of units", needed);
  f.flag("bias", o.use_bias);
  f.activation(o.activation);
}
void fields(Fields& f, PoolOptions& o) {
  f("size", o.size, "the window's size", needed);
  f("stride", o.stride, "the stride");
  f.padding(o.pad);
}
void fields(Fields& f, ReshapeOptions& o) { f.sizes(o.sizes, "the sizes of the new shape"); }
void fields(Fields& f, DropoutOptions& o) { f.rate(o.rate); }
void fields(Fields& f, BatchNormalizationOptions& o) {
  f.number("momentum", o.momentum, "the momentum");
  f.number("epsilon", o.epsilon, "epsilon");
  f.flag("scale", o.scale);
  f.flag("center", o.center);
}
void fields(Fields& f, LayerNormalizationOptions& o) {
  f.number("epsilon", o.epsilon, "epsilon");
  f.flag("scale", o.scale);
  f.flag("center", o.center);
}
void fields(Fields& f, GroupNormalizationOptions& o) {
  f("groups", o.groups, "the number of groups", needed);
  f.number("epsilon", o.epsilon, "epsilon");
  f.flag("scale", o.scale);
  f.flag("center", o.center);
}
void fields(Fields& f, EmbeddingOptions& o) {
  f("size", o.size, "the size of the vocabulary", needed);
  f("units", o.units, "the number of units", needed);
}
void fields(Fields& f, RecurrentOptions& o) {
  f("units", o.units, "the number of units", needed);
  f.flag("sequences", o.return_sequences);
}
void fields(Fields& f, MultiHeadAttentionOptions& o) {
  f("heads", o.heads, "the number of heads", needed);
  f("key_dim", o.key_dim, "the size of a key");
  f.flag("causal", o.causal);
  f.flag("bias", o.use_bias);
}
void fields(Fields& f, ResidualOptions& o) {
  f.layers("layers", o.layers, "the layers of the block", needed);
  f.layers("shortcut", o.shortcut, "the shortcut's layers");
}
void fields(Fields& f, ConcatOptions& o) { f.branches(o.branches, "the branches"); }

// ---- the table -----------------------------------------------------------------------------------------------------

/// A layer L that is made from O and shows it again as options().
template <class L, class O = std::remove_cvref_t<decltype(std::declval<const L&>().options())>>
constexpr LayerKind row(std::string_view word, std::string_view help) {
  return {word, help,
          [](Fields& f) {
            O o;
            fields(f, o);
          },
          [](Fields& f) -> Layer {
            O o;
            fields(f, o);
            return L(std::move(o));
          },
          [](const Module& m, Fields& f) {
            const auto* layer = dynamic_cast<const L*>(&m);
            if (!layer) return false;
            O o = layer->options();
            fields(f, o);
            return true;
          }};
}
/// A layer without options.
template <class L>
constexpr LayerKind plain(std::string_view word, std::string_view help) {
  return {word, help, [](Fields&) {}, [](Fields&) -> Layer { return L(); },
          [](const Module& m, Fields&) { return dynamic_cast<const L*>(&m) != nullptr; }};
}

constexpr auto table = std::to_array<LayerKind>({
    row<Conv2D>("conv", "convolution"),
    row<DepthwiseConv2D>("depthwise", "convolution of each channel by itself"),
    row<Conv2DTranspose>("deconv", "transposed convolution"),
    row<Dense>("dense", "x W + b"),
    row<MaxPool2D>("pool", "largest of each window"),
    row<AvgPool2D>("avgpool", "mean of each window"),
    plain<GlobalAvgPool2D>("globalavgpool", "mean of each channel"),
    plain<GlobalMaxPool2D>("globalmaxpool", "largest of each channel"),
    plain<Flatten>("flatten", "(n, ...) to (n, rest)"),
    row<Reshape>("reshape", "the same elements in another shape"),
    row<Dropout>("dropout", "zeroes elements in training"),
    row<SpatialDropout2D>("spatialdropout", "zeroes whole channels in training"),
    row<BatchNormalization>("batchnorm", "normalizes over the batch"),
    row<LayerNormalization>("layernorm", "normalizes each sample over its last axis"),
    row<GroupNormalization>("groupnorm", "normalizes groups of channels"),
    plain<Standardize>("standardize", "shifts and scales each feature by what the training data are"),
    row<Embedding>("embedding", "a vector for each index"),
    plain<PositionEmbedding>("position", "adds a trained vector per place"),
    row<SimpleRNN>("rnn", "simple recurrent layer"),
    row<GRU>("gru", "gated recurrent unit"),
    row<LSTM>("lstm", "long short-term memory"),
    row<MultiHeadAttention>("attention", "self-attention"),
    row<Residual>("residual", "x, or its shortcut, plus what the layers make of it"),
    row<Concat>("concat", "branches side by side, joined along the last axis"),
});

}  // namespace

std::span<const LayerKind> layer_kinds() { return table; }

const LayerKind* layer_kind(std::string_view word) {
  for (const LayerKind& kind : table)
    if (kind.word == word) return &kind;
  return nullptr;
}

const LayerKind* layer_kind_of(const Module& layer, Fields& f) {
  for (const LayerKind& kind : table)
    if (kind.look(layer, f)) return &kind;
  return nullptr;
}

std::string kind_words() {
  std::vector<std::string_view> words;
  for (const LayerKind& kind : table) words.push_back(kind.word);
  return fmt::format("{}", fmt::join(words, ", "));
}

std::string activation_words() { return fmt::format("{}", fmt::join(activation_names(), ", ")); }

}  // namespace ebb::detail

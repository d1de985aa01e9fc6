// Internal: the weights of a model one by one, as PyTorch or Keras has them.
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <ebb/models/exchange/interop.h>

namespace ebb::detail {

/// One tensor as the other side has it.
struct Foreign {
  std::string layer, weight;                  ///< "0" and "bias", or "gru" and "recurrent_kernel"
  Tensor value;                               ///< a copy
  std::function<void(const Tensor&)> assign;  ///< the way back; in the order of the list
  std::string name(Naming naming) const { return layer + (naming == Naming::torch ? "." : "/") + weight; }
};

std::vector<Foreign> foreign_tensors(Naming naming, Sequential& net);
/// Whether the table of layers in interop.cpp has a row for the kind of this word: a test demands one for each.
bool has_exchange_row(std::string_view word);

/// Assigns one value for each of `to`, after all shapes and types were seen to fit; undefined ones are left out, with a
/// complaint.
void assign_all(Naming naming, std::vector<Foreign>& to, const std::vector<Tensor>& values, std::string problems,
                const std::string& source);

}  // namespace ebb::detail

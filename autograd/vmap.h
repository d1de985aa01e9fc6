// Functions of one sample, run on many at once.
#pragma once
#include <functional>
#include <span>
#include <vector>

#include <ebb/autograd/jacobian.h>

namespace ebb {

using ManyFunction = std::function<std::vector<Tensor>(std::span<const Tensor>)>;  ///< of several tensors, to several

/// Options of vmap().
struct VmapOptions {
  bool create_graph = false;  ///< as in DerivativeOptions: samples run one by one then
  bool may_loop = true;       ///< false: throw where samples would have to run one by one because of what f does
};

/// f of each slice of the inputs along their first axes, which are of one size; the results stacked. f is written for
/// one sample, and may itself call backward() and grad(): so are the gradients of each sample, jacobians of each, and
/// so on. What f captures is the same for all samples.
///
/// Slices of a constant are constants, as those that a loop gives: to take gradients in one, f makes a variable of it,
/// variable(row). A tensor that f keeps beside what it returns has no meaning after, and is refused, also in another
/// vmap().
///
/// f runs once: each op in it works on all samples, with one product of matrices where a loop has many. An op that has
/// no way of its own for this (Vmap in graph/apply.h) runs once for each sample. Where f reads values (item(), a choice
/// by them), or anything else fails, f runs again in a loop, so that the result, or the error, is the loop's. Random
/// numbers: dropout draws for each sample; others, such as randn(), are the same for all unless they run in the loop.
std::vector<Tensor> vmap(const ManyFunction& f, std::span<const Tensor> inputs, VmapOptions options = {});
Tensor vmap(const MultiFunction& f, std::span<const Tensor> inputs,
            VmapOptions options = {});  ///< the same for one result
Tensor vmap(const UnaryFunction& f, const Tensor& x,
            VmapOptions options = {});  ///< the same for a function of one tensor

}  // namespace ebb

// gradcheck of a whole module: its input and all of its parameters.
#pragma once
#include <ebb/autograd/gradcheck.h>
#include <ebb/models/layers/module.h>

namespace ebb {

/// Checks the gradients of module(x) in x, unless it holds integers, and in every parameter that is not frozen, all
/// cast to float64 for the while; the report names them by their paths. Random numbers are the same in every run, so
/// that dropout is held still, and running averages stay as they are. Layers behave as in training if they would here
/// (see Training). A module that is not built yet is built, in x's dtype.
GradcheckReport gradcheck(Module& module, const Tensor& x, GradcheckOptions options = {});

}  // namespace ebb

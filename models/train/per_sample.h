// Gradients of each sample of a batch.
#pragma once
#include <ebb/autograd/backward.h>
#include <ebb/models/layers/module.h>
#include <ebb/models/train/fit.h>

namespace ebb {

/// The gradients of loss(module(x_i), labels_i) for each sample i of a batch alone, in every variable that it depends
/// on: g[w] is of shape (n, w's shape), so that their mean over the first axis is the gradient of a mean loss. As
/// vmap() does it: one forward and one backward pass for all samples where each op has a way of its own for that, as
/// those of every layer do, else a loop. Each sample is a batch of one: batch normalization in training takes its
/// moments of that sample; running averages stay as they are. A module that is not built yet is built. Throws
/// ShapeError where there are no samples, or another number of labels.
Gradients per_sample_gradients(Module& module, const Tensor& x, const Tensor& labels, const Loss& loss = cross_entropy);

}  // namespace ebb

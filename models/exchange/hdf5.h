// Weights from Keras' HDF5 files. Only in a build with -DEBB_HDF5=ON, which needs libhdf5-dev; ebb.h does not include
// it.
#pragma once
#include <filesystem>

#include <ebb/models/layers/sequential.h>

namespace ebb {

/// Gives a model that is built the weights of a Keras file: Keras 2's .h5 (weights or a whole model, of which the
/// weights) by the order of its layers, Keras 3's .weights.h5 by kind and number of each layer. Layouts are the same.
/// Throws ShapeError "FILE: ..." listing what is missing, extra or of another shape, before anything is changed;
/// DataError when the file is not of that form; IoError when it cannot be opened. Links, external storage and virtual
/// datasets, which can lead to other files, are refused. A broken file can crash libhdf5 or keep it busy: it runs in a
/// child process (fork) that may open nothing else, has the file's size and 64 MiB of memory and some seconds, so that
/// this too is a DataError. No other thread may be inside libhdf5 meanwhile.
void load_keras_h5(Sequential& net, const std::filesystem::path& path);

}  // namespace ebb

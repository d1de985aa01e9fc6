#include <ebb/models/layers/combine.h>

#include <fmt/core.h>

#include <ebb/graph/error.h>

namespace ebb {

Tensor Residual::forward(const Tensor& x) {
  const Tensor y = layers_(x), around = shortcut_(x);
  if (y.shape() != around.shape())
    fail<ShapeError>(
        "Residual",
        fmt::format("the layers give {}, the way around {}; a shortcut such as a convolution of 1x1 makes them alike",
                    y.shape().str(), around.shape().str()));
  return around + y;
}

Concat::Concat(std::initializer_list<Layer> branches) : branches_(branches) {
  if (branches.size() == 0) throw ValueError("Concat: needs at least one branch");
}
Concat::Concat(const ConcatOptions& options) {
  if (options.branches.empty()) throw ValueError("Concat: needs at least one branch");
  for (const std::vector<Layer>& branch : options.branches)
    branches_.add(branch.size() == 1 ? branch[0] : Layer(Sequential(branch)));
}

Tensor Concat::forward(const Tensor& x) {
  std::vector<Tensor> parts;
  for (const Layer& branch : branches_.layers()) parts.push_back((*branch)(x));
  return concat(parts, -1);
}

void Concat::visit(Visitor& v) { branches_.visit(v); }

ConcatOptions Concat::options() const {
  ConcatOptions out;
  for (const Layer& branch : branches_.layers()) {
    const auto* several = dynamic_cast<const Sequential*>(&*branch);
    out.branches.push_back(several ? several->layers() : std::vector<Layer>{branch});
  }
  return out;
}

}  // namespace ebb

#include <ebb/ops/kernels/convolve.h>

#include <algorithm>
#include <atomic>
#include <type_traits>
#include <utility>

#include <ebb/ops/kernels/direct.h>
#include <ebb/ops/kernels/loops.h>
#include <ebb/ops/kernels/patches.h>
#include <ebb/ops/kernels/winograd.h>

namespace ebb::detail {
namespace {

/// use(algorithm) with the fastest one that suits; where use returns false, with the next.
template <class T, class Use>
void with_algorithm(const Convolution<T>& c, const Use& use) {
  const auto with = [&](auto algorithm) { return use(algorithm); };
  if constexpr (std::is_same_v<T, float>) {
    if (Winograd::suits(c) && with(Winograd(c))) return;
    if (Direct::suits(c) && with(Direct(c))) return;
  }
  with(Patches<T>(c));
}

/// The pieces that an algorithm works on: where rows alone gain nothing, whole images.
template <class A>
constexpr Cut cut_of(bool rows_gain) {
  return A::cut == Cut::rows && !rows_gain ? Cut::images : A::cut;
}

}  // namespace

template <class T>
void convolve(const Window& v, std::int64_t out, const T* x, const T* k, const Tail<T>& tail, T* y) {
  const bool pools = tail.pool.h != 1 || tail.pool.w != 1, relu = tail.relu && !pools;
  with_algorithm(Convolution<T>{v, out, x, k, Pass::forward}, [&]<class A>(A& algorithm) {
    const Pieces pieces(algorithm.c, tail.pool, cut_of<A>(pools));
    parallel_for(v.n, algorithm.block(), [&](std::int64_t begin, std::int64_t end) {
      const Scratch<T> scratch = algorithm.scratch(end - begin), outputs(pools ? pieces.outputs(end - begin) : 0);
      pieces.each(begin, end, [&](const Piece& p) {
        algorithm.forward(p, tail.bias, relu, pools ? outputs.data : y + p.at, scratch.data);
        if (pools)
          max_windows(p.pool, p.end - p.begin, outputs.data, tail.relu, y + p.at,
                      tail.choice ? tail.choice + p.at : nullptr);
      });
    });
    return true;
  });
}

template <class T>
void convolve_back(const Window& v, std::int64_t out, const T* x, const T* k, const Upstream<T>& up, T* dx, T* dk,
                   T* db) {
  const Pass pass = dx ? Pass::image_gradient : Pass::kernel_gradient;
  const bool copies = up.y || up.choice;
  with_algorithm(Convolution<T>{v, out, x, k, pass}, [&]<class A>(A& algorithm) {
    // A row of the image needs the gradients of all rows that it went into.
    const Pieces pieces(algorithm.c, up.pool, cut_of<A>(!dx));
    const std::int64_t block = algorithm.block(), size = algorithm.sums_size(),
                       share = dk || db ? std::max(block, (v.n + most_groups - 1) / most_groups) : block,
                       groups = (v.n + share - 1) / share;
    const Scratch<T> sums(dk ? groups * size : 0);
    const Scratch<double> biases(db ? groups * out : 0);
    std::atomic<bool> right = true;
    parallel_for(groups, 1, [&](std::int64_t group, std::int64_t) {
      const std::int64_t first = group * share, last = std::min(v.n, first + share);
      double* const bias = db ? biases.data + group * out : nullptr;
      T* const sum = dk ? sums.data + group * size : nullptr;
      if (db) std::fill(bias, bias + out, 0.0);
      bool add = false;
      for (std::int64_t begin = first; begin < last; begin += block) {
        const std::int64_t end = std::min(last, begin + block);
        const Scratch<T> scratch = algorithm.scratch(end - begin), buffer(copies ? pieces.outputs(end - begin) : 0);
        pieces.each(begin, end, [&](const Piece& p) {
          const T* dy = tail_gradient(p.pool, p.end - p.begin, up.from(p.at), buffer.data, bias);
          if (!algorithm.backward(p, dy, dx, sum, std::exchange(add, true), scratch.data)) right = false;
        });
      }
    });
    for (std::int64_t c = 0; db && c < out; ++c) {
      double all = 0;
      for (std::int64_t group = 0; group < groups; ++group) all += biases.data[group * out + c];
      db[c] = static_cast<T>(all);
    }
    return (!dk || algorithm.kernel_gradient(groups, sums.data, dk)) && right;
  });
}

template void convolve(const Window&, std::int64_t, const float*, const float*, const Tail<float>&, float*);
template void convolve(const Window&, std::int64_t, const double*, const double*, const Tail<double>&, double*);
template void convolve_back(const Window&, std::int64_t, const float*, const float*, const Upstream<float>&, float*,
                            float*, float*);
template void convolve_back(const Window&, std::int64_t, const double*, const double*, const Upstream<double>&, double*,
                            double*, double*);

}  // namespace ebb::detail

#include <ebb/models/version.h>

#include <fmt/core.h>

#include <ebb/ops/blas.h>
#include <ebb/ops/loops.h>
#include <ebb/ops/threads.h>

namespace ebb {

std::string version() { return EBB_VERSION; }

std::string build_info() {
  return fmt::format("ebb {}\ncompiler: {} {}, {}\nblas: {}\nkernels: {} (best here: {}; EBB_ISA chooses)\nthreads: {}\n", EBB_VERSION,
#if defined(__clang__)
                     "clang", __clang_version__,
#else
                     "g++", __VERSION__,
#endif
                     EBB_BUILD_TYPE, detail::blas_description(), detail::name_of(detail::isa()),
                     detail::name_of(detail::best_isa()), threads());
}

}  // namespace ebb

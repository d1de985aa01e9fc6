#include <ebb/models/files/version.h>

#include <fmt/core.h>

#include <ebb/ops/kernels/blas.h>
#include <ebb/ops/kernels/loops.h>
#include <ebb/ops/kernels/threads.h>

namespace ebb {

namespace {

#if defined(__clang__)
constexpr const char* compiler = "clang " __clang_version__;
#else
constexpr const char* compiler = "g++ " __VERSION__;
#endif

}  // namespace

std::string version() { return EBB_VERSION; }

std::string build_info() {
  return fmt::format("ebb {}\ncompiler: {}, {}\nblas: {}\nkernels: {} (best here: {}; EBB_ISA chooses)\nthreads: {}\n",
                     EBB_VERSION, compiler, EBB_BUILD_TYPE, detail::blas_description(), detail::name_of(detail::isa()),
                     detail::name_of(detail::best_isa()), threads());
}

std::map<std::string, std::string> build_facts() {
  const std::string blas = detail::blas_description();  // "OpenBLAS 0.3.21 DYNAMIC_ARCH ..."
  const std::size_t end = blas.find(' ', blas.find(' ') + 1);
  return {{"blas", fmt::format("{} {}", blas.substr(0, end), detail::blas_kernel())},
          {"compiler", fmt::format("{}, {}", compiler, EBB_BUILD_TYPE)},
          {"isa", std::string(detail::name_of(detail::isa()))}};
}

}  // namespace ebb

// What this build is.
#pragma once
#include <string>

namespace ebb {

/// "0.1.0".
std::string version();
/// Version, compiler, build type, BLAS, instruction set and threads, a line each: what a bug report needs.
std::string build_info();

}  // namespace ebb

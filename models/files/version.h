// What this build is.
#pragma once
#include <map>
#include <string>

namespace ebb {

/// "0.1.0".
std::string version();
/// Version, compiler, build type, BLAS, instruction set and threads, a line each: what a bug report needs.
std::string build_info();
/// What the bits of a training depend on beside its options, its data and its seed: "compiler", "blas" (version and
/// kernel) and "isa", the instruction set of ebb's own loops. The number of threads is not among them.
std::map<std::string, std::string> build_facts();

}  // namespace ebb

// What a test changes for the whole process, set back when the test ends, however it ends.
#pragma once
#include <doctest/doctest.h>

#include <string>

#include <ebb/ops/kernels/loops.h>
#include <ebb/ops/kernels/threads.h>

namespace ebb::testing {

struct Threads {
  explicit Threads(int n = threads()) { set_threads(n); }
  ~Threads() { set_threads(before); }
  int before = threads();
};

struct Instructions {
  detail::Isa before = detail::isa();
  ~Instructions() { detail::set_isa(before); }
};

/// f() with each instruction set that this processor has.
template <class F>
void on_every_instruction_set(const F& f) {
  const Instructions restore;
  for (const detail::Isa isa : {detail::Isa::baseline, detail::Isa::avx2, detail::Isa::avx512}) {
    if (isa > detail::best_isa()) continue;
    detail::set_isa(isa);
    const std::string set = detail::name_of(isa);
    CAPTURE(set);
    f();
  }
}

}  // namespace ebb::testing

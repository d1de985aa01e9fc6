// bench: how fast ebb is, on what, and how close to the machine.
#include <array>

#include "commands.h"

namespace {

constexpr auto commands = std::to_array<app::Command>({
    {"train", "train a workload and time it", bench::train},
    {"infer", "predict with a workload's network and time it", bench::infer},
    {"step", "the parts of a training step, and its ops", bench::step},
#ifdef EBB_BENCH_OPS
    {"ops", "every primitive over sizes (Google Benchmark)", bench::ops},
#endif
    {"roofline", "the limits that this machine sets, and how close ebb is", bench::roofline},
    {"compare", "the workloads beside LibTorch, interleaved", bench::compare},
});

constexpr auto examples =
    "Examples:\n"
    "  bench train --model cnn_64 --threads 2\n"
    "  bench step --model mlp_32 --threads 1\n"
    "  bench compare --models mlp_512,cnn_64 --threads 1,2 --markdown\n"
    "\nExit codes: 0 done; 1 failed (data, files, memory, a peer that is not there,\n"
    "results that standard output does not take); 2 wrong usage. The speed of a busy\n"
    "machine is not its speed: leave it alone meanwhile.\n";

}  // namespace

int main(int argc, char** argv) {
  return app::run_program("bench", commands, examples, argc, argv, "time the training and the predictions of ebb");
}

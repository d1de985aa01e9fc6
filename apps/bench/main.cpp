// bench: how fast ebb is, on what, and how close to the machine.
#include "commands.h"

int main(int argc, char** argv) {
  const app::Command commands[] = {
      bench::train_command,    bench::infer_command,   bench::step_command,
#ifdef EBB_BENCH_OPS
      bench::ops_command,
#endif
      bench::roofline_command, bench::compare_command,
  };
  return app::run_program(
      {.name = "bench",
       .about = "time the training and the predictions of ebb",
       .commands = commands,
       .examples = "  bench train --model cnn_64 --threads 2\n"
                   "  bench step --model mlp_32 --threads 1\n"
                   "  bench compare --models mlp_512,cnn_64 --threads 1,2 --markdown\n",
       .exit_codes = "Exit codes: 0 done; 1 failed (data, files, memory, a peer that is not there,\n"
                     "results that standard output does not take); 2 wrong usage. Leave the machine\n"
                     "alone while it measures: other work makes the times longer.\n"},
      argc, argv);
}

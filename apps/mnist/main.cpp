// mnist: train digit classifiers and use them.
#include "command.h"

int main(int argc, char** argv) {
  const app::Command commands[] = {
      mnist::train_command,     mnist::verify_command,   mnist::evaluate_command, mnist::predict_command,
      mnist::data_command,      mnist::plot_command,     mnist::summary_command,  mnist::search_command,
      mnist::reproduce_command, mnist::transfer_command, mnist::export_command,   mnist::graph_command,
  };
  return app::run_program(
      {.name = "mnist",
       .about = "train digit classifiers and use them",
       .commands = commands,
       .examples = "  mnist train --model mlp --layers 512 --optimizer rmsprop --epochs 5\n"
                   "  mnist train --model cnn --epochs 5 --save digits.safetensors\n"
                   "  mnist predict digits.safetensors --index 0,1,2\n",
       .exit_codes = "Exit codes: 0 done; 1 failed (data, files, memory, a loss that is not a number,\n"
                     "other bits in verify, results that standard output does not take); 2 wrong\n"
                     "usage; 130 interrupted by Ctrl-C, 143 terminated, 129 the terminal was closed;\n"
                     "152, 138, 140 after SIGXCPU, SIGUSR1, SIGUSR2, with which batch systems warn.\n"
                     "After one of these six signals, and when results cannot be written, train still\n"
                     "saves the model so far if --save was given. A second signal ends the program at\n"
                     "once, and so does the first while results wait for a slow reader. The work goes\n"
                     "on when standard error cannot be written; its text is lost.\n"},
      argc, argv);
}

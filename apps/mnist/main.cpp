// mnist: train digit classifiers and use them.
#include <array>

#include "command.h"

namespace {

constexpr auto commands = std::to_array<app::Command>({
    {"train", "train a network and test it", mnist::train},
    {"verify", "train a saved training again and compare the bits", mnist::verify},
    {"evaluate", "test a saved network", mnist::evaluate},
    {"predict", "name digits of the test set with a saved network", mnist::predict},
    {"data", "what the data are: shapes, counts of the digits, pictures", mnist::data},
    {"plot", "draw loss and accuracy of trainings", mnist::plot},
    {"summary", "layers, shapes and parameters of a network", mnist::summary},
    {"search", "try many settings of a training and compare", mnist::search},
    {"reproduce", "train the runs of five published notebooks and compare", mnist::reproduce},
    {"transfer", "put what a saved network learned to use on other pictures", mnist::transfer},
    {"export", "write a saved network for ONNX runtimes, PyTorch, Keras or NumPy", mnist::export_files},
    {"graph", "draw the computation graph of a network", mnist::graph},
});

constexpr auto examples =
    "Examples:\n"
    "  mnist train --model mlp --layers 512 --optimizer rmsprop --epochs 5\n"
    "  mnist train --model cnn --epochs 5 --save digits.safetensors\n"
    "  mnist predict digits.safetensors --index 0,1,2\n"
    "\nExit codes: 0 done; 1 failed (data, files, memory, a loss that is not a number,\n"
    "other bits in verify, results that standard output does not take); 2 wrong\n"
    "usage; 130 interrupted by Ctrl-C, 143 terminated, 129 the terminal was closed;\n"
    "152, 138, 140 SIGXCPU, SIGUSR1, SIGUSR2, with which batch systems warn.\n"
    "After these six, and when results cannot be shown, the model so far is saved\n"
    "if --save was given. A second signal ends the program at once, and the first\n"
    "does while results wait for a slow reader. What cannot be written to standard\n"
    "error is lost, and the work goes on.\n";

}  // namespace

int main(int argc, char** argv) {
  return app::run_program("mnist", commands, examples, argc, argv, "train digit classifiers and use them");
}

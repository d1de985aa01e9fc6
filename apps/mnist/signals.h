// Ctrl-C and termination: the first asks for a stop, the second ends the program.
#pragma once

namespace mnist {

/// From here on the first SIGINT or SIGTERM is only noted; the next one ends the program at once.
void catch_signals();
/// The number of the signal that came, 0 for none. The exit code is then 128 more.
int caught_signal();

}  // namespace mnist

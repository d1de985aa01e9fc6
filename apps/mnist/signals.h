// Ctrl-C, termination and a closed terminal: the first asks for a stop, the second ends the program.
#pragma once

namespace mnist {

/// From here on the first SIGINT, SIGTERM or SIGHUP is only noted; the next of any of them ends the program at once. Those that
/// the program was started with as ignored (nohup, or in the background) stay so.
void catch_signals();
/// The number of the signal that came, 0 for none. The exit code is then 128 more.
int caught_signal();

}  // namespace mnist

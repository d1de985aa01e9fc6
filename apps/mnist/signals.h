// Ctrl-C, termination, a closed terminal and the warnings of batch systems: the first asks for a stop, the second ends
// the program.
#pragma once

namespace mnist {

/// From here on the first SIGINT, SIGTERM, SIGHUP, SIGXCPU, SIGUSR1 or SIGUSR2 is only noted; the next of any of them
/// ends the program at once (but for SIGXCPU, which comes again every second). Those that the program was started with
/// as ignored (nohup, or in the background) stay so.
void catch_signals();
/// From here on the first of them ends the program at once: all is saved, and who reads the results may be slow.
void end_on_signals();
/// The number of the signal that came, 0 for none. The exit code is then 128 more.
int caught_signal();

}  // namespace mnist

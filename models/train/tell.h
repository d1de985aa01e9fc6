// Messages that nothing depends on.
#pragma once
#include <cstdio>
#include <string_view>

namespace ebb {

/// Writes progress or a message for whoever watches. What cannot be written is lost, and nothing comes of it, neither
/// an error nor SIGPIPE: a training must not end because its reader went away, a disk is full or a terminal was closed.
/// Nor must it wait for a reader that pauses (`less`): what a pipe or terminal does not take within a second is lost,
/// and what follows, until it does again.
void tell(std::FILE* out, std::string_view text);

}  // namespace ebb

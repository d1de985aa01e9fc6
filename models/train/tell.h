// Progress and messages, which may be lost.
#pragma once
#include <cstdio>
#include <string_view>

namespace ebb {

/// Writes progress or a message. Text that cannot be written is dropped, without an error or SIGPIPE: a closed
/// terminal, a full disk or a reader that ended must not end a training. A reader that pauses (`less`) must not hold it
/// up: text that a pipe or terminal does not take within a second is dropped, and so is all after it until it takes
/// some again.
void tell(std::FILE* out, std::string_view text);

}  // namespace ebb

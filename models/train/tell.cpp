#include <ebb/models/train/tell.h>

#include <limits.h>
#include <poll.h>

#include <atomic>

#include <ebb/models/files/write_signals.h>

namespace ebb {
namespace {

std::atomic<bool> stuck = false;  // nobody read the last message

/// Whether a write of PIPE_BUF bytes would return at once, within a second. The second is waited for once, not for
/// every message.
bool takes_more(int fd) {
  pollfd one{.fd = fd, .events = POLLOUT, .revents = 0};
  int ready = ::poll(&one, 1, stuck ? 0 : 1000);
  if (ready < 0) ready = ::poll(&one, 1, 0);  // a signal came: who sent it does not want to wait
  stuck = ready == 0;
  return ready != 0;
}

}  // namespace

void tell(std::FILE* out, std::string_view text) {
  const detail::WriteSignalsOff off;
  for (const int fd = fileno(out); !text.empty() && (fd < 0 || takes_more(fd));) {
    const std::string_view piece = text.substr(0, PIPE_BUF);
    if (std::fwrite(piece.data(), 1, piece.size(), out) != piece.size() || std::fflush(out) != 0) break;
    text.remove_prefix(piece.size());
  }
}

}  // namespace ebb

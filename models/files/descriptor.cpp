#include <ebb/models/files/descriptor.h>

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string_view>
#include <system_error>

#include <ebb/graph/error.h>

namespace ebb::detail {
namespace {

[[noreturn]] void cannot_read(const std::filesystem::path& path, std::string_view reason) {
  throw IoError(fmt::format("{}: cannot read: {}", path.string(), reason));
}
[[noreturn]] void cannot_read(const std::filesystem::path& path, int error) {
  cannot_read(path, std::generic_category().message(error));
}

}  // namespace

Descriptor::~Descriptor() {
  if (fd_ >= 0) ::close(fd_);
}

InputFile::InputFile(const std::filesystem::path& path)
    // O_NONBLOCK: opening a pipe by mistake must not wait for a writer; regular files do not care.
    : path_(path), file_(retried([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); })) {
  struct stat info;
  if (file_.fd() < 0 || ::fstat(file_.fd(), &info) != 0) cannot_read(path, errno);
  if (S_ISDIR(info.st_mode)) cannot_read(path, EISDIR);
  if (!S_ISREG(info.st_mode)) cannot_read(path, "not a regular file");
  size_ = info.st_size;
}

std::size_t InputFile::read(std::int64_t at, std::span<std::byte> out) const {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t n = retried([&] {
      return ::pread(file_.fd(), out.data() + done, out.size() - done, at + static_cast<std::int64_t>(done));
    });
    if (n < 0) cannot_read(path_, errno);
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

}  // namespace ebb::detail

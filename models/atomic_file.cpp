#include <ebb/models/atomic_file.h>

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>

#include <ebb/graph/error.h>

namespace ebb {
namespace {

namespace fs = std::filesystem;
using Pieces = std::span<const std::span<const std::byte>>;

[[noreturn]] void refused(const fs::path& path, std::string_view reason) {
  throw IoError(fmt::format("{}: cannot write: {}", path.string(), reason));
}
[[noreturn]] void refused(const fs::path& path, int error) {
  refused(path, std::generic_category().message(error));
}

/// A system call, again as long as a signal interrupts it.
template <class Call>
auto retried(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

/// A file descriptor that closes itself.
class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  int fd() const { return fd_; }

 private:
  int fd_;
};

/// Removes a file at the end, unless told to keep it.
class Remover {
 public:
  explicit Remover(const fs::path& path) : path_(path) {}
  Remover(const Remover&) = delete;
  Remover& operator=(const Remover&) = delete;
  ~Remover() {
    if (!kept_) ::unlink(path_.c_str());
  }
  void keep() { kept_ = true; }

 private:
  const fs::path& path_;
  bool kept_ = false;
};

void write_all(const fs::path& path, int fd, Pieces pieces) {
  for (std::span<const std::byte> rest : pieces)
    while (!rest.empty()) {  // one write may take less than it is given
      const ssize_t n = retried([&] { return ::write(fd, rest.data(), rest.size()); });
      if (n < 0) refused(path, errno);
      rest = rest.subspan(static_cast<std::size_t>(n));
    }
}

/// What the path names once symbolic links are followed; the last link may lead to nothing yet.
fs::path followed(const fs::path& path) {
  fs::path at = path;
  std::error_code error;
  for (int links = 0; fs::is_symlink(fs::symlink_status(at, error)); ++links) {
    if (links == 40) refused(path, ELOOP);  // as the kernel counts
    const fs::path target = fs::read_symlink(at, error);
    if (error) refused(path, error.value());
    at = at.parent_path() / target;  // the target alone when it is absolute
  }
  return at;
}

/// Creates a file of a new name in the directory of `target`; sets `name`. The name does not grow with the
/// target's, which may already be as long as the system allows.
int create_beside(const fs::path& target, mode_t mode, fs::path& name) {
  for (int i = 0;; ++i) {
    name = target.parent_path() / fmt::format(".ebb-tmp-{}-{}", ::getpid(), i);
    const int fd =
        retried([&] { return ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode); });
    if (fd >= 0 || errno != EEXIST) return fd;
  }
}

/// A rename is on the disk only once its directory is. Some file systems cannot sync a directory, and one
/// that may not be listed cannot be opened: neither is an error.
void sync_directory(const fs::path& path, const fs::path& target) {
  const fs::path directory = target.has_parent_path() ? target.parent_path() : ".";
  const File file(retried([&] { return ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
  if (file.fd() < 0) return;
  if (retried([&] { return ::fsync(file.fd()); }) != 0 && errno != EINVAL) refused(path, errno);
}

}  // namespace

void write_atomically(const fs::path& path, Pieces pieces) {
  struct stat old;
  const bool exists = ::stat(path.c_str(), &old) == 0;
  if (!exists && (errno != ENOENT || path.empty())) refused(path, errno);
  if (exists && S_ISDIR(old.st_mode)) refused(path, EISDIR);
  if (exists && !S_ISREG(old.st_mode)) {  // a rename would put a file in the place of the device
    const File device(retried([&] { return ::open(path.c_str(), O_WRONLY | O_CLOEXEC); }));
    if (device.fd() < 0) refused(path, errno);
    write_all(path, device.fd(), pieces);
    return;
  }
  // A rename asks only for the directory's permission; the file's own counts too.
  if (exists && ::faccessat(AT_FDCWD, path.c_str(), W_OK, AT_EACCESS) != 0) refused(path, errno);

  const fs::path target = followed(path);
  const mode_t mode = exists ? old.st_mode & 0777 : 0666;
  fs::path name;
  const File file(create_beside(target, mode, name));
  if (file.fd() < 0 && errno == ENOENT) refused(path, "No such directory");
  if (file.fd() < 0) refused(path, errno);
  Remover remover(name);
  if (exists) ::fchmod(file.fd(), mode);  // bits that umask took; without them the file is only more private
  write_all(path, file.fd(), pieces);
  if (retried([&] { return ::fsync(file.fd()); }) != 0) refused(path, errno);
  if (::rename(name.c_str(), target.c_str()) != 0) refused(path, errno);
  remover.keep();
  sync_directory(path, target);
}

void write_atomically(const fs::path& path, std::string_view text) {
  const std::span<const std::byte> piece = std::as_bytes(std::span(text));
  write_atomically(path, std::span(&piece, 1));
}

}  // namespace ebb

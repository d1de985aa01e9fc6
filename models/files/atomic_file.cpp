#include <ebb/models/files/atomic_file.h>

#include <dirent.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>

#include <ebb/graph/error.h>
#include <ebb/models/files/descriptor.h>
#include <ebb/models/files/write_signals.h>

namespace ebb {
namespace {

using detail::Descriptor;
using detail::retried;
namespace fs = std::filesystem;
using Pieces = std::span<const std::span<const std::byte>>;

[[noreturn]] void refused(const fs::path& path, std::string_view reason) {
  throw IoError(fmt::format("{}: cannot write: {}", path.string(), reason));
}
[[noreturn]] void refused(const fs::path& path, int error) { refused(path, std::generic_category().message(error)); }

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
  const detail::WriteSignalsOff off;
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

/// What a path leads to.
struct Place {
  fs::path target;      ///< with symbolic links followed; empty for what is written to directly
  bool exists = false;  ///< the target
  struct stat old {};   ///< of what is there
};

/// Throws where nothing can be written, whatever it is.
Place place_of(const fs::path& path) {
  Place at;
  const bool found = ::stat(path.c_str(), &at.old) == 0;
  if (!found && (errno != ENOENT || path.empty())) refused(path, errno);
  const mode_t mode = at.old.st_mode;
  if (found && S_ISDIR(mode)) refused(path, EISDIR);
  if (found && S_ISSOCK(mode)) refused(path, "it is a socket");
  if (found && S_ISBLK(mode)) refused(path, "it is a disk");
  if (found && !S_ISREG(mode)) return at;  // a rename would put a file in the place of the device
  at.target = followed(path);
  at.exists = found;
  struct statx info;
  if (found && ::statx(AT_FDCWD, at.target.c_str(), AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &info) == 0 &&
      info.stx_attributes & STATX_ATTR_MOUNT_ROOT)
    refused(path, "the file is a mount point, which cannot be replaced as a whole; mount its folder instead");
  return at;
}

/// Opens a device or a pipe to write to; a pipe that nobody reads would be waited for without end.
Descriptor open_direct(const fs::path& path) {
  Descriptor file(retried([&] { return ::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC); }));
  if (file.fd() < 0 && errno == ENXIO) refused(path, "nobody reads from this pipe");
  if (file.fd() < 0) refused(path, errno);
  ::fcntl(file.fd(), F_SETFL, ::fcntl(file.fd(), F_GETFL) & ~O_NONBLOCK);
  return file;
}

constexpr std::string_view temporary_prefix = ".ebb-tmp-";
/// The i-th temporary name of this process beside `target`.
fs::path temporary_name(const fs::path& target, int i) {
  return target.parent_path() / fmt::format("{}{}-{}", temporary_prefix, ::getpid(), i);
}

/// True when `name` still is the file that is open.
bool names(const fs::path& name, int fd) {
  struct stat there, ours;
  return ::lstat(name.c_str(), &there) == 0 && ::fstat(fd, &ours) == 0 && there.st_dev == ours.st_dev &&
         there.st_ino == ours.st_ino;
}

/// Creates a file of a new name in the directory of `target`; sets `name`. The name does not grow with the
/// target's, which may already be as long as the system allows. The file is locked as long as it is open: what
/// is not was left by a process that died, whatever machine of a shared disk it ran on.
Descriptor create_beside(const fs::path& target, mode_t mode, fs::path& name) {
  for (int i = 0;; ++i) {
    name = temporary_name(target, i);
    Descriptor file(retried([&] { return ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode); }));
    if (file.fd() < 0 && errno == EEXIST) continue;
    if (file.fd() < 0) return file;
    const bool locked = ::flock(file.fd(), LOCK_EX | LOCK_NB) == 0;
    if (locked ? names(name, file.fd()) : errno != EWOULDBLOCK) return file;  // some file systems have no locks
    // else another process took it for a remnant before it was locked
  }
}

/// Removes the temporary files of processes that died while they wrote into this directory. What fails is left.
void remove_remnants(const fs::path& directory) {
  // not fs::directory_iterator: when memory runs out, that of GCC's library ends the program
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(::opendir(directory.c_str()), ::closedir);
  while (const dirent* entry = entries ? ::readdir(entries.get()) : nullptr) {
    const std::string_view file = entry->d_name;
    if (!file.starts_with(temporary_prefix) ||
        file.find_first_not_of("0123456789-", temporary_prefix.size()) != std::string::npos)
      continue;
    const fs::path path = directory / file;
    const Descriptor remnant(::open(path.c_str(), O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (remnant.fd() >= 0 && ::flock(remnant.fd(), LOCK_EX | LOCK_NB) == 0 && names(path, remnant.fd()))
      ::unlink(path.c_str());
  }
}

fs::path directory_of(const fs::path& target) { return target.has_parent_path() ? target.parent_path() : "."; }

/// create_beside(); throws.
Descriptor create_or_refuse(const fs::path& path, const fs::path& target, mode_t mode, fs::path& name) {
  Descriptor file = create_beside(target, mode, name);
  if (file.fd() < 0 && errno == ENOENT) refused(path, "No such directory");
  if (file.fd() < 0) refused(path, errno);
  return file;
}

/// A rename is on the disk only once its directory is. Some file systems cannot sync a directory, and one
/// that may not be listed cannot be opened: neither is an error.
void sync_directory(const fs::path& path, const fs::path& target) {
  const fs::path directory = directory_of(target);
  const Descriptor file(retried([&] { return ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
  if (file.fd() < 0) return;
  if (retried([&] { return ::fsync(file.fd()); }) != 0 && errno != EINVAL) refused(path, errno);
}

/// What check_writable() promised not to overwrite, and where it was written instead when a file had come up there.
std::mutex promised_mutex;
std::map<std::string, fs::path> promised;

std::string key_of(const fs::path& target) {
  std::error_code error;
  const fs::path whole = fs::weakly_canonical(fs::absolute(target), error);
  return error ? target.string() : whole.string();
}

/// Like rename(), but gives EEXIST when there is a file.
int rename_to_new(const fs::path& from, const fs::path& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return errno;
  if (::link(from.c_str(), to.c_str()) == 0) {
    ::unlink(from.c_str());
    return 0;
  }
  if (errno == EEXIST) return errno;
  struct stat there;  // a file system that can do neither: a moment is left in which a file can come up
  if (::lstat(to.c_str(), &there) == 0) return EEXIST;
  return ::rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
}

/// Gives the temporary file its name: the target's, or where that is promised and taken, another, which is returned.
fs::path rename_or_refuse(const fs::path& path, const fs::path& name, const fs::path& target) {
  const std::lock_guard lock(promised_mutex);
  const auto it = promised.find(key_of(target));
  const fs::path to = it == promised.end() || it->second.empty() ? target : it->second;
  if (it == promised.end() || !it->second.empty()) {
    if (::rename(name.c_str(), to.c_str()) != 0) refused(path, errno);
    return to;
  }
  int error = rename_to_new(name, target);
  for (int i = 1; error == EEXIST; ++i) {
    it->second = target.parent_path() / fmt::format("{}.new{}{}", target.stem().string(),
                                                    i == 1 ? "" : fmt::format("-{}", i), target.extension().string());
    error = rename_to_new(name, it->second);
  }
  if (error) {
    it->second.clear();
    refused(path, error);
  }
  if (!it->second.empty()) return it->second;
  promised.erase(it);  // from here on it is our own
  return target;
}

/// A temporary name for the file that is to be replaced, so that it can become an older one once it is. Nobody takes it
/// for a remnant: it is locked.
class Second {
 public:
  Second(const fs::path& target, const fs::path& beside)
      : linked_(retried([&] { return ::open(target.c_str(), O_RDONLY | O_CLOEXEC); })) {
    if (linked_.fd() >= 0) ::flock(linked_.fd(), LOCK_EX | LOCK_NB);
    int error = EEXIST;
    for (int i = 0; error == EEXIST; ++i) {
      name_ = temporary_name(beside, i);
      error = ::link(target.c_str(), name_.c_str()) == 0 ? 0 : errno;
    }
    if (error != 0)
      copied_ = create_or_refuse(beside, beside, 0600, name_);  // a file system without links, or another one
    remover_.emplace(name_);
    if (error == 0) return;
    std::error_code refusal;
    fs::copy_file(target, name_, fs::copy_options::overwrite_existing, refusal);
    if (refusal) refused(beside, refusal.value());
  }
  /// `older[0]` is its name from here on; what had that is `older[1]`, and so on, and the last is gone. Throws before
  /// any is lost.
  void become(std::span<const fs::path> older) {
    for (std::size_t i = older.size() - 1; i > 0; --i)
      if (::rename(older[i - 1].c_str(), older[i].c_str()) != 0 && errno != ENOENT) refused(older[i], errno);
    if (::rename(name_.c_str(), older[0].c_str()) != 0) refused(older[0], errno);
    remover_->keep();
  }

 private:
  fs::path name_;
  Descriptor linked_, copied_;
  std::optional<Remover> remover_;
};

}  // namespace

void write_atomically(const fs::path& path, Pieces pieces, std::span<const fs::path> older) {
  const Place at = place_of(path);
  if (at.target.empty()) {
    const Descriptor device = open_direct(path);
    write_all(path, device.fd(), pieces);
    return;
  }
  // A rename asks only for the directory's permission; the file's own counts too.
  if (at.exists && ::faccessat(AT_FDCWD, path.c_str(), W_OK, AT_EACCESS) != 0) refused(path, errno);

  remove_remnants(directory_of(at.target));  // first, for the room they take
  const mode_t mode = at.exists ? at.old.st_mode & 0777 : 0666;
  fs::path name;
  const Descriptor file = create_or_refuse(path, at.target, mode, name);
  Remover remover(name);
  if (at.exists) ::fchmod(file.fd(), mode);  // bits that umask took; without them the file is only more private
  write_all(path, file.fd(), pieces);
  if (retried([&] { return ::fsync(file.fd()); }) != 0) refused(path, errno);
  std::optional<Second> second;
  if (at.exists && !older.empty()) second.emplace(at.target, older[0]);
  const fs::path written = rename_or_refuse(path, name, at.target);
  remover.keep();
  if (second && written == at.target) second->become(older);
  sync_directory(path, at.target);
  if (written != at.target)
    throw WrittenBeside(
        fmt::format("{}: came up meanwhile and is kept; written to {} instead", path.string(), written.string()));
}

void write_atomically(const fs::path& path, std::string_view text) {
  const std::span<const std::byte> piece = std::as_bytes(std::span(text));
  write_atomically(path, std::span(&piece, 1));
}

void check_writable(const fs::path& path, bool overwrite, std::uintmax_t bytes) {
  const Place at = place_of(path);
  if (at.target.empty()) {
    Descriptor device = open_direct(path);
    if (S_ISFIFO(at.old.st_mode)) device.release();  // stays open: whoever reads a pipe would take closing for its end
    return;
  }
  if (at.exists && at.old.st_size > 0 && !overwrite) throw FileExists(fmt::format("{}: exists already", path.string()));
  // Only opening, creating and removing files tells: folders can be closed, disks read-only. That a name is too long
  // was told by stat(). The target is not created for that: another process may put its own there before it is removed
  // again.
  if (at.exists) {
    const Descriptor probe(retried([&] { return ::open(at.target.c_str(), O_WRONLY | O_CLOEXEC); }));
    if (probe.fd() < 0) refused(path, errno);
  }
  fs::path name;
  const Descriptor probe = create_or_refuse(path, at.target, 0600, name);
  if (::unlink(name.c_str()) != 0) refused(path, errno);
  struct stat folder;
  const uid_t me = ::geteuid();
  if (at.exists && ::stat(directory_of(at.target).c_str(), &folder) == 0 && folder.st_mode & S_ISVTX && me != 0 &&
      me != folder.st_uid && me != at.old.st_uid)
    refused(path, "another user's file in a folder where only its owner may replace it");
  if (!at.exists && !overwrite) {
    const std::lock_guard lock(promised_mutex);
    promised.try_emplace(key_of(at.target));
  }
  struct rlimit limit;
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < bytes)
    refused(path, fmt::format("it takes {} bytes, the limit of a file (ulimit -f) is {}", bytes, limit.rlim_cur));
  struct statvfs disk;
  if (::fstatvfs(probe.fd(), &disk) != 0 || disk.f_blocks == 0) return;  // not every file system tells
  const std::uintmax_t room = static_cast<std::uintmax_t>(me == 0 ? disk.f_bfree : disk.f_bavail) * disk.f_frsize;
  if (room < bytes) refused(path, fmt::format("it takes {} bytes, the disk has room for {}", bytes, room));
}

}  // namespace ebb

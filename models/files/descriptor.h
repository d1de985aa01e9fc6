// Internal: open files.
#pragma once
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <utility>

namespace ebb::detail {

/// Makes a system call, again as long as a signal interrupts it.
template <class Call>
auto retried(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

/// Owns a file descriptor and closes it.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}  ///< below 0: none
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor();
  int fd() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }  ///< the descriptor, which is no longer closed

 private:
  int fd_;
};

/// A regular file that is open for reading. What the system refuses is an IoError "PATH: cannot read: REASON".
class InputFile {
 public:
  explicit InputFile(const std::filesystem::path& path);
  std::int64_t size() const { return size_; }  ///< in bytes, when it was opened
  /// Fills `out` from byte `at` of the file on; returns how many bytes there were.
  std::size_t read(std::int64_t at, std::span<std::byte> out) const;

 private:
  std::filesystem::path path_;
  Descriptor file_;
  std::int64_t size_ = 0;
};

}  // namespace ebb::detail

#include <ebb/models/idx.h>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ebb/graph/error.h>
#include <ebb/models/atomic_file.h>

namespace ebb {
namespace {

constexpr int max_axes = 4;
/// Far above any known set (the largest, 8 million MNIST images, has 6.4e9 bytes).
constexpr std::int64_t max_elements = std::int64_t{1} << 34;
/// Deflate cannot do better: 258 bytes from two bits.
constexpr std::int64_t max_deflate_ratio = 1032;

[[noreturn]] void refused(const std::filesystem::path& path, std::string_view what, int error) {
  throw IoError(fmt::format("{}: cannot {}: {}", path.string(), what, std::strerror(error)));
}

/// A file descriptor that closes itself.
class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  File& operator=(File&&) = delete;
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  int fd() const { return fd_; }

 private:
  int fd_;
};

/// The bytes of a file, inflated when they are gzip.
class Source {
 public:
  explicit Source(const std::filesystem::path& path) : path_(path), file_(open(path)) {
    struct stat info;
    if (::fstat(file_.fd(), &info) != 0) refused(path_, "read", errno);
    if (S_ISDIR(info.st_mode)) refused(path_, "read", EISDIR);
    if (!S_ISREG(info.st_mode))
      throw IoError(fmt::format("{}: cannot read: not a regular file", path_.string()));
    file_bytes_ = info.st_size;
    refill();
    gzip_ = filled_ >= 2 && buffer_[0] == 0x1f && buffer_[1] == 0x8b;
    if (gzip_ && ::inflateInit2(&stream_, 15 + 16) != Z_OK)
      no_memory();  // + 16: a gzip header and nothing else
  }
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;
  ~Source() {
    if (gzip_) ::inflateEnd(&stream_);
  }

  /// Fills `out` as far as there is data; returns how many bytes that was.
  std::size_t read(std::span<std::uint8_t> out) {
    std::size_t done = 0;
    while (done < out.size()) {
      const std::size_t n = gzip_ ? inflate_some(out.subspan(done)) : copy_some(out.subspan(done));
      if (n == 0) break;
      done += n;
    }
    position_ += static_cast<std::int64_t>(done);
    return done;
  }

  /// Throws unless everything has been read, and, for gzip, the checksum is right and nothing follows it.
  void expect_end() {
    std::uint8_t more = 0;
    const std::int64_t end = position_;
    if (read({&more, 1}) != 0) fail_at(end, "expected the end of the data, found more bytes");
    if (gzip_ && used_ < filled_)
      fail_gzip(fmt::format("expected the end of the file, found {}", after_member()));
  }

  /// The most bytes that the data can have, judged by the size of the file.
  std::int64_t limit() const { return gzip_ ? file_bytes_ * max_deflate_ratio : file_bytes_; }
  std::int64_t file_bytes() const { return file_bytes_; }
  bool gzip() const { return gzip_; }
  std::int64_t position() const { return position_; }

  /// Positions count bytes of the data, after inflating.
  [[noreturn]] void fail_at(std::int64_t position, std::string_view message) const {
    throw DataError(fmt::format("{}: byte {}: {}", path_.string(), position, message));
  }

 private:
  static File open(const std::filesystem::path& path) {
    // O_NONBLOCK: opening a pipe by mistake must not wait for a writer; regular files do not care.
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) refused(path, "open", errno);
    return File(fd);
  }

  /// Reads the next piece of the file; filled_ is 0 at its end.
  void refill() {
    ssize_t n = 0;
    do n = ::read(file_.fd(), buffer_.data(), buffer_.size());
    while (n < 0 && errno == EINTR);
    if (n < 0) refused(path_, "read", errno);
    used_ = 0;
    filled_ = static_cast<std::size_t>(n);
    consumed_ += n;
  }

  std::size_t copy_some(std::span<std::uint8_t> out) {
    if (used_ == filled_) refill();
    const std::size_t n = std::min(out.size(), filled_ - used_);
    std::copy_n(buffer_.data() + used_, n, out.data());
    used_ += n;
    return n;
  }

  std::size_t inflate_some(std::span<std::uint8_t> out) {
    const std::size_t room = std::min<std::size_t>(out.size(), std::numeric_limits<uInt>::max());
    stream_.next_out = out.data();
    stream_.avail_out = static_cast<uInt>(room);
    while (!ended_ && stream_.avail_out == room) {
      if (used_ == filled_) refill();
      if (filled_ == 0) fail_gzip("expected more compressed data, found the end of the file");
      stream_.next_in = buffer_.data() + used_;
      stream_.avail_in = static_cast<uInt>(filled_ - used_);
      const int status = ::inflate(&stream_, Z_NO_FLUSH);
      used_ = filled_ - stream_.avail_in;
      if (status == Z_MEM_ERROR) no_memory();
      if (status != Z_OK && status != Z_STREAM_END)
        fail_gzip(fmt::format("expected valid compressed data, found: {}",
                              stream_.msg ? stream_.msg : "corrupt data"));
      ended_ = status == Z_STREAM_END;
    }
    if (ended_ && used_ == filled_) refill();  // so that used_ < filled_ says whether anything follows
    return room - stream_.avail_out;
  }

  std::string_view after_member() const {
    return buffer_[used_] == 0x1f ? "a second gzip member" : "trailing bytes";
  }

  [[noreturn]] void fail_gzip(std::string_view message) const {
    const std::int64_t position = consumed_ - static_cast<std::int64_t>(filled_ - used_);
    throw DataError(fmt::format("{}: byte {} of the gzip file: {}", path_.string(), position, message));
  }
  [[noreturn]] void no_memory() const {
    throw MemoryError(fmt::format("{}: no memory to inflate", path_.string()));
  }

  std::filesystem::path path_;
  File file_;
  std::int64_t file_bytes_ = 0;
  bool gzip_ = false;
  z_stream stream_{};
  bool ended_ = false;  // the gzip member is complete, its checksum right
  std::vector<std::uint8_t> buffer_ = std::vector<std::uint8_t>(std::size_t{1} << 16);
  std::size_t used_ = 0, filled_ = 0;  // what of buffer_ is taken, and valid
  std::int64_t consumed_ = 0;          // bytes read from the file
  std::int64_t position_ = 0;          // bytes handed out
};

/// The product of the sizes, and whether it is small enough. A size of 0 does not excuse the others.
std::pair<std::int64_t, bool> elements(std::span<const std::int64_t> sizes) {
  std::int64_t product = 1;
  bool empty = false;
  for (const std::int64_t n : sizes) {
    empty |= n == 0;
    if (n != 0 && (__builtin_mul_overflow(product, n, &product) || product > max_elements)) return {0, false};
  }
  return {empty ? 0 : product, true};
}

std::vector<std::int64_t> read_sizes(Source& in, int axes) {
  std::vector<std::int64_t> sizes;
  for (int i = 0; i < axes; ++i) {
    std::array<std::uint8_t, 4> b{};
    if (in.read(b) < b.size())
      in.fail_at(in.position(), fmt::format("expected the size of axis {}, found the end of the data", i));
    sizes.push_back(std::int64_t{b[0]} << 24 | std::int64_t{b[1]} << 16 | std::int64_t{b[2]} << 8 | b[3]);
  }
  return sizes;
}

/// The pieces as one gzip member.
std::vector<std::byte> gzipped(std::span<const std::span<const std::byte>> pieces) {
  z_stream z{};
  constexpr int gzip = 15 + 16;  // the largest window, and gzip's header instead of zlib's
  if (::deflateInit2(&z, 6, Z_DEFLATED, gzip, 8, Z_DEFAULT_STRATEGY) != Z_OK) throw MemoryError("write_idx: no memory to compress");
  std::vector<std::byte> out;
  std::array<std::byte, 1 << 16> part;
  const auto feed = [&](std::span<const std::byte> bytes, int flush) {
    z.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(bytes.data()));
    z.avail_in = static_cast<uInt>(bytes.size());
    do {
      z.next_out = reinterpret_cast<Bytef*>(part.data());
      z.avail_out = part.size();
      ::deflate(&z, flush);
      out.insert(out.end(), part.begin(), part.end() - z.avail_out);
    } while (z.avail_out == 0);
  };
  constexpr std::size_t most = std::size_t{1} << 30;  // zlib counts in 32 bits
  for (const std::span<const std::byte> piece : pieces)
    for (std::size_t at = 0; at < piece.size(); at += most) feed(piece.subspan(at, std::min(most, piece.size() - at)), Z_NO_FLUSH);
  feed({}, Z_FINISH);
  ::deflateEnd(&z);
  return out;
}

}  // namespace

Tensor read_idx(const std::filesystem::path& path) {
  Source in(path);
  std::array<std::uint8_t, 4> magic{};
  if (in.read(magic) < magic.size())
    in.fail_at(in.position(), "expected the 4 bytes of the magic, found the end of the data");
  if (magic[0] != 0 || magic[1] != 0 || magic[2] != 8)
    in.fail_at(0, fmt::format("expected magic 00 00 08 NN, found {:02x}", fmt::join(magic, " ")));
  if (magic[3] < 1 || magic[3] > max_axes)
    in.fail_at(3, fmt::format("expected 1 to {} axes, found {}", max_axes, magic[3]));

  const std::vector<std::int64_t> sizes = read_sizes(in, magic[3]);
  const std::string claim = fmt::format("{}", fmt::join(sizes, " x "));
  const auto [count, fits] = elements(sizes);
  if (!fits) in.fail_at(4, fmt::format("expected at most {} elements, found {}", max_elements, claim));
  const std::int64_t header = in.position();
  if (in.gzip() ? in.limit() < header + count : in.limit() != header + count) {
    if (in.gzip())
      in.fail_at(header, fmt::format("expected {} elements ({}), found a gzip file of {} bytes", count, claim,
                                     in.file_bytes()));
    if (in.limit() > header + count)
      in.fail_at(header + count, fmt::format("expected the end of the data, found {} more bytes",
                                             in.limit() - header - count));
    in.fail_at(in.limit(), fmt::format("expected {} elements ({}), found the end of the data after {}", count,
                                       claim, in.limit() - header));
  }

  Tensor out = Tensor::empty(Shape(sizes), DType::u8);
  const std::size_t got = in.read(out.mutable_values<std::uint8_t>());
  if (static_cast<std::int64_t>(got) < count)
    in.fail_at(in.position(), fmt::format("expected {} elements ({}), found the end of the data after {}",
                                          count, claim, got));
  in.expect_end();
  return out;
}

void write_idx(const std::filesystem::path& path, const Tensor& values) {
  if (!values.defined() || values.dtype() != DType::u8)
    fail<DTypeError>("write_idx", fmt::format("writes uint8 only, got {}", describe(values)));
  const bool in_range = values.rank() >= 1 && values.rank() <= max_axes &&
                        std::ranges::all_of(values.shape(), [](std::int64_t n) { return n <= 0xffffffff; });
  if (!in_range || !elements({values.shape().begin(), values.shape().end()}).second)
    fail<ShapeError>("write_idx", fmt::format("IDX cannot hold {}: 1 to {} axes, at most {} elements",
                                              values.shape().str(), max_axes, max_elements));

  std::vector<std::uint8_t> header{0, 0, 8, static_cast<std::uint8_t>(values.rank())};
  for (const std::int64_t n : values.shape())
    for (const int shift : {24, 16, 8, 0}) header.push_back(static_cast<std::uint8_t>(n >> shift & 0xff));

  const std::array pieces{std::as_bytes(std::span(header)), std::as_bytes(values.values<std::uint8_t>())};
  if (path.extension() != ".gz") return write_atomically(path, pieces);
  const std::vector<std::byte> packed = gzipped(pieces);
  write_atomically(path, std::array{std::span<const std::byte>(packed)});
}

}  // namespace ebb

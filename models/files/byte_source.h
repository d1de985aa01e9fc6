// Files that may be compressed: bytes from gzip or zip, and to gzip.
#pragma once
#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <ebb/models/files/descriptor.h>

namespace ebb::detail {

/// Reads a file from its beginning to its end: plain, gzip of one or more members, or the one file in a zip (stored or
/// deflated; no encryption, no zip64); or the files in a zip one after the other. The content decides, not the name.
/// Checksums and sizes are checked, and nothing may be left over but zeros after gzip. What breaks a format is a
/// DataError with the position; what the system refuses is an IoError.
class Source {
 public:
  explicit Source(const std::filesystem::path& path);
  /// A zip of any number of files; open() begins one of them.
  struct Archive {};
  Source(const std::filesystem::path& path, Archive);
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;
  ~Source();

  /// The names of the files in an archive, none twice.
  std::vector<std::string> names() const;
  /// Begins the file of an archive that has this place among the names.
  void open(std::size_t member);

  /// Fills `out` as far as there is data; returns how many bytes that was.
  std::size_t read(std::span<std::uint8_t> out);
  /// Throws unless everything has been read, the checksum is right and nothing follows the data.
  void expect_end();

  /// The most bytes that the data can have, judged by the size of the file.
  std::int64_t limit() const;
  /// Whether the data can be so many bytes. What is packed and claims 64 MiB more than the file has is inflated once
  /// without being kept, so that no broken file costs memory; then the answer is exact, or the error that reading would
  /// meet.
  bool can_hold(std::int64_t bytes) const;
  std::int64_t file_bytes() const { return file_.size(); }
  /// "plain", "gzip" or "zip".
  std::string_view kind() const;
  bool packed() const { return kind_ != Kind::plain; }
  /// Bytes handed out so far.
  std::int64_t position() const { return position_; }

  /// "PATH: byte POSITION: message"; positions count bytes of the data, after inflating.
  [[noreturn]] void fail_at(std::int64_t position, std::string_view message) const;
  const std::filesystem::path& path() const { return path_; }

 private:
  enum class Kind { plain, gzip, zip };
  struct Member {  ///< of a zip: where its bytes are, and what they must give
    std::int64_t begin = 0, packed = 0, size = 0;
    std::uint32_t crc = 0;
    bool stored = false;
    std::string name = {};
  };
  Source(const std::filesystem::path& path, int);

  std::vector<std::uint8_t> bytes_at(std::int64_t begin, std::int64_t count);
  std::vector<Member> find_members(bool one);
  bool agrees_in_zip64(std::span<const std::uint8_t> local, std::int64_t extra_at, const Member& m);
  void start_inflating(int window);
  void refill();
  std::size_t copy_some(std::span<std::uint8_t> out);
  std::size_t inflate_some(std::span<std::uint8_t> out);
  void end_member();
  void check_member();
  [[noreturn]] void fail_packed(std::string_view message) const;
  [[noreturn]] void fail_packed_at(std::int64_t position, std::string_view message) const;
  [[noreturn]] void no_memory() const;

  std::filesystem::path path_;
  InputFile file_;
  Kind kind_ = Kind::plain;
  std::vector<Member> members_;
  Member member_;
  std::string label_;  // what fail_at() calls the data
  z_stream stream_{};
  bool inflating_ = false;  // stream_ is set up
  bool ended_ = false;      // the compressed data are complete
  std::vector<std::uint8_t> buffer_ = std::vector<std::uint8_t>(std::size_t{1} << 16);
  std::size_t used_ = 0, filled_ = 0;  // what of buffer_ is taken, and valid
  std::int64_t at_ = 0, end_ = 0;      // what of the file is still to be read into buffer_: [at_, end_)
  std::int64_t position_ = 0;
  std::uint32_t crc_ = 0;  // of the bytes handed out, for zip
};

/// write_atomically(), as one gzip member when the name ends in ".gz".
void write_by_name(const std::filesystem::path& path, std::span<const std::span<const std::byte>> pieces);

}  // namespace ebb::detail

#include <ebb/models/files/byte_source.h>

#include <fmt/core.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <future>
#include <limits>
#include <memory>
#include <unordered_set>

#include <ebb/graph/error.h>
#include <ebb/graph/printable.h>
#include <ebb/models/files/atomic_file.h>

namespace ebb::detail {
namespace {

/// Deflate cannot do better: 258 bytes from two bits.
constexpr std::int64_t max_deflate_ratio = 1032;
constexpr int gzip_window = 15 + 16;  // a gzip header and nothing else
constexpr int raw_window = -15;       // deflate with no header, as in zip

// Sizes and signatures of the records of a zip (APPNOTE.TXT 4.3).
constexpr std::int64_t local_bytes = 30, end_bytes = 22, longest_comment = 65535;
constexpr std::size_t central_bytes = 46;
constexpr std::uint32_t local_mark = 0x04034b50, central_mark = 0x02014b50, end_mark = 0x06054b50,
                        descriptor_mark = 0x08074b50;

/// Little-endian numbers at a place that the caller has checked to be there.
std::uint32_t u16(std::span<const std::uint8_t> b, std::size_t i) {
  return std::uint32_t{b[i]} | std::uint32_t{b[i + 1]} << 8;
}
std::uint32_t u32(std::span<const std::uint8_t> b, std::size_t i) { return u16(b, i) | u16(b, i + 2) << 16; }

/// Asks the system for the memory of `out`, in order; otherwise it comes a page at a time when something is first
/// written there. In a virtual machine whose host has to find those pages that takes as long as inflating what goes
/// into them.
void fetch_pages([[maybe_unused]] std::span<std::uint8_t> out) {
#ifdef MADV_POPULATE_WRITE  // Linux 5.14
  // In parts, since nobody else in the process gets memory of the system meanwhile.
  constexpr std::size_t part = std::size_t{2} << 20;
  void* at = out.data();
  std::size_t left = out.size();
  for (; std::align(part, part, at, left); left -= part, at = static_cast<std::uint8_t*>(at) + part)
    if (::madvise(at, part, MADV_POPULATE_WRITE) != 0) return;  // an older kernel, or no memory: as if not asked
#endif
}

/// The pieces as one gzip member.
std::vector<std::byte> gzipped(std::span<const std::span<const std::byte>> pieces) {
  z_stream z{};
  constexpr int gzip = 15 + 16;  // the largest window, and gzip's header instead of zlib's
  if (::deflateInit2(&z, 6, Z_DEFLATED, gzip, 8, Z_DEFAULT_STRATEGY) != Z_OK)
    throw MemoryError("no memory to compress");
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
    for (std::size_t at = 0; at < piece.size(); at += most)
      feed(piece.subspan(at, std::min(most, piece.size() - at)), Z_NO_FLUSH);
  feed({}, Z_FINISH);
  ::deflateEnd(&z);
  return out;
}

}  // namespace

Source::Source(const std::filesystem::path& path, int)
    : path_(path), file_(path), label_(path.string()), end_(file_.size()) {
  refill();
  if (filled_ < 4 || u32(buffer_, 0) != local_mark) return;  // also the empty zip
  kind_ = Kind::zip;
}

Source::Source(const std::filesystem::path& path) : Source(path, 0) {
  if (filled_ >= 2 && buffer_[0] == 0x1f && buffer_[1] == 0x8b) {
    kind_ = Kind::gzip;
    start_inflating(gzip_window);
  } else if (kind_ == Kind::zip) {
    members_ = find_members(true);
    open(0);
    label_ = path_.string();
  }
}

Source::Source(const std::filesystem::path& path, Archive) : Source(path, 0) {
  if (kind_ != Kind::zip && (filled_ < 4 || u32(buffer_, 0) != end_mark)) fail_at(0, "expected a zip");
  kind_ = Kind::zip;
  members_ = find_members(false);
  std::unordered_set<std::string_view> seen;
  for (const Member& m : members_)
    if (!seen.insert(m.name).second)
      throw DataError(fmt::format("{}: holds {} twice", path_.string(), printable(m.name, 80)));
}

std::vector<std::string> Source::names() const {
  std::vector<std::string> out;
  for (const Member& m : members_) out.push_back(m.name);
  return out;
}

void Source::open(std::size_t member) {
  member_ = members_[member];
  label_ = fmt::format("{}: {}", path_.string(), printable(member_.name, 80));
  at_ = member_.begin;
  end_ = member_.begin + member_.packed;
  used_ = filled_ = 0;
  position_ = 0;
  crc_ = 0;
  ended_ = false;
  if (inflating_) ::inflateEnd(&stream_);
  inflating_ = false;
  stream_ = {};
  if (!member_.stored) start_inflating(raw_window);
}

Source::~Source() {
  if (inflating_) ::inflateEnd(&stream_);
}

std::size_t Source::read(std::span<std::uint8_t> out) {
  // By another thread, and no more than a file of this size likely fills: what a broken one claims may be much more.
  std::future<void> pages;
  const std::size_t likely = std::min(out.size(), 8 * static_cast<std::size_t>(end_ - at_));
  if (inflating_ && likely >= std::size_t{8} << 20) pages = std::async(fetch_pages, out.first(likely));

  std::size_t done = 0;
  while (done < out.size()) {
    const std::size_t n = inflating_ ? inflate_some(out.subspan(done)) : copy_some(out.subspan(done));
    if (n == 0) break;
    if (kind_ == Kind::zip) {
      crc_ = static_cast<std::uint32_t>(::crc32_z(crc_, out.data() + done, n));
      if (position_ + static_cast<std::int64_t>(done + n) > member_.size)
        fail_packed(fmt::format("expected {} bytes of data, found more", member_.size));
    }
    done += n;
  }
  position_ += static_cast<std::int64_t>(done);
  return done;
}

void Source::expect_end() {
  std::uint8_t more = 0;
  const std::int64_t end = position_;
  if (read({&more, 1}) != 0) fail_at(end, "expected the end of the data, found more bytes");
  if (kind_ == Kind::gzip && used_ < filled_) fail_packed("expected the end of the file, found trailing bytes");
  if (kind_ == Kind::zip) check_member();
}

/// What the directory of the zip promised.
void Source::check_member() {
  if (used_ < filled_ || at_ < end_) fail_packed("expected the end of the compressed data, found more bytes");
  if (position_ != member_.size)
    fail_packed(fmt::format("expected {} bytes of data, found {}", member_.size, position_));
  if (crc_ != member_.crc)
    fail_packed(fmt::format("expected data with checksum {:08x}, found {:08x}", member_.crc, crc_));
}

std::int64_t Source::limit() const {
  if (kind_ == Kind::zip) return member_.size;
  return kind_ == Kind::gzip ? file_.size() * max_deflate_ratio : file_.size();
}

std::string_view Source::kind() const { return kind_ == Kind::plain ? "plain" : kind_ == Kind::gzip ? "gzip" : "zip"; }

void Source::fail_at(std::int64_t position, std::string_view message) const {
  throw DataError(fmt::format("{}: byte {}: {}", label_, position, message));
}

void Source::fail_packed_at(std::int64_t position, std::string_view message) const {
  throw DataError(fmt::format("{}: byte {} of the {} file: {}", path_.string(), position, kind(), message));
}

void Source::fail_packed(std::string_view message) const {
  fail_packed_at(at_ - static_cast<std::int64_t>(filled_ - used_), message);
}

void Source::no_memory() const { throw MemoryError(fmt::format("{}: no memory to inflate", path_.string())); }

void Source::start_inflating(int window) {
  if (::inflateInit2(&stream_, window) != Z_OK) no_memory();
  inflating_ = true;
}

/// Reads the next piece of the file; filled_ is 0 at the end.
void Source::refill() {
  const std::size_t most = std::min(buffer_.size(), static_cast<std::size_t>(end_ - at_));
  used_ = 0;
  filled_ = file_.read(at_, std::as_writable_bytes(std::span(buffer_).first(most)));
  at_ += static_cast<std::int64_t>(filled_);
}

std::size_t Source::copy_some(std::span<std::uint8_t> out) {
  if (used_ == filled_) refill();
  const std::size_t n = std::min(out.size(), filled_ - used_);
  std::copy_n(buffer_.data() + used_, n, out.data());
  used_ += n;
  return n;
}

std::size_t Source::inflate_some(std::span<std::uint8_t> out) {
  const std::size_t room = std::min<std::size_t>(out.size(), std::numeric_limits<uInt>::max());
  stream_.next_out = out.data();
  stream_.avail_out = static_cast<uInt>(room);
  while (!ended_ && stream_.avail_out == room) {
    if (used_ == filled_) refill();
    if (filled_ == 0)
      fail_packed(
          fmt::format("expected more compressed data, found the end of the {}", kind_ == Kind::zip ? "data" : "file"));
    stream_.next_in = buffer_.data() + used_;
    stream_.avail_in = static_cast<uInt>(filled_ - used_);
    const int status = ::inflate(&stream_, Z_NO_FLUSH);
    used_ = filled_ - stream_.avail_in;
    if (status == Z_MEM_ERROR) no_memory();
    if (status != Z_OK && status != Z_STREAM_END)
      fail_packed(fmt::format("expected valid compressed data, found: {}", stream_.msg ? stream_.msg : "corrupt data"));
    if (status == Z_STREAM_END) end_member();
  }
  return room - stream_.avail_out;
}

/// After the last byte of a deflate stream. A gzip file may have more members (RFC 1952, 2.2; bgzip writes one for each
/// 64 KiB) and zeros to the end of a block of its medium, which gzip(1) ignores too; used_ < filled_ says that anything
/// else follows.
void Source::end_member() {
  if (used_ == filled_) refill();
  ended_ = kind_ == Kind::zip || used_ == filled_ || buffer_[used_] != 0x1f;
  if (!ended_) ::inflateReset(&stream_);
  while (kind_ == Kind::gzip && used_ < filled_ && buffer_[used_] == 0)
    if (++used_ == filled_) refill();
}

bool Source::can_hold(std::int64_t bytes) const {
  constexpr std::int64_t free_of_charge = std::int64_t{64} << 20;
  if (!packed()) return bytes == file_.size();
  if (bytes > limit()) return false;
  if (bytes <= file_.size() + free_of_charge) return true;
  Source all(path_, 0);
  all.kind_ = kind_;
  all.members_ = {member_};
  if (kind_ == Kind::zip) all.open(0);
  else all.start_inflating(gzip_window);
  std::vector<std::uint8_t> part(buffer_.size());
  while (all.read(part) > 0 && all.position_ <= bytes) {
  }
  if (all.position_ != bytes) return false;
  all.expect_end();
  return true;
}

std::vector<std::uint8_t> Source::bytes_at(std::int64_t begin, std::int64_t count) {
  if (begin < 0 || count < 0 || begin > file_.size() - count)
    fail_packed_at(file_.size(), "expected more of the zip, found the end of the file");
  std::vector<std::uint8_t> out(static_cast<std::size_t>(count));
  if (const std::size_t n = file_.read(begin, std::as_writable_bytes(std::span(out))); n < out.size())
    fail_packed_at(begin + static_cast<std::int64_t>(n), "expected more of the zip, found the end of the file");
  return out;
}

/// The files of a zip. The records must fit without gap or overlap: of each file the local header, data, and data
/// descriptor where there is one; then directory, end record, comment.
std::vector<Source::Member> Source::find_members(bool one) {
  const auto expect = [&](bool fine, std::int64_t position, std::string_view what) {
    if (!fine) fail_packed_at(position, fmt::format("expected {}", what));
  };
  const std::int64_t tail_at = std::max<std::int64_t>(0, file_.size() - end_bytes - longest_comment);
  const std::vector<std::uint8_t> tail = bytes_at(tail_at, file_.size() - tail_at);
  auto e = static_cast<std::int64_t>(tail.size()) - end_bytes;
  const auto is_end = [&](std::int64_t i) {
    const auto at = static_cast<std::size_t>(i);
    return u32(tail, at) == end_mark && u16(tail, at + 20) == tail.size() - at - static_cast<std::size_t>(end_bytes);
  };
  while (e >= 0 && !is_end(e)) --e;
  expect(e >= 0, file_.size(), "the directory of the zip, found the end of the file");
  const std::int64_t end_at = tail_at + e;
  const std::span<const std::uint8_t> end = std::span(tail).subspan(static_cast<std::size_t>(e));
  const std::size_t count = u16(end, 10);
  expect(u16(end, 4) == 0 && u16(end, 6) == 0 && u16(end, 8) == count, end_at, "a zip in one piece");
  expect(!one || count == 1, end_at, fmt::format("a zip with one file, found {}", count));
  const std::int64_t central_size = u32(end, 12), central_at = u32(end, 16);
  expect(central_at + central_size == end_at && central_size >= static_cast<std::int64_t>(count * central_bytes),
         end_at, "the directory of the zip right before its end (zip64 is not read)");

  const std::vector<std::uint8_t> directory = bytes_at(central_at, central_size);
  std::vector<Member> out;
  std::size_t at = 0;         // in the directory
  std::int64_t local_at = 0;  // of the next local header
  for (std::size_t i = 0; i < count; ++i) {
    const std::int64_t entry_at = central_at + static_cast<std::int64_t>(at);
    const std::span<const std::uint8_t> c = std::span(directory).subspan(at);
    const bool last = i + 1 == count;
    const std::size_t name_bytes = c.size() < central_bytes ? 0 : u16(c, 28);
    const std::size_t entry_bytes = c.size() < central_bytes ? 0 : central_bytes + name_bytes + u16(c, 30) + u16(c, 32);
    expect(
        entry_bytes > 0 && u32(c, 0) == central_mark && (last ? entry_bytes == c.size() : entry_bytes <= c.size()),
        entry_at,
        one ? "one entry in the directory of the zip" : fmt::format("{} entries in the directory of the zip", count));
    const std::uint32_t flags = u16(c, 8), method = u16(c, 10);
    expect((flags & ~0x080eu) == 0, entry_at,
           "a file that is not encrypted");  // allowed: level, descriptor, UTF-8 name
    expect(method == 0 || method == 8, entry_at, fmt::format("a stored or deflated file, found method {}", method));
    Member found{0, u32(c, 20), u32(c, 24), u32(c, 16), method == 0};
    expect(found.packed != 0xffffffff && found.size != 0xffffffff, entry_at, "a file below 4 GiB (zip64 is not read)");
    expect(found.stored ? found.size == found.packed : found.size <= found.packed * max_deflate_ratio, entry_at,
           "a size that the compressed data can have");
    expect(u16(c, 34) == 0 && u32(c, 42) == local_at, entry_at,
           i == 0 ? "the file at the beginning of the zip" : "the file right after the one before it");
    expect(name_bytes > 0 && c[central_bytes + name_bytes - 1] != '/', entry_at, "a file, not a folder");
    found.name.assign(reinterpret_cast<const char*>(c.data()) + central_bytes, name_bytes);
    at += entry_bytes;
    // Where the next record begins: the directory says it.
    const bool more = !last && directory.size() - at >= central_bytes;
    const std::int64_t next_at = more ? u32(directory, at + 42) : central_at;

    const std::vector<std::uint8_t> l = bytes_at(local_at, local_bytes);
    const std::int64_t extra_at = local_at + local_bytes + u16(l, 26), data_at = extra_at + u16(l, 28),
                       data_end = data_at + found.packed;
    expect(u32(l, 0) == local_mark && u16(l, 6) == flags && u16(l, 8) == method && u16(l, 26) == name_bytes, local_at,
           "a header that agrees with the directory of the zip");
    const std::vector<std::uint8_t> name = bytes_at(local_at + local_bytes, static_cast<std::int64_t>(name_bytes));
    expect(std::equal(name.begin(), name.end(), found.name.begin(),
                      [](std::uint8_t a, char b) { return a == static_cast<std::uint8_t>(b); }),
           local_at + local_bytes, "the same name as in the directory of the zip");
    const auto agrees = [&](std::span<const std::uint8_t> b, std::size_t k) {  // checksum, compressed size, size
      return u32(b, k) == found.crc && u32(b, k + 4) == found.packed && u32(b, k + 8) == found.size;
    };
    const bool descriptor = (flags & 8) != 0, zeros = u32(l, 14) == 0 && u32(l, 18) == 0 && u32(l, 22) == 0;
    expect(agrees(l, 14) || (descriptor && zeros) || agrees_in_zip64(l, extra_at, found), local_at + 14,
           "sizes that agree with the directory of the zip");
    const std::string_view what_follows =
        last ? "the directory of the zip after the data" : "the next file of the zip after the data";
    if (descriptor) {  // 12 bytes after the data, with or without a mark before them
      const std::int64_t size = next_at - data_end;
      expect(size == 12 || size == 16, data_end, what_follows);
      const std::vector<std::uint8_t> d = bytes_at(data_end, size);
      expect((size == 12 || u32(d, 0) == descriptor_mark) && agrees(d, static_cast<std::size_t>(size - 12)), data_end,
             "sizes that agree with the directory of the zip");
    } else {
      expect(data_end == next_at, data_end, what_follows);
    }
    found.begin = data_at;
    local_at = next_at;
    out.push_back(std::move(found));
  }
  expect(local_at == central_at, local_at, "the directory of the zip after the data");
  return out;
}

/// Whether a local header says its sizes in an extra field, as Python writes them for files of any size.
bool Source::agrees_in_zip64(std::span<const std::uint8_t> local, std::int64_t extra_at, const Member& m) {
  if (u32(local, 14) != m.crc || u32(local, 18) != 0xffffffff || u32(local, 22) != 0xffffffff || u16(local, 28) < 20)
    return false;
  const std::vector<std::uint8_t> x = bytes_at(extra_at, 20);  // kind 1, 16 bytes: size, compressed size
  const auto u64 = [&](std::size_t i) { return std::uint64_t{u32(x, i)} | std::uint64_t{u32(x, i + 4)} << 32; };
  return u16(x, 0) == 1 && u16(x, 2) == 16 && u64(4) == static_cast<std::uint64_t>(m.size) &&
         u64(12) == static_cast<std::uint64_t>(m.packed);
}

void write_by_name(const std::filesystem::path& path, std::span<const std::span<const std::byte>> pieces) {
  if (path.extension() != ".gz") return write_atomically(path, pieces);
  const std::vector<std::byte> packed = gzipped(pieces);
  write_atomically(path, std::array{std::span<const std::byte>(packed)});
}

}  // namespace ebb::detail

// Files that appear complete or not at all.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

#include <ebb/graph/error.h>

namespace ebb {

/// A file that is there already and is not to be overwritten.
struct FileExists : IoError {
  using IoError::IoError;
};

/// A file that came up during the work was kept, and what was to be written is whole under another name, which is said.
struct WrittenBeside : IoError {
  using IoError::IoError;
};

/// Makes `path` a file of these pieces, one after the other. They go to a temporary file in the same
/// directory, which is synced and renamed: at any moment, and after a crash, `path` is the old file or the
/// whole new one. The permission bits of an existing file are kept, a symbolic link is followed, and a device
/// or pipe is written to directly. Throws IoError "PATH: cannot write: REASON", also for an existing file
/// that may not be written, and for a file that is a mount point; the old file is then as it was (unless all that
/// failed was the last step, syncing the directory) and no temporary file is left. One that a killed process left
/// is removed by the next call for the same directory.
/// With names in `older`, the file that was there becomes the first of them once the new one is in its place, what had
/// that name becomes the second, and so on; the last is gone. A call that fails before that changes none of them.
void write_atomically(const std::filesystem::path& path, std::span<const std::span<const std::byte>> pieces,
                      std::span<const std::filesystem::path> older = {});
/// The same for a text.
void write_atomically(const std::filesystem::path& path, std::string_view text);

/// Throws IoError when write_atomically() could not make a file of so many bytes there: no such folder, no
/// permission, a read-only or full disk, a limit of `ulimit -f`, a pipe that nobody reads; FileExists, unless
/// `overwrite`, for a file that exists and is not empty. Asked before long work whose result goes there; the name
/// itself is not touched. A pipe stays open to the end of the program, so that its reader waits. Without `overwrite`, a
/// file that another process makes of that name during the work is kept too: write_atomically() then writes to
/// NAME.new.EXTENSION beside it and throws WrittenBeside.
void check_writable(const std::filesystem::path& path, bool overwrite, std::uintmax_t bytes = 0);

}  // namespace ebb

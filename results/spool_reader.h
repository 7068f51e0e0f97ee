#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "results/spool_frame.h"
#include "runner/core/file_descriptor.h"

namespace ablate {

/// Reads frames from a byte offset on; at the end of the file next() returns nothing and may be
/// called again later, as the writer appends (like tail -f). Bytes that form no frame are
/// - a tail, when no whole frame follows: a frame still being written, or torn off by a crash;
/// - a gap, when one does: damage. Gaps are counted and skipped, or stopped at.
class SpoolReader {
 public:
  /// What to do at a gap. On a network file system a gap can be data not yet visible: Stop there
  /// until the writer is known to have ended.
  enum class Gaps { Skip, Stop };

  /// Throws Error when the file cannot be opened.
  explicit SpoolReader(const std::filesystem::path& path, std::uint64_t offset = 0,
                       Gaps gaps = Gaps::Skip);

  /// The next whole frame, or nothing for now. Throws Error when reading fails.
  std::optional<Frame> next();

  /// Just behind the last frame returned.
  std::uint64_t offset() const { return base_ + at_; }
  /// Bytes skipped in gaps so far.
  std::uint64_t lost_bytes() const { return lost_bytes_; }
  /// After next() returned nothing: bytes behind offset() that form no frame yet.
  std::uint64_t tail_bytes() const { return buffer_.size() - at_; }
  /// After next() returned nothing: it stopped at a gap.
  bool stopped_at_gap() const { return stopped_; }

 private:
  bool load_more();
  bool find_frame(Frame& frame);

  std::filesystem::path path_;
  FileDescriptor file_;
  Gaps gaps_;
  std::string buffer_;  // bytes [base_, base_ + size) of the file
  std::uint64_t base_ = 0;
  std::size_t at_ = 0;  // behind the last frame, within buffer_
  std::uint64_t lost_bytes_ = 0;
  bool stopped_ = false;
};

/// The header of a spool, or nothing when the file does not begin with a whole one (empty, torn or
/// not a spool). Throws Error when the file cannot be read.
std::optional<SpoolHeader> read_spool_header(const std::filesystem::path& path);

/// Whether the file ends with a Seal, that is, its writer closed it in order.
bool is_sealed(const std::filesystem::path& path);

/// The checksum of the frame that ends at `offset`, or nothing when the file is shorter: tells
/// whether a file is still the one that was read up to there.
std::optional<std::uint32_t> checksum_before(const std::filesystem::path& path,
                                             std::uint64_t offset);

}  // namespace ablate

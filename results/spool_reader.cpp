#include "results/spool_reader.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include "runner/core/error.h"
#include "runner/core/files.h"

namespace ablate {
namespace {

constexpr std::size_t kBlock = 1U << 20;
// A Seal has a fixed size: u64 payload.
constexpr std::size_t kSealSize = kFrameOverhead + 8;

FileDescriptor open_for_reading(const std::filesystem::path& path) {
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.is_open()) throw_file_error(path, "the spool file cannot be read", errno);
  return file;
}

// Up to `size` bytes at `offset`, fewer only at the end of the file.
std::string read_at(const std::filesystem::path& path, const FileDescriptor& file,
                    std::uint64_t offset, std::size_t size) {
  std::string bytes(size, '\0');
  std::size_t got = 0;
  while (got < size) {
    const ssize_t n =
        ::pread(file.get(), bytes.data() + got, size - got, static_cast<off_t>(offset + got));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_file_error(path, "the spool file cannot be read", errno);
    if (n == 0) break;
    got += static_cast<std::size_t>(n);
  }
  bytes.resize(got);
  return bytes;
}

// Bytes of the file that end at `end` (its size when larger); empty when there are fewer.
std::string read_before(const std::filesystem::path& path, std::uint64_t end, std::size_t size) {
  const FileDescriptor file = open_for_reading(path);
  end = std::min(end, static_cast<std::uint64_t>(::lseek(file.get(), 0, SEEK_END)));
  return end >= size ? read_at(path, file, end - size, size) : std::string();
}

}  // namespace

SpoolReader::SpoolReader(const std::filesystem::path& path, std::uint64_t offset, Gaps gaps)
    : path_(path), file_(open_for_reading(path)), gaps_(gaps), base_(offset) {}

bool SpoolReader::load_more() {
  if (at_ > 0) {
    buffer_.erase(0, at_);
    base_ += at_;
    at_ = 0;
  }
  const std::string more = read_at(path_, file_, base_ + buffer_.size(), kBlock);
  buffer_ += more;
  return !more.empty();
}

std::optional<Frame> SpoolReader::next() {
  stopped_ = false;
  Frame frame;
  for (;;) {
    const std::string_view rest = std::string_view(buffer_).substr(at_);
    if (parse_frame(rest, frame)) {
      at_ += frame.size;
      return frame;
    }
    // Short of bytes, not damaged, unless the end of the file says otherwise.
    const bool incomplete = rest.size() < kFrameHead || claimed_size(rest) > rest.size();
    if (incomplete && load_more()) continue;
    if (find_frame(frame)) return frame;
    return std::nullopt;
  }
}

// At damaged bytes or at a tail: looks for the next whole frame in all the rest of the file.
bool SpoolReader::find_frame(Frame& frame) {
  const std::string magic(reinterpret_cast<const char*>(&kFrameMagic), sizeof kFrameMagic);
  while (load_more()) {
  }
  const std::string_view all = buffer_;
  // The writer may have appended, or completed, the frame at this very place meanwhile.
  if (parse_frame(all.substr(at_), frame)) {
    at_ += frame.size;
    return true;
  }
  for (std::size_t found = at_; (found = all.find(magic, found + 1)) != std::string_view::npos;) {
    if (!parse_frame(all.substr(found), frame)) continue;
    if (gaps_ == Gaps::Stop) {
      stopped_ = true;
      return false;
    }
    lost_bytes_ += found - at_;
    at_ = found + frame.size;
    return true;
  }
  return false;
}

std::optional<SpoolHeader> read_spool_header(const std::filesystem::path& path) {
  SpoolReader reader(path, 0, SpoolReader::Gaps::Stop);
  std::optional<Frame> frame = reader.next();
  if (!frame || !std::holds_alternative<SpoolHeader>(frame->record)) return std::nullopt;
  return std::get<SpoolHeader>(frame->record);
}

bool is_sealed(const std::filesystem::path& path) {
  Frame frame;
  return parse_frame(read_before(path, ~std::uint64_t{0}, kSealSize), frame) &&
         std::holds_alternative<Seal>(frame.record);
}

std::optional<std::uint32_t> checksum_before(const std::filesystem::path& path,
                                             std::uint64_t offset) {
  std::uint32_t checksum = 0;
  if (std::filesystem::file_size(path) < offset) return std::nullopt;
  const std::string bytes = read_before(path, offset, sizeof checksum);
  if (bytes.size() != sizeof checksum) return std::nullopt;
  std::memcpy(&checksum, bytes.data(), sizeof checksum);
  return checksum;
}

}  // namespace ablate

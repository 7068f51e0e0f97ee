#include "datasets/store/pack_writer.h"

#include <cerrno>
#include <sstream>

#include <fcntl.h>
#include <unistd.h>

#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/hash.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::size_t kWriteAtOnce = std::size_t{4} << 20;
constexpr std::uint64_t kFlushAfter = std::uint64_t{64} << 20;
constexpr std::chrono::seconds kFlushEvery{2};

FileDescriptor open_or_fail(const fs::path& file, int flags) {
  FileDescriptor opened(::open(file.c_str(), flags | O_CLOEXEC, 0666));
  if (!opened.is_open()) throw_file_error(file, "cannot be opened", errno);
  return opened;
}

void sync_or_fail(const FileDescriptor& opened, const fs::path& file) {
  if (::fdatasync(opened.get()) != 0) throw_file_error(file, "cannot be written", errno);
}

void cut_off_at(const FileDescriptor& opened, const fs::path& file, std::uint64_t size) {
  const auto offset = static_cast<off_t>(size);
  if (::ftruncate(opened.get(), offset) != 0 || ::lseek(opened.get(), offset, SEEK_SET) < 0) {
    throw_file_error(file, "cannot be cut off", errno);
  }
}

/// A line of the journal: its checksum, so that a half-written one is known, and what it says.
std::string journal_line(const json& content) {
  const std::string text = content.dump(-1, ' ', false, json::error_handler_t::replace);
  return cat(hash128_hex(text), " ", text, "\n");
}

/// The content of a whole line; nothing for a damaged one.
json read_line(std::string_view line) {
  constexpr std::size_t kHash = 32;
  if (line.size() < kHash + 1) return json::value_t::discarded;
  const std::string_view text = line.substr(kHash + 1);
  if (hash128_hex(text) != line.substr(0, kHash)) return json::value_t::discarded;
  return json::parse(text, nullptr, /*allow_exceptions=*/false);
}

}  // namespace

PackWriter::PackWriter(PackFiles files, std::string key)
    : files_(std::move(files)), key_(std::move(key)) {
  make_directories(files_.folder());
  samples_ = open_or_fail(files_.samples(), O_RDWR | O_CREAT);
  journal_ = open_or_fail(files_.journal(), O_RDWR | O_CREAT);
  fsync_directory(files_.folder());
  resume();
  if (end_ == 0) begin();
}

void PackWriter::begin() {
  cut_off_at(samples_, files_.samples(), 0);
  cut_off_at(journal_, files_.journal(), 0);
  const PackHeader header = pack_header(key_);
  write_all(samples_.get(), {reinterpret_cast<const char*>(&header), sizeof header},
            files_.samples());
  end_ = sizeof header;
  sync_or_fail(samples_, files_.samples());
  append_line({{"key", key_}, {"end", end_}});
}

void PackWriter::resume() {
  const std::string text = read_file(files_.journal());
  std::size_t sound = 0;
  for (std::size_t end = 0; (end = text.find('\n', sound)) != std::string::npos; sound = end + 1) {
    const json line = read_line(std::string_view(text).substr(sound, end - sound));
    if (line.is_discarded()) break;
    if (line.contains("key") && line.at("key") != key_) {
      throw SpecError(cat(files_.journal().string(),
                          ": a conversion of another source or form is under way; finish it by its "
                          "own command, or remove ",
                          files_.folder().string(), "/", files_.part(),
                          ".*, or choose another folder"));
    }
    take_line(line);
  }
  if (end_ == 0) return;
  const std::uint64_t size = fs::file_size(files_.samples());
  if (size < end_) {
    throw Error(cat(files_.samples().string(), ": ", size, " bytes, but the journal has ", end_,
                    "; remove both files and start again"));
  }
  cut_off_at(samples_, files_.samples(), end_);
  cut_off_at(journal_, files_.journal(), sound);
}

void PackWriter::take_line(const json& line) {
  end_ = line.at("end").get<std::uint64_t>();
  if (!line.contains("done")) return;
  done_ = line.at("done").get<std::int64_t>();
  findings_.add(Findings::from_json(line.at("findings")));
  for (const json& sample : line.at("samples")) {
    index_.add({.offset = sample.at(0),
                .length = sample.at(1),
                .checksum = sample.at(2),
                .origin = sample.at(3),
                .label = sample.at(4),
                .width = sample.at(5),
                .height = sample.at(6)},
               sample.at(7).get<std::string>());
  }
}

void PackWriter::add(SampleEntry entry, std::string_view name, std::string_view bytes) {
  const std::uint64_t gap = (kSampleAlignment - end_ % kSampleAlignment) % kSampleAlignment;
  pending_.append(gap, '\0');
  pending_ += bytes;
  entry.offset = end_ + gap;
  entry.length = bytes.size();
  end_ = entry.offset + entry.length;
  unsynced_ += gap + entry.length;
  index_.add(entry, name);
  new_samples_.push_back({entry.offset, entry.length, entry.checksum, entry.origin, entry.label,
                          entry.width, entry.height, name});
  if (pending_.size() >= kWriteAtOnce) write_pending();
}

void PackWriter::add(const Findings& findings) {
  findings_.add(findings);
  new_findings_.add(findings);
}

void PackWriter::advance() {
  ++done_;
  const auto since = std::chrono::steady_clock::now() - flushed_;
  if (unsynced_ >= kFlushAfter || since >= kFlushEvery) flush();
}

void PackWriter::write_pending() {
  write_all(samples_.get(), pending_, files_.samples());
  pending_.clear();
}

void PackWriter::flush() {
  write_pending();
  sync_or_fail(samples_, files_.samples());
  append_line({{"done", done_},
               {"end", end_},
               {"samples", std::exchange(new_samples_, json::array())},
               {"findings", std::exchange(new_findings_, {}).json()}});
  unsynced_ = 0;
  flushed_ = std::chrono::steady_clock::now();
}

void PackWriter::append_line(const json& line) {
  write_all(journal_.get(), journal_line(line), files_.journal());
  sync_or_fail(journal_, files_.journal());
}

void PackWriter::finish(const json& facts, std::vector<std::string> classes) {
  flush();
  index_.head = {.classes = std::move(classes),
                 .files = {files_.samples().filename().string()},
                 .key = key_,
                 .labels_in_names = false,
                 .facts = facts};
  write_file_atomic(files_.index(), index_.finish());
  fs::remove(files_.journal());
}

}  // namespace ablate

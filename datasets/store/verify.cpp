#include "datasets/store/verify.h"

#include <cerrno>
#include <cstring>
#include <unordered_map>

#include <fcntl.h>
#include <unistd.h>

#include "datasets/store/ordered_work.h"
#include "datasets/store/pass_clock.h"
#include "runner/core/error.h"
#include "runner/core/file_descriptor.h"
#include "runner/core/files.h"
#include "runner/core/hash.h"
#include "runner/core/lease.h"

namespace ablate {
namespace {

bool is_sound(const SampleEntry& entry, std::string_view samples) {
  return entry.length <= samples.size() && entry.offset <= samples.size() - entry.length &&
         hash64(samples.substr(entry.offset, entry.length)) == entry.checksum;
}

/// Places of the damaged samples.
std::vector<std::int64_t> damaged_samples(const SampleIndex& index, const PackFiles& files,
                                          int threads, const PassHooks& hooks) {
  const MappedFile samples(files.samples());
  PassClock clock(hooks, files.part(), 0, index.size());
  std::vector<std::int64_t> damaged;
  std::int64_t place = 0;
  bool stopped = false;
  in_order(
      0, index.size(), threads,
      [&](std::int64_t i) { return is_sound(index.entry(i), samples.bytes()); },
      [&](bool sound) {
        if (!sound) damaged.push_back(place);
        stopped = !clock.tick(++place) && place < index.size();
        return !stopped;
      });
  if (stopped) throw Error(cat(files.part(), ": interrupted"), ExitCode::Interrupted);
  return damaged;
}

bool has_header(const SampleIndex& index, const PackFiles& files) {
  const MappedFile samples(files.samples());
  const PackHeader expected = pack_header(index.head().key);
  return samples.bytes().size() >= sizeof expected &&
         std::memcmp(samples.bytes().data(), &expected, sizeof expected) == 0;
}

VerifyReport report_of(const SampleIndex& index, const std::vector<std::int64_t>& damaged,
                       bool header_damaged) {
  VerifyReport report{.samples = index.size(), .damaged = {}, .header_damaged = header_damaged};
  for (const std::int64_t i : damaged) report.damaged.emplace_back(index.name(i));
  return report;
}

/// Writes into a file of samples, in place.
class SampleFile {
 public:
  explicit SampleFile(std::filesystem::path file)
      : file_(std::move(file)), opened_(::open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
    if (!opened_.is_open()) throw_file_error(file_, "cannot be opened", errno);
  }

  /// Makes a file that was cut off as long as it has to be.
  void extend_to(std::uint64_t size) {
    if (std::filesystem::file_size(file_) >= size) return;
    if (::ftruncate(opened_.get(), static_cast<off_t>(size)) != 0) {
      throw_file_error(file_, "cannot be extended", errno);
    }
  }
  void write_at(std::uint64_t offset, std::string_view bytes) {
    if (::lseek(opened_.get(), static_cast<off_t>(offset), SEEK_SET) < 0) {
      throw_file_error(file_, "cannot be written", errno);
    }
    write_all(opened_.get(), bytes, file_);
  }
  void sync() {
    if (::fsync(opened_.get()) != 0) throw_file_error(file_, "cannot be written", errno);
  }

 private:
  std::filesystem::path file_;
  FileDescriptor opened_;
};

std::uint64_t end_of(const SampleIndex& index) {
  std::uint64_t end = sizeof(PackHeader);
  for (std::int64_t i = 0; i < index.size(); ++i) {
    end = std::max(end, index.entry(i).offset + index.entry(i).length);
  }
  return end;
}

/// The samples of a source under the names they have there.
class SourceLookup {
 public:
  SourceLookup(const StoredDataset& source, PackForm form) : source_(source), form_(form) {
    for (std::int64_t i = 0; i < source.size(); ++i) by_name_.emplace(source.index().name(i), i);
  }

  /// The bytes `entry` had; empty, with `reason`, when the source does not give them.
  std::string bytes_of(const SampleEntry& entry, std::string_view name, std::string& reason) const {
    const auto found = by_name_.find(name);
    if (found == by_name_.end()) {
      reason = "is not in the source";
      return {};
    }
    PreparedSample sample = prepare_sample(source_, found->second, form_);
    if (sample.bad || sample.entry.checksum != entry.checksum ||
        sample.entry.length != entry.length) {
      reason = sample.bad ? "is damaged in the source too" : "has other bytes in the source now";
      return {};
    }
    return std::move(sample.bytes);
  }

 private:
  const StoredDataset& source_;
  PackForm form_;
  std::unordered_map<std::string_view, std::int64_t> by_name_;
};

}  // namespace

VerifyReport verify_part(const PackFiles& files, int threads, const PassHooks& hooks) {
  const SampleIndex index(files.index());
  return report_of(index, damaged_samples(index, files, threads, hooks), !has_header(index, files));
}

VerifyReport repair_part(const StoredDataset& source, const PackFiles& files, int threads,
                         const PassHooks& hooks) {
  const SampleIndex index(files.index());
  const Lease lease = Lease::take(files.lease(), files.samples().string());
  const SourceLookup lookup(source, PackForm::from_json(index.head().facts.at("form")));
  SampleFile samples(files.samples());
  samples.extend_to(end_of(index));
  const bool header_damaged = !has_header(index, files);
  const PackHeader header = pack_header(index.head().key);
  if (header_damaged) samples.write_at(0, {reinterpret_cast<const char*>(&header), sizeof header});
  const std::vector<std::int64_t> damaged = damaged_samples(index, files, threads, hooks);
  std::vector<std::string> lost;
  for (const std::int64_t i : damaged) {
    std::string reason;
    const std::string bytes = lookup.bytes_of(index.entry(i), index.name(i), reason);
    if (reason.empty()) {
      samples.write_at(index.entry(i).offset, bytes);
    } else {
      lost.push_back(cat(index.name(i), " ", reason));
    }
  }
  samples.sync();
  if (!lost.empty()) {
    throw SpecError(cat(files.samples().string(), ": ", lost.size(), " of ", damaged.size(),
                        " damaged samples cannot be repaired: ", some_of(lost)));
  }
  return report_of(index, damaged, header_damaged);
}

}  // namespace ablate

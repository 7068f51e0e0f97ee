#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "results/record.h"

namespace ablate {

/// How a writer buffers; the defaults suit training.
struct SpoolOptions {
  std::size_t ring_slots = 1U << 16;              ///< log calls that fit before log() waits
  std::size_t batch_bytes = 1U << 16;             ///< written at the latest when so much waits ...
  std::chrono::milliseconds period{500};          ///< ... or so much time has passed
  std::chrono::milliseconds sync_period{30'000};  ///< fdatasync at least so often
};

/// Append-only file of one rank of one attempt. A background thread owns the file; the callers only
/// fill a ring, so training never touches the disk. Any thread may call any function, except that
/// close() and the destructor come last.
///
/// Write errors (disk full, I/O) are kept and thrown by the next flush() or close(), with path and
/// reason, as TransientError: the machine is at fault. Until then the writer keeps everything in
/// memory and tries again. It loses nothing as long as it lives.
class SpoolWriter {
 public:
  /// Creates `path` (and its folder) exclusively and writes the header. Throws Error when the file
  /// exists or cannot be written.
  SpoolWriter(const std::filesystem::path& path, SpoolHeader header, SpoolOptions options = {});
  /// Writes what waits, logs a failure instead of throwing, and leaves the file without a seal: a
  /// reader sees that this attempt did not end in order.
  ~SpoolWriter();
  SpoolWriter(const SpoolWriter&) = delete;
  SpoolWriter& operator=(const SpoolWriter&) = delete;

  /// The header as written, uid and time filled in.
  const SpoolHeader& header() const;

  /// The id of a metric for log(); the same name gives the same id, with other attributes it is a
  /// bug. Metrics that are not `per_rank` belong to rank 0.
  std::uint32_t metric(const std::string& name, const std::string& unit = "",
                       Better better = Better::Neither, MetricKind kind = MetricKind::Deterministic,
                       FinalRule final_rule = FinalRule::Last, bool per_rank = false);

  /// Logs one point: some tens of nanoseconds, no allocation, no disk. Waits (and counts it) only
  /// while the ring is full; throws Error when the disk has failed and memory is used up.
  void log(std::uint32_t metric, std::int64_t step, double value);

  /// `body` is JSON text, or empty.
  void event(std::int64_t step, std::string kind, std::string body = {});
  void bits(SampleBits bits);
  void facts(FactKind kind, std::string json);
  void checkpoint(CheckpointNote note);
  void bench(BenchNote note);
  void final_value(std::uint32_t metric, std::int64_t step, double value);
  void outcome(Outcome outcome);

  /// Returns once everything logged before is on stable storage. Call before a checkpoint is
  /// renamed into place and at changes of state. Throws Error with path and reason.
  void flush();

  /// Writes the seal, flushes and ends the thread. Throws like flush(); what could not be written
  /// then is lost and said so. Logging afterwards is a bug. A second close() does nothing.
  void close();

  /// How often log() found the ring full.
  std::uint64_t stalls() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ablate

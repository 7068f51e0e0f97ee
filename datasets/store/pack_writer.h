#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "datasets/store/findings.h"
#include "datasets/store/pack_files.h"
#include "datasets/store/sample_index.h"
#include "runner/core/file_descriptor.h"

namespace ablate {

/// Writes one part of a packed set so that it can go on after an interruption at any point, also
/// kill -9 or a power failure: samples are appended and made durable before the journal names them,
/// the index appears whole at the end, and what the journal does not name is cut off on resumption.
class PackWriter {
 public:
  /// Begins the part, or takes up a conversion with the same key. Throws SpecError when there is
  /// one with another, Error (TransientError: disk full) with path and reason.
  PackWriter(PackFiles files, std::string key);

  /// Samples of the source that have been dealt with.
  std::int64_t done() const { return done_; }
  const IndexBuilder& index() const { return index_; }
  const Findings& findings() const { return findings_; }
  std::uint64_t bytes() const { return end_; }

  /// Appends a sample; its place is filled in.
  void add(SampleEntry entry, std::string_view name, std::string_view bytes);
  void add(const Findings& findings);
  /// One sample of the source more has been dealt with. Makes all durable now and then.
  void advance();
  /// Makes all durable.
  void flush();
  /// Writes the index and removes the journal.
  void finish(const nlohmann::json& facts, std::vector<std::string> classes);

 private:
  void begin();
  void resume();
  void take_line(const nlohmann::json& line);
  void append_line(const nlohmann::json& line);
  void write_pending();

  PackFiles files_;
  std::string key_;
  FileDescriptor samples_, journal_;
  std::uint64_t end_ = 0;  // of the samples, pending ones included
  std::int64_t done_ = 0;
  IndexBuilder index_;
  Findings findings_;
  // Since the last line of the journal.
  std::string pending_;
  std::uint64_t unsynced_ = 0;
  nlohmann::json new_samples_ = nlohmann::json::array();
  Findings new_findings_;
  std::chrono::steady_clock::time_point flushed_ = std::chrono::steady_clock::now();
};

}  // namespace ablate

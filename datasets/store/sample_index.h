#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "runner/core/mapped_file.h"

namespace ablate {

/// Where one encoded sample lies and what it is. Written to disk as it stands, little-endian.
struct SampleEntry {
  std::uint64_t offset = 0;    ///< in its file
  std::uint64_t length = 0;    ///< bytes
  std::uint64_t checksum = 0;  ///< hash64 of the bytes; 0 where nobody has read them yet
  std::uint64_t origin = 0;    ///< hash64 of the bytes it was made from; 0 likewise
  std::uint64_t name = 0;      ///< place of the name among the names
  std::uint32_t name_length = 0;
  std::uint32_t label = 0;
  std::uint32_t file = 0;   ///< place among IndexHead::files
  std::uint32_t width = 0;  ///< of raw RGB pixels; 0 for an image file
  std::uint32_t height = 0;
  std::uint32_t reserved = 0;

  bool operator==(const SampleEntry&) const = default;
};
static_assert(sizeof(SampleEntry) == 64);

/// What all samples of an index share.
struct IndexHead {
  std::vector<std::string> classes;  ///< names, in the order of the labels
  std::vector<std::string> files;    ///< that hold the samples; empty when each is its own file
  std::string key;               ///< of what the index was made from: another key, another index
  bool labels_in_names = false;  ///< the name's folder is the class
  nlohmann::json facts;          ///< more of the maker's
};

/// The samples of one part of a data set, in order: entries and names, as mapped memory that
/// processes share, or in memory of its own. Immutable, hence thread-safe.
class SampleIndex {
 public:
  /// Takes what IndexBuilder::finish() returned. Throws Error saying what is wrong with `bytes`.
  explicit SampleIndex(std::string bytes);
  /// Throws Error with the path and what is wrong: another format or version, cut off, damaged.
  explicit SampleIndex(const std::filesystem::path& file);

  std::int64_t size() const { return static_cast<std::int64_t>(entries_.size()); }
  const SampleEntry& entry(std::int64_t index) const {
    return entries_[static_cast<std::size_t>(index)];
  }
  std::string_view name(std::int64_t index) const {
    return names_.substr(entry(index).name, entry(index).name_length);
  }
  const IndexHead& head() const { return head_; }
  std::int64_t classes() const { return static_cast<std::int64_t>(head_.classes.size()); }

 private:
  void parse(std::string_view bytes, const std::string& where);
  void check_entries(const std::string& where) const;

  std::unique_ptr<const std::string> owned_;  // moves without moving its bytes
  std::unique_ptr<const MappedFile> mapped_;
  std::span<const SampleEntry> entries_;
  std::string_view names_;
  IndexHead head_;
};

/// Collects entries in order.
class IndexBuilder {
 public:
  IndexHead head;

  /// The place of the name is filled in.
  void add(SampleEntry entry, std::string_view name);
  std::int64_t size() const { return static_cast<std::int64_t>(entries_.size()); }
  const std::vector<SampleEntry>& entries() const { return entries_; }

  /// The bytes of the index file.
  std::string finish() const;

 private:
  std::vector<SampleEntry> entries_;
  std::string names_;
};

/// The index without the samples `left_out` (ascending).
IndexBuilder without(const SampleIndex& index, std::span<const std::int64_t> left_out);

}  // namespace ablate

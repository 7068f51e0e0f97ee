#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/dataset.h"
#include "datasets/store/sample_index.h"
#include "runner/core/mapped_file.h"

namespace ablate {

inline constexpr Normalization kImageNetNormalization{{0.485F, 0.456F, 0.406F},
                                                      {0.229F, 0.224F, 0.225F}};

/// Where the samples of an index lie, and how their pixels are scaled.
struct StoredAt {
  std::filesystem::path folder;  ///< of IndexHead::files, or of the names
  std::string hint{};            ///< what to do about a damaged sample, for messages
  Normalization normalization = kImageNetNormalization;
};

/// A part of a data set whose samples are encoded images (or raw pixels), found by an index: files
/// of their own, or ranges of mapped files.
class StoredDataset final : public Dataset {
 public:
  /// Maps the files of the index. Throws Error naming a file that is missing or too short.
  StoredDataset(SampleIndex index, StoredAt at);

  std::int64_t size() const override { return index_.size(); }
  std::int64_t label(std::int64_t index) const override { return index_.entry(index).label; }
  void load(std::int64_t index, Image& image) const override;
  /// Throws Error when the sample cannot be read, or is not what its checksum says.
  std::optional<StoredImage> stored(std::int64_t index, std::string& buffer) const override;
  /// Of contents where the index has their checksums, else of names and sizes; and of labels where
  /// names do not tell them.
  std::string fingerprint() const override;
  const DatasetFacts& facts() const override { return facts_; }

  const SampleIndex& index() const { return index_; }
  /// File and name of a sample, for messages.
  std::string where(std::int64_t index) const;

 private:
  std::string_view bytes(std::int64_t index, std::string& buffer) const;

  SampleIndex index_;
  StoredAt at_;
  std::vector<MappedFile> files_;
  DatasetFacts facts_;
};

/// The pixels of a stored sample. Throws Error when it cannot be decoded.
void decode_stored(const StoredImage& stored, Image& image);

/// Whether an image file has another format than the end of its name says.
bool has_other_format(const StoredImage& stored);

/// What decoding a sample shows.
struct Inspection {
  std::string defect;  ///< why it cannot be read or decoded; empty when it can
  bool other_format = false;
};

/// Throws TransientError when the machine is at fault.
Inspection inspect(const StoredDataset& dataset, std::int64_t index);

}  // namespace ablate

#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string_view>

#include "datasets/dataset.h"
#include "datasets/store/findings.h"
#include "datasets/store/stored_dataset.h"

namespace ablate {

class Params;

/// One part of a stored data set, and what is odd about its files.
struct StoredPart {
  std::shared_ptr<const StoredDataset> samples;
  Findings findings{};
};

struct StoredParts {
  StoredPart train, test;
};

/// Settings of a spec: what is done about samples that cannot be used, and how pixels are scaled.
struct StoredSettings {
  bool skip_corrupt = false;  ///< leave out what cannot be decoded; all samples are decoded once
  bool keep_missing = false;  ///< train although a class has no training image
  Normalization normalization = kImageNetNormalization;
};

/// Reads the keys on_corrupt, missing_classes, mean and std.
StoredSettings read_stored_settings(Params& params);
/// Reads the keys mean and std.
Normalization read_normalization(Params& params);

/// DIR/{train,val|validation|test}/CLASS/IMAGE, or DIR/val/IMAGE with a file of labels.
StoredParts open_image_folder(const std::filesystem::path& root, const StoredSettings& policy);
/// Tar files in DIR/{train,val|validation|test}, or in DIR with these words in their names.
StoredParts open_tar_shards(const std::filesystem::path& root, const StoredSettings& policy);
/// DIR/{train,val}.{index,samples}, as conversion writes them.
StoredParts open_pack(const std::filesystem::path& root, const StoredSettings& settings = {});
/// The one of these that lies in `root`. Throws SpecError when none does.
StoredParts open_stored(const std::filesystem::path& root);

/// What a run trains on: findings are logged, and refused where the policy says so.
DatasetSplits splits_of(StoredParts parts, const StoredSettings& policy);

}  // namespace ablate

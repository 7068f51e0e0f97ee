#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/image.h"
#include "datasets/label_map.h"
#include "runner/core/registry.h"

namespace ablate {

class Params;

/// What is known about a data set's samples without reading one.
struct DatasetFacts {
  std::int64_t classes = 0;
  int image_size = 0;  ///< side of the square stored images; 0 when sizes vary
  Normalization normalization;
  bool dense = false;                      ///< each pixel has a label, the image as such has none
  std::vector<std::string> class_names{};  ///< may be empty
};

/// A sample as it is stored: the file of a JPEG or PNG, or its pixels.
struct StoredImage {
  std::span<const std::uint8_t> bytes;
  std::string_view name;  ///< for messages
  int width = 0;          ///< of `bytes` that are RGB pixels (HWC); 0 for an image file
  int height = 0;
};

/// index -> image and label, or labels. Immutable after construction, so every member is
/// thread-safe.
class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual std::int64_t size() const = 0;
  /// Of the image as a whole; 0 in a dense set.
  virtual std::int64_t label(std::int64_t index) const = 0;
  /// Decodes sample `index` into `image` (its buffer is reused). Throws Error naming the file when
  /// the sample cannot be decoded.
  virtual void load(std::int64_t index, Image& image) const = 0;
  /// The classes of the pixels of sample `index` of a dense set (the buffer of `labels` is reused),
  /// of the image's size: below facts().classes, or LabelMap::kIgnore. Throws Error naming the
  /// file.
  virtual void load_labels(std::int64_t index, LabelMap& labels) const;
  /// The stored form of sample `index`, for who decodes only a part of it; nothing for sets that do
  /// not keep their images so. A view of mapped memory where the set has some, else of `buffer`:
  /// valid as long as the set and an unchanged buffer.
  virtual std::optional<StoredImage> stored(std::int64_t /*index*/, std::string& /*buffer*/) const {
    return std::nullopt;
  }
  /// Hash of the content (or of names, sizes and times where content is too large to read), so that
  /// other data under the same name is noticed.
  virtual std::string fingerprint() const = 0;
  virtual const DatasetFacts& facts() const = 0;
};

/// The parts of one data set. `holdout` is carved from the training part and may be null; no
/// decision of a method or a user may look at `test`.
struct DatasetSplits {
  std::shared_ptr<const Dataset> train, holdout, test;
};

/// Opens the parts found under `root` (ignored by generated sets). Throws SpecError saying which
/// files were expected when data is missing.
using DatasetOpener = std::function<DatasetSplits(const std::filesystem::path& root)>;

/// One data set as its file registers it.
struct DatasetInfo {
  static constexpr std::string_view kind = "dataset";
  std::string_view name, summary;
  int semantics;  ///< raised when the same spec would give other samples: part of a run's identity
  bool needs_root;  ///< whether `--data NAME=DIR` is required
  /// Reads its keys (the common ones, `holdout`, are read by the caller) and returns the opener.
  DatasetOpener (*configure)(Params& params);
};

/// Splits `holdout` samples off `train`, chosen by a keyed permutation that does not depend on the
/// run's seed: every run of every sweep holds out the same ones. Throws SpecError when holdout is
/// not smaller than the training part.
DatasetSplits carve_holdout(DatasetSplits splits, std::int64_t holdout);

}  // namespace ablate

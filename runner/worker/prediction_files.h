#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "datasets/dataset.h"
#include "datasets/image.h"
#include "datasets/loader.h"

namespace ablate {

/// Writes what a dense model said of each sample: <index>.png with a palette (encode_png.h), and
/// sheet.png, where the first samples of this rank stand one below the other: image, image under
/// its labels, image under the prediction.
class PredictionFiles {
 public:
  /// Makes the folder. Throws SpecError for a data set that has no labels of pixels.
  PredictionFiles(std::filesystem::path folder, std::shared_ptr<const Dataset> data);

  /// `classes` (B, H, W), at the size of the labels.
  void add(const Batch& batch, const at::Tensor& classes);
  /// Writes the sheet, of rank 0.
  void write_sheet() const;

 private:
  static constexpr std::size_t kSheetRows = 16;

  void add_row(std::int64_t index, const LabelMap& prediction);

  std::filesystem::path folder_;
  std::shared_ptr<const Dataset> data_;
  std::vector<Image> rows_;
};

}  // namespace ablate

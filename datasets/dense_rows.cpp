#include "datasets/dense_rows.h"

#include <algorithm>

#include "runner/core/error.h"

namespace ablate {
namespace {

LabelledImage load_labelled(const Dataset& dataset, std::int64_t index) {
  LabelledImage sample;
  dataset.load(index, sample.image);
  dataset.load_labels(index, sample.labels);
  ABLATE_CHECK(
      sample.labels.width == sample.image.width && sample.labels.height == sample.image.height,
      "sample ", index, ": labels of another size than the image");
  return sample;
}

/// Room for a batch without a sample in it.
Batch padding_batch(std::int64_t rows, Size input, Size stored) {
  Batch batch;
  batch.images = at::zeros({rows, Image::kChannels, input.height, input.width}, at::kFloat);
  batch.label_maps = at::full({rows, stored.height, stored.width}, LabelMap::kIgnore, at::kByte);
  batch.labels = at::zeros({rows}, at::kLong);
  batch.weights = at::zeros({rows}, at::kFloat);
  batch.indices.assign(static_cast<std::size_t>(rows), -1);
  return batch;
}

}  // namespace

void make_dense_row(const Dataset& dataset, const DenseTrainTransform& transform,
                    std::int64_t index, const AugmentKey& key, Batch& batch, std::int64_t row) {
  transform(load_labelled(dataset, index), key,
            batch.images.data_ptr<float>() + row * batch.images.stride(0),
            batch.label_maps.data_ptr<std::uint8_t>() + row * batch.label_maps.stride(0));
}

std::int64_t dense_eval_rows(const Dataset& dataset, const LoaderOptions& options) {
  const std::int64_t rows = eval_rows(options);
  return dataset.facts().image_size > 0 ? rows : 1;
}

Batch make_dense_eval_batch(const Dataset& dataset, const DenseEvalTransform& transform,
                            std::int64_t first, std::int64_t rows, std::int64_t samples) {
  Batch batch;
  for (std::int64_t row = 0; row < rows && first + row < samples; ++row) {
    const LabelledImage sample = load_labelled(dataset, first + row);
    const Size input = transform.size_of(sample.image);
    const Size stored{sample.image.width, sample.image.height};
    if (row == 0) batch = padding_batch(rows, input, stored);
    ABLATE_CHECK(batch.images.size(2) == input.height && batch.images.size(3) == input.width &&
                     batch.label_maps.size(1) == stored.height &&
                     batch.label_maps.size(2) == stored.width,
                 "images of several sizes in one batch");
    transform(sample.image, batch.images.data_ptr<float>() + row * batch.images.stride(0));
    std::ranges::copy(sample.labels.classes,
                      batch.label_maps.data_ptr<std::uint8_t>() + row * batch.label_maps.stride(0));
    batch.weights.data_ptr<float>()[row] = 1.0F;
    batch.indices[static_cast<std::size_t>(row)] = first + row;
  }
  if (batch.indices.empty()) {
    const Size least = transform.smallest_input();
    batch = padding_batch(rows, least, least);
  }
  batch.first_position = first;
  return batch;
}

}  // namespace ablate

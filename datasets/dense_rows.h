#pragma once

#include <cstdint>

#include "datasets/dense_transforms.h"
#include "datasets/loader.h"

namespace ablate {

// Batches of sets whose pixels have labels, made on the host.

/// Makes row `row` of a training batch, whose images and label maps have their memory, from sample
/// `index`.
void make_dense_row(const Dataset& dataset, const DenseTrainTransform& transform,
                    std::int64_t index, const AugmentKey& key, Batch& batch, std::int64_t row);

/// Rows of one batch of evaluation on one rank: as eval_rows() where all images have one size, else
/// one.
std::int64_t dense_eval_rows(const Dataset& dataset, const LoaderOptions& options);

/// Samples first .. first + rows in evaluation, those from `samples` on as padding: weight 0, no
/// pixel with a label. Label maps keep the size of the stored images.
Batch make_dense_eval_batch(const Dataset& dataset, const DenseEvalTransform& transform,
                            std::int64_t first, std::int64_t rows, std::int64_t samples);

}  // namespace ablate

#pragma once

#include <cstdint>

#include "methods/kernels/bfloat16.h"

namespace ablate::kernels {

/// Softmax cross-entropy with soft targets (label smoothing, mixup, cutmix) and its gradient:
///   t = mix smooth(label) + (1 - mix) smooth(other),  smooth(l) = (1 - s) one_hot(l) + s / classes
///   loss[r] = -sum over k of t_k log softmax(logits[r])_k,  mean_loss = mean over r
///   d_logits[r] = (softmax(logits[r]) - t) loss_scale / rows
/// A label outside of [0, classes) makes loss and gradient of its row NaN.
///
/// T is float or bfloat16. Any number of classes. Rows begin `stride` elements apart (0: classes),
/// so that one of several heads (rows, heads, classes) can be taken; what lies between is left
/// alone. Moves about 2 * rows * classes * sizeof(T) bytes; a row is the work of one block, the
/// mean is summed in an order that depends on `rows` alone.
template <typename T>
struct CrossEntropy {
  std::int64_t rows = 0;
  std::int64_t classes = 0;
  const T* logits = nullptr;
  std::int64_t logits_stride = 0;
  const std::int64_t* labels = nullptr;        ///< (rows)
  const std::int64_t* other_labels = nullptr;  ///< (rows); null: not mixed
  const float* mix = nullptr;                  ///< (rows): share of `labels`; with other_labels
  float label_smoothing = 0.0F;                ///< s
  float loss_scale = 1.0F;
  float* losses = nullptr;     ///< (rows)
  float* mean_loss = nullptr;  ///< (1); null: not wanted
  T* d_logits = nullptr;       ///< null: not wanted; may be logits when the strides agree
  std::int64_t d_logits_stride = 0;
};

template <typename T>
void cross_entropy(const CrossEntropy<T>& arguments, Stream stream);

namespace reference {
template <typename T>
void cross_entropy(const CrossEntropy<T>& arguments);
}  // namespace reference

}  // namespace ablate::kernels

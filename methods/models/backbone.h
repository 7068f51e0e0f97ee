#pragma once

#include <string>
#include <vector>

#include "methods/models/model.h"

namespace ablate {

/// A model that others can read feature maps of. Built with ModelContext::features it has no
/// classifier, and forward() must not be called.
class Backbone : public Model {
 public:
  /// Images (B, 3, H, W) to the maps of feature_levels(), in float or better and in channels-last
  /// order. Images are padded at the bottom and on the right by 0 to whole patches. In training H
  /// and W are image_size(). Tokens that were merged are copied back to all their places (Bolya et
  /// al., "Token Merging", ICLR 2023); `state` says nothing of tokens afterwards.
  virtual std::vector<at::Tensor> features(const at::Tensor& images, ForwardState& state) = 0;
  virtual std::vector<FeatureLevel> feature_levels() const = 0;
  /// Parameters that only the classifier has, and those that only the backbone has; the beginning
  /// of their names each.
  virtual std::vector<std::string> classifier_names() const = 0;
  virtual std::vector<std::string> feature_names() const { return {}; }
};

/// Throws BugError for images that are not of that side, as classifiers and all training want them.
void check_square(const at::Tensor& images, std::int64_t side);

/// Images with zeros at the bottom and on the right, up to multiples of `unit`.
at::Tensor pad_to_units(const at::Tensor& images, std::int64_t unit);

/// Positions (1, prefix + g^2, C) of a map of `height` x `width` places: bicubic (a = -0.75) where
/// it is not g x g; the leading ones stay.
at::Tensor positions_of_map(const at::Tensor& positions, std::int64_t prefix, std::int64_t height,
                            std::int64_t width);

}  // namespace ablate

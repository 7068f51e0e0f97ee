#pragma once

#include "methods/models/dense.h"

namespace ablate {

/// Maps of one stride at 1/4, 1/2, 1 and 2 times of it (Bao et al., "BEiT", ICLR 2022, after
/// Touvron et al., XCiT): by two transposed convolutions with BatchNorm and GELU between, by one,
/// as they are, and by maxima of 2 x 2 places. Children fpn1 ("0", "1", "3") and fpn2 ("0").
std::shared_ptr<Neck> make_pyramid_neck(std::int64_t channels, std::int64_t bn_group);

/// The same sizes by bilinear interpolation between a convolution of one pixel and one of 3 x 3
/// (mmsegmentation's MultiLevelNeck without norm and activation). Children lateral_convs.i.conv and
/// convs.i.conv.
std::shared_ptr<Neck> make_multi_level_neck(std::int64_t channels);

/// The levels behind either.
std::vector<FeatureLevel> neck_levels(const FeatureLevel& level);

}  // namespace ablate

#pragma once

#include <string>

#include "datasets/image.h"

namespace ablate {

/// A baseline JPEG file of the image: YCbCr with halved chroma (4:2:0), the accurate integer
/// transform, standard Huffman tables; the same bytes for the same pixels and library. `quality`
/// from 1 to 100 as libjpeg scales it.
std::string encode_jpeg(const Image& image, int quality);

}  // namespace ablate

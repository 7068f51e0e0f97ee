#pragma once

#include "datasets/image.h"
#include "runner/core/random.h"

namespace ablate {

/// Nearest integer, halves to the even neighbour: Python's round(), which timm and torchvision use.
int round_half_even(double value);

/// The part of `image` inside `box`, which must lie inside the image.
Image crop(const Image& image, const Box& box);
/// The same into `out`, whose buffer is reused.
void crop(const Image& image, const Box& box, Image& out);

/// A `size` x `size` window of the image surrounded by `pad` black pixels on every side; (left,
/// top) counts from the padded corner. The window must lie inside the padded image.
Image padded_crop(const Image& image, int left, int top, int size, int pad);
void padded_crop(const Image& image, int left, int top, int size, int pad, Image& out);

/// A window for padded_crop at a uniformly drawn place (torchvision RandomCrop(size, padding=pad)).
/// Draws: top, left. Throws Error when the padded image is smaller than the window.
Box random_crop_box(int width, int height, int size, int pad, RandomStream& random);
/// padded_crop there.
Image random_crop(const Image& image, int size, int pad, RandomStream& random);

/// Where torchvision's CenterCrop(size) cuts: offsets round_half_even((dim - size) / 2).
/// The image must be at least `size` on both sides.
Box center_crop_box(int width, int height, int size);

/// Size after torchvision's Resize(short_side): the long side is trunc(short_side * long / short).
struct Size {
  int width, height;

  bool operator==(const Size&) const = default;
};
Size resized_size(int width, int height, int short_side);

/// Ranges of RandomResizedCrop: share of the image's area, and width / height.
struct ResizedCrop {
  double scale_low = 0.08, scale_high = 1.0;
  double ratio_low = 3.0 / 4.0, ratio_high = 4.0 / 3.0;
};

/// The box of torchvision's RandomResizedCrop (Szegedy et al. 2015): up to ten tries of a box with
/// drawn area and log-uniform aspect ratio, then the largest central box within the ratio range.
/// Draws per try: area, aspect; once a size fits: top, left.
Box random_resized_crop_box(int width, int height, const ResizedCrop& ranges, RandomStream& random);

/// Mirrors left and right in place.
void hflip(Image& image);

}  // namespace ablate

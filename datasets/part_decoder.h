#pragma once

#include <memory>

#include "datasets/dataset.h"
#include "datasets/geometry.h"

namespace ablate {

class JpegDecoder;

/// Decodes parts of stored images, one after the other, in memory that it keeps. Pixels are bit for
/// bit those of decode_image(), which is also where the accepted formats are told. Of a JPEG no
/// more is decoded than its part needs: damage below the part goes unnoticed.
class PartDecoder {
 public:
  PartDecoder();
  ~PartDecoder();
  PartDecoder(PartDecoder&&) noexcept;
  PartDecoder& operator=(PartDecoder&&) noexcept;

  /// Turns to an image and returns its size; what `stored` refers to must stay until read() is
  /// done. Throws Error naming it when it cannot be decoded.
  Size open(const StoredImage& stored);
  /// The same of an image that is decoded already; it must stay likewise.
  Size open(const Image& decoded);

  /// The pixels of `box`, which must lie inside the image; once after each open().
  void read(const Box& box, Image& part);
  /// The same into 3 * box.width * box.height bytes.
  void read(const Box& box, std::uint8_t* rgb);

 private:
  std::unique_ptr<JpegDecoder> jpeg_;
  StoredImage stored_;
  Image whole_;                     // of formats that are decoded as a whole
  const Image* decoded_ = nullptr;  // whole_, or that of open(); null: the part is yet to decode
};

}  // namespace ablate

#include "datasets/part_decoder.h"

#include <algorithm>

#include "datasets/decode.h"
#include "datasets/jpeg_decoder.h"
#include "runner/core/error.h"

namespace ablate {

PartDecoder::PartDecoder() : jpeg_(std::make_unique<JpegDecoder>()) {}
PartDecoder::~PartDecoder() = default;
PartDecoder::PartDecoder(PartDecoder&&) noexcept = default;
PartDecoder& PartDecoder::operator=(PartDecoder&&) noexcept = default;

Size PartDecoder::open(const StoredImage& stored) {
  stored_ = stored;
  decoded_ = nullptr;
  if (stored.width > 0) return {stored.width, stored.height};
  if (is_jpeg(stored.bytes)) return jpeg_->open(stored.bytes, stored.name);
  decode_image(stored.bytes, stored.name, whole_);
  return open(whole_);
}

Size PartDecoder::open(const Image& decoded) {
  decoded_ = &decoded;
  return {decoded.width, decoded.height};
}

void PartDecoder::read(const Box& box, Image& part) {
  part.reshape(box.width, box.height);
  read(box, part.pixels.data());
}

void PartDecoder::read(const Box& box, std::uint8_t* rgb) {
  if (decoded_ == nullptr && stored_.width == 0) return jpeg_->read(box, rgb);
  const Size size = decoded_ != nullptr ? Size{decoded_->width, decoded_->height}
                                        : Size{stored_.width, stored_.height};
  const std::span<const std::uint8_t> pixels =
      decoded_ != nullptr ? std::span(decoded_->pixels) : stored_.bytes;
  ABLATE_CHECK(box.left >= 0 && box.top >= 0 && box.left + box.width <= size.width &&
                   box.top + box.height <= size.height,
               "part outside the image");
  const std::ptrdiff_t stride = std::ptrdiff_t{Image::kChannels} * size.width;
  ABLATE_CHECK(std::ssize(pixels) >= stride * size.height, "fewer bytes than pixels");
  const std::ptrdiff_t bytes = std::ptrdiff_t{Image::kChannels} * box.width;
  for (int y = 0; y < box.height; ++y) {
    std::copy_n(pixels.data() + stride * (box.top + y) + Image::kChannels * box.left, bytes,
                rgb + y * bytes);
  }
}

}  // namespace ablate

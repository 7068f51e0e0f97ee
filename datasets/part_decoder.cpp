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
  if (decoded_ != nullptr) return crop(*decoded_, box, part);
  if (stored_.width == 0) return jpeg_->read(box, part);
  const std::size_t stride = Image::kChannels * static_cast<std::size_t>(stored_.width);
  ABLATE_CHECK(stored_.bytes.size() >= stride * static_cast<std::size_t>(stored_.height),
               "fewer bytes than pixels");
  part.reshape(box.width, box.height);
  for (int y = 0; y < box.height; ++y) {
    const std::uint8_t* row = stored_.bytes.data() + stride * static_cast<std::size_t>(box.top + y);
    std::copy_n(row + Image::kChannels * box.left, part.stride(), part.row(y));
  }
}

}  // namespace ablate

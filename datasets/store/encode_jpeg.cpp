#include "datasets/store/encode_jpeg.h"

#include <array>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>

#include <jpeglib.h>

#include "runner/core/error.h"

namespace ablate {
namespace {

/// libjpeg reports errors by a call that must not return; no C++ object with a destructor lives in
/// the function it jumps out of.
struct EncodeErrors {
  jpeg_error_mgr base;
  std::jmp_buf escape;
  std::array<char, JMSG_LENGTH_MAX> message;
};

[[noreturn]] void on_encode_error(j_common_ptr info) {
  auto* errors = reinterpret_cast<EncodeErrors*>(info->err);
  errors->base.format_message(info, errors->message.data());
  std::longjmp(errors->escape, 1);
}

class JpegEncoder {
 public:
  JpegEncoder() {
    info_.err = jpeg_std_error(&errors_.base);
    errors_.base.error_exit = on_encode_error;
  }
  ~JpegEncoder() {
    jpeg_destroy_compress(&info_);
    std::free(bytes_);  // NOLINT: libjpeg took it from malloc
  }
  JpegEncoder(const JpegEncoder&) = delete;
  JpegEncoder& operator=(const JpegEncoder&) = delete;

  bool encode(const Image& image, int quality) {
    if (setjmp(errors_.escape)) return false;
    jpeg_create_compress(&info_);
    jpeg_mem_dest(&info_, &bytes_, &size_);
    info_.image_width = static_cast<JDIMENSION>(image.width);
    info_.image_height = static_cast<JDIMENSION>(image.height);
    info_.input_components = Image::kChannels;
    info_.in_color_space = JCS_RGB;
    jpeg_set_defaults(&info_);
    jpeg_set_quality(&info_, quality, TRUE);
    jpeg_start_compress(&info_, TRUE);
    for (int y = 0; y < image.height; ++y) {
      auto* row = const_cast<std::uint8_t*>(image.row(y));
      jpeg_write_scanlines(&info_, &row, 1);
    }
    jpeg_finish_compress(&info_);
    return true;
  }

  std::string bytes() const { return {reinterpret_cast<const char*>(bytes_), size_}; }
  const char* message() const { return errors_.message.data(); }

 private:
  jpeg_compress_struct info_{};
  EncodeErrors errors_{};
  unsigned char* bytes_ = nullptr;
  unsigned long size_ = 0;
};

}  // namespace

std::string encode_jpeg(const Image& image, int quality) {
  JpegEncoder encoder;
  if (!encoder.encode(image, quality)) {
    throw Error(cat("image of ", image.width, "x", image.height,
                    " pixels cannot be written as JPEG: ", encoder.message()));
  }
  return encoder.bytes();
}

}  // namespace ablate

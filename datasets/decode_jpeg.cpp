#include <array>
#include <csetjmp>
#include <cstdio>
#include <string>
#include <vector>

#include <jerror.h>
#include <jpeglib.h>

#include "datasets/decode.h"
#include "runner/core/error.h"

namespace ablate {

namespace {

/// libjpeg reports errors by a call that must not return: it jumps back into the step_* function
/// that called the library. Those functions hold no C++ object with a destructor, so nothing is
/// skipped; everything is owned by the JpegDecoder outside.
struct ErrorManager {
  jpeg_error_mgr base;  // first, so that libjpeg's pointer to it is one to us
  std::jmp_buf escape;
  std::array<char, JMSG_LENGTH_MAX> message;
};

[[noreturn]] void on_error(j_common_ptr info) {
  auto* manager = reinterpret_cast<ErrorManager*>(info->err);
  manager->base.format_message(info, manager->message.data());
  std::longjmp(manager->escape, 1);
}

/// Warnings after which pixels are missing or wrong are errors; the others are of no consequence.
void on_message(j_common_ptr info, int level) {
  if (level >= 0) return;  // a trace message
  switch (info->err->msg_code) {
    case JWRN_ADOBE_XFORM:
    case JWRN_EXTRANEOUS_DATA:
    case JWRN_JFIF_MAJOR:
    case JWRN_NOT_SEQUENTIAL:
    case JWRN_TOO_MUCH_DATA:
      return;
    default:
      on_error(info);
  }
}

class JpegDecoder {
 public:
  JpegDecoder() {
    info_.err = jpeg_std_error(&errors_.base);
    errors_.base.error_exit = on_error;
    errors_.base.emit_message = on_message;
  }
  ~JpegDecoder() { jpeg_destroy_decompress(&info_); }
  JpegDecoder(const JpegDecoder&) = delete;
  JpegDecoder& operator=(const JpegDecoder&) = delete;

  // Each step returns false after an error, message() then tells which.

  bool step_header(const std::uint8_t* data, std::size_t size) {
    if (setjmp(errors_.escape)) return false;
    jpeg_create_decompress(&info_);
    jpeg_mem_src(&info_, data, static_cast<unsigned long>(size));
    jpeg_read_header(&info_, TRUE);
    if (info_.num_components == 1) {
      info_.out_color_space = JCS_GRAYSCALE;
    } else {
      info_.out_color_space = info_.num_components == 4 ? JCS_CMYK : JCS_RGB;
    }
    return true;
  }

  bool step_start() {
    if (setjmp(errors_.escape)) return false;
    jpeg_start_decompress(&info_);
    return true;
  }

  bool step_row(std::uint8_t* row) {
    if (setjmp(errors_.escape)) return false;
    jpeg_read_scanlines(&info_, &row, 1);
    return true;
  }

  bool step_finish() {
    if (setjmp(errors_.escape)) return false;
    jpeg_finish_decompress(&info_);
    return true;
  }

  const jpeg_decompress_struct& info() const { return info_; }
  const char* message() const { return errors_.message.data(); }

 private:
  jpeg_decompress_struct info_{};
  ErrorManager errors_{};
};

void expand_grey(const std::uint8_t* grey, std::uint8_t* rgb, int width) {
  for (int x = 0; x < width; ++x, rgb += 3) rgb[0] = rgb[1] = rgb[2] = grey[x];
}

/// a * b / 255, rounded.
int scale_255(int a, int b) {
  const int product = a * b + 128;
  return ((product >> 8) + product) >> 8;
}

/// Inverted CMYK (255 = no ink) to RGB as Pillow does it.
void expand_cmyk(const std::uint8_t* cmyk, std::uint8_t* rgb, int width) {
  for (int x = 0; x < width; ++x, cmyk += 4, rgb += 3) {
    const int white = cmyk[3];
    for (int c = 0; c < 3; ++c) {
      rgb[c] = static_cast<std::uint8_t>(white - scale_255(255 - cmyk[c], white));
    }
  }
}

}  // namespace

void decode_jpeg(std::span<const std::uint8_t> bytes, std::string_view name, Image& image) {
  JpegDecoder decoder;
  const auto check = [&](bool ok) {
    if (!ok) throw Error(cat(name, ": corrupt JPEG: ", decoder.message()));
  };
  check(decoder.step_header(bytes.data(), bytes.size()));
  const jpeg_decompress_struct& info = decoder.info();
  check_image_size(info.image_width, info.image_height, name);
  check(decoder.step_start());
  const int width = static_cast<int>(info.output_width);
  image.reshape(width, static_cast<int>(info.output_height));
  const auto channels = static_cast<std::size_t>(info.output_components);
  std::vector<std::uint8_t> other(channels == 3 ? 0 : image.stride() / 3 * channels);
  for (int y = 0; y < image.height; ++y) {
    check(decoder.step_row(channels == 3 ? image.row(y) : other.data()));
    if (channels == 1) expand_grey(other.data(), image.row(y), width);
    if (channels == 4) expand_cmyk(other.data(), image.row(y), width);
  }
  check(decoder.step_finish());
}

}  // namespace ablate

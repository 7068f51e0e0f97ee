#include <algorithm>
#include <cstring>

#include <jerror.h>

#include "datasets/decode.h"
#include "datasets/jpeg_decoder.h"
#include "runner/core/error.h"

namespace ablate {

namespace {

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

void to_rgb(const std::uint8_t* row, int channels, std::uint8_t* rgb, int width) {
  if (channels == 1) return expand_grey(row, rgb, width);
  if (channels == 4) return expand_cmyk(row, rgb, width);
  std::memcpy(rgb, row, 3 * static_cast<std::size_t>(width));
}

}  // namespace

// libjpeg reports errors by a call that must not return: it jumps back into the step_* function
// that called the library. Those functions hold no C++ object with a destructor, so nothing is
// skipped; everything is owned by the JpegDecoder. Each returns false after an error.

void JpegDecoder::on_error(j_common_ptr info) {
  auto* manager = reinterpret_cast<ErrorManager*>(info->err);
  manager->base.format_message(info, manager->message.data());
  std::longjmp(manager->escape, 1);
}

/// Warnings after which pixels are missing or wrong are errors; the others are of no consequence.
void JpegDecoder::on_message(j_common_ptr info, int level) {
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

JpegDecoder::JpegDecoder() {
  info_.err = jpeg_std_error(&errors_.base);
  errors_.base.error_exit = on_error;
  errors_.base.emit_message = on_message;
  check(step_create());
}

JpegDecoder::~JpegDecoder() { jpeg_destroy_decompress(&info_); }

bool JpegDecoder::step_create() {
  if (setjmp(errors_.escape)) return false;
  jpeg_create_decompress(&info_);
  return true;
}

bool JpegDecoder::step_header(const std::uint8_t* data, std::size_t size) {
  if (setjmp(errors_.escape)) return false;
  jpeg_abort_decompress(&info_);  // whatever became of the file before
  jpeg_mem_src(&info_, data, static_cast<unsigned long>(size));
  jpeg_read_header(&info_, TRUE);
  if (info_.num_components == 1) {
    info_.out_color_space = JCS_GRAYSCALE;
  } else {
    info_.out_color_space = info_.num_components == 4 ? JCS_CMYK : JCS_RGB;
  }
  return true;
}

bool JpegDecoder::step_start(Columns* columns) {
  if (setjmp(errors_.escape)) return false;
  jpeg_start_decompress(&info_);
  if (columns->count < info_.output_width) {
    jpeg_crop_scanline(&info_, &columns->first, &columns->count);
  }
  return true;
}

bool JpegDecoder::step_rows(const Box& box, JDIMENSION first_column, std::uint8_t* rgb,
                            std::uint8_t* wide) {
  if (setjmp(errors_.escape)) return false;
  const int channels = info_.output_components;
  const std::uint8_t* part =
      wide + static_cast<std::ptrdiff_t>(box.left - static_cast<int>(first_column)) * channels;
  const bool direct = channels == 3 && static_cast<int>(info_.output_width) == box.width;
  if (box.top > 0) jpeg_skip_scanlines(&info_, static_cast<JDIMENSION>(box.top));
  const std::ptrdiff_t stride = std::ptrdiff_t{Image::kChannels} * box.width;
  for (int y = 0; y < box.height; ++y) {
    JSAMPROW row = direct ? rgb + y * stride : wide;
    jpeg_read_scanlines(&info_, &row, 1);
    if (!direct) to_rgb(part, channels, rgb + y * stride, box.width);
  }
  if (info_.output_scanline == info_.output_height) jpeg_finish_decompress(&info_);
  return true;
}

void JpegDecoder::check(bool ok) const {
  if (!ok) throw Error(cat(name_, ": corrupt JPEG: ", errors_.message.data()));
}

Size JpegDecoder::open(std::span<const std::uint8_t> bytes, std::string_view name) {
  name_ = name;
  check(step_header(bytes.data(), bytes.size()));
  check_image_size(info_.image_width, info_.image_height, name);
  return {static_cast<int>(info_.image_width), static_cast<int>(info_.image_height)};
}

void JpegDecoder::read(const Box& box, Image& image) {
  image.reshape(box.width, box.height);
  read(box, image.pixels.data());
}

void JpegDecoder::read(const Box& box, std::uint8_t* rgb) {
  constexpr int kMargin = 2;
  const int width = static_cast<int>(info_.image_width);
  const int first = std::max(0, box.left - kMargin);
  const int end = std::min(width, box.left + box.width + kMargin);
  Columns columns{static_cast<JDIMENSION>(first), static_cast<JDIMENSION>(end - first)};
  check(step_start(&columns));
  row_.resize(info_.output_width * static_cast<std::size_t>(info_.output_components));
  check(step_rows(box, columns.first, rgb, row_.data()));
}

void decode_jpeg(std::span<const std::uint8_t> bytes, std::string_view name, Image& image) {
  JpegDecoder decoder;
  const Size size = decoder.open(bytes, name);
  decoder.read({0, 0, size.width, size.height}, image);
}

}  // namespace ablate

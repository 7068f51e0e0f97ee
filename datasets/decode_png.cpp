#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <vector>

#include <png.h>

#include "datasets/decode.h"
#include "runner/core/error.h"

namespace ablate {

namespace {

/// libpng reports errors by a call that must not return: it jumps back into the step_* function
/// that called the library. Those functions hold no C++ object with a destructor.
class PngDecoder {
 public:
  explicit PngDecoder(std::span<const std::uint8_t> bytes) : unread_(bytes) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, on_warning);
    info_ = png_ == nullptr ? nullptr : png_create_info_struct(png_);
    if (info_ == nullptr) png_destroy_read_struct(&png_, nullptr, nullptr);
    ABLATE_CHECK(info_ != nullptr, "libpng cannot start");
    png_set_read_fn(png_, this, read);
  }
  ~PngDecoder() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngDecoder(const PngDecoder&) = delete;
  PngDecoder& operator=(const PngDecoder&) = delete;

  // Each step returns false after an error, message() then tells which.

  /// Reads the header and asks for 8-bit RGB.
  bool step_header() {
    if (setjmp(escape_)) return false;
    png_read_info(png_, info_);
    const int color = png_get_color_type(png_, info_);
    if (png_get_bit_depth(png_, info_) == 16) png_set_strip_16(png_);
    if (color == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png_);
    if ((color & PNG_COLOR_MASK_COLOR) == 0) {
      if (png_get_bit_depth(png_, info_) < 8) png_set_expand_gray_1_2_4_to_8(png_);
      png_set_gray_to_rgb(png_);
    }
    png_set_strip_alpha(png_);
    png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    return true;
  }

  /// Reads the header and asks for a byte a pixel, values as they are; other files keep their kind.
  bool step_label_header() {
    if (setjmp(escape_)) return false;
    png_read_info(png_, info_);
    png_set_packing(png_);
    png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    return true;
  }

  bool step_pixels(png_bytepp rows) {
    if (setjmp(escape_)) return false;
    png_read_image(png_, rows);
    png_read_end(png_, nullptr);
    return true;
  }

  bool has_single_bytes() const {
    const int color = png_get_color_type(png_, info_);
    return (color == PNG_COLOR_TYPE_GRAY || color == PNG_COLOR_TYPE_PALETTE) &&
           png_get_bit_depth(png_, info_) == 8;
  }
  std::uint32_t width() const { return png_get_image_width(png_, info_); }
  std::uint32_t height() const { return png_get_image_height(png_, info_); }
  std::size_t row_bytes() const { return png_get_rowbytes(png_, info_); }
  const char* message() const { return message_.data(); }

 private:
  [[noreturn]] static void on_error(png_structp png, png_const_charp message) {
    auto* self = static_cast<PngDecoder*>(png_get_error_ptr(png));
    std::snprintf(self->message_.data(), self->message_.size(), "%s", message);
    std::longjmp(self->escape_, 1);
  }

  static void on_warning(png_structp, png_const_charp) {}  // of no consequence for the pixels

  static void read(png_structp png, png_bytep out, std::size_t size) {
    auto* self = static_cast<PngDecoder*>(png_get_io_ptr(png));
    if (size > self->unread_.size()) png_error(png, "the file ends too early");
    std::memcpy(out, self->unread_.data(), size);
    self->unread_ = self->unread_.subspan(size);
  }

  std::span<const std::uint8_t> unread_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  std::jmp_buf escape_;
  std::array<char, 256> message_{};
};

}  // namespace

namespace {

void check_step(bool ok, const PngDecoder& decoder, std::string_view name) {
  if (!ok) throw Error(cat(name, ": corrupt PNG: ", decoder.message()));
}

/// Reads the pixels into `target`, which has row(y) and the decoder's size.
template <typename Target>
void read_rows(PngDecoder& decoder, std::string_view name, Target& target) {
  std::vector<png_bytep> rows(static_cast<std::size_t>(target.height));
  for (int y = 0; y < target.height; ++y) rows[static_cast<std::size_t>(y)] = target.row(y);
  check_step(decoder.step_pixels(rows.data()), decoder, name);
}

}  // namespace

void decode_png(std::span<const std::uint8_t> bytes, std::string_view name, Image& image) {
  PngDecoder decoder(bytes);
  check_step(decoder.step_header(), decoder, name);
  check_image_size(decoder.width(), decoder.height(), name);
  image.reshape(static_cast<int>(decoder.width()), static_cast<int>(decoder.height()));
  ABLATE_CHECK(decoder.row_bytes() == image.stride(), "PNG transform left ", decoder.row_bytes(),
               " bytes a row");
  read_rows(decoder, name, image);
}

void decode_label_map(std::span<const std::uint8_t> bytes, std::string_view name,
                      LabelMap& labels) {
  constexpr std::array<std::uint8_t, 8> kPng{0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  if (!std::ranges::equal(bytes.first(std::min(bytes.size(), kPng.size())), kPng)) {
    throw Error(cat(name, ": not a PNG file; labels of pixels are kept as PNG"));
  }
  PngDecoder decoder(bytes);
  check_step(decoder.step_label_header(), decoder, name);
  check_image_size(decoder.width(), decoder.height(), name);
  if (!decoder.has_single_bytes()) {
    throw Error(cat(name,
                    ": colours or 16-bit values; accepted: a PNG with one channel of up to 8 "
                    "bits, whose values are the classes"));
  }
  labels.reshape(static_cast<int>(decoder.width()), static_cast<int>(decoder.height()));
  read_rows(decoder, name, labels);
}

}  // namespace ablate

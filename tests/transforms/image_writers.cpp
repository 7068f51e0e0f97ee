#include "tests/transforms/image_writers.h"

#include <cstdio>
#include <cstdlib>

#include <jpeglib.h>
#include <png.h>

namespace ablate::test {

namespace {

int jpeg_channels(JpegColor color) {
  if (color == JpegColor::Grey) return 1;
  return color == JpegColor::Rgb ? 3 : 4;
}

J_COLOR_SPACE jpeg_space(JpegColor color) {
  if (color == JpegColor::Grey) return JCS_GRAYSCALE;
  return color == JpegColor::Rgb ? JCS_RGB : JCS_CMYK;
}

}  // namespace

Bytes write_jpeg(const Bytes& pixels, int width, int height, JpegColor color,
                 const JpegSettings& settings) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* data = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &data, &size);
  info.image_width = static_cast<JDIMENSION>(width);
  info.image_height = static_cast<JDIMENSION>(height);
  info.input_components = jpeg_channels(color);
  info.in_color_space = jpeg_space(color);
  jpeg_set_defaults(&info);
  if (color == JpegColor::Ycck) jpeg_set_colorspace(&info, JCS_YCCK);
  jpeg_set_quality(&info, settings.quality, TRUE);
  if (color == JpegColor::Rgb) {
    info.comp_info[0].h_samp_factor = settings.across;
    info.comp_info[0].v_samp_factor = settings.down;
  }
  if (settings.progressive) jpeg_simple_progression(&info);
  info.restart_in_rows = settings.restart_rows;
  jpeg_start_compress(&info, TRUE);
  const auto stride = static_cast<std::size_t>(width * info.input_components);
  for (std::size_t y = 0; y < static_cast<std::size_t>(height); ++y) {
    auto* row = const_cast<JSAMPROW>(pixels.data() + y * stride);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  Bytes file(data, data + size);
  jpeg_destroy_compress(&info);
  std::free(data);
  return file;
}

namespace {

int png_type(PngColor color) {
  switch (color) {
    case PngColor::Grey:
      return PNG_COLOR_TYPE_GRAY;
    case PngColor::GreyAlpha:
      return PNG_COLOR_TYPE_GRAY_ALPHA;
    case PngColor::Palette:
      return PNG_COLOR_TYPE_PALETTE;
    case PngColor::Rgb:
      return PNG_COLOR_TYPE_RGB;
    case PngColor::Rgba:
      return PNG_COLOR_TYPE_RGBA;
  }
  return -1;
}

void append(png_structp png, png_bytep data, std::size_t size) {
  auto* file = static_cast<Bytes*>(png_get_io_ptr(png));
  file->insert(file->end(), data, data + size);
}

}  // namespace

Bytes write_png(const PngImage& image) {
  Bytes file;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  png_set_write_fn(png, &file, append, nullptr);
  png_set_IHDR(png, info, static_cast<png_uint_32>(image.width),
               static_cast<png_uint_32>(image.height), image.depth, png_type(image.color),
               image.interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  std::vector<png_color> palette;
  for (std::size_t i = 0; i + 2 < image.palette.size(); i += 3) {
    palette.push_back({image.palette[i], image.palette[i + 1], image.palette[i + 2]});
  }
  if (!palette.empty()) png_set_PLTE(png, info, palette.data(), static_cast<int>(palette.size()));
  if (!image.palette_alpha.empty()) {
    png_set_tRNS(png, info, image.palette_alpha.data(),
                 static_cast<int>(image.palette_alpha.size()), nullptr);
  }
  const std::size_t stride = image.rows.size() / static_cast<std::size_t>(image.height);
  std::vector<png_bytep> rows;
  for (std::size_t y = 0; y < static_cast<std::size_t>(image.height); ++y) {
    rows.push_back(const_cast<png_bytep>(image.rows.data() + y * stride));
  }
  png_set_rows(png, info, rows.data());
  png_write_png(png, info, PNG_TRANSFORM_IDENTITY, nullptr);
  png_destroy_write_struct(&png, &info);
  return file;
}

}  // namespace ablate::test

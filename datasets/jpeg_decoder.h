#pragma once

#include <array>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string_view>
#include <vector>

#include <jpeglib.h>

#include "datasets/geometry.h"

namespace ablate {

/// Decodes JPEG files one after the other, of each no more than is wanted, in memory that it keeps.
/// Errors are Errors that name the file; after one the decoder can be used again.
class JpegDecoder {
 public:
  JpegDecoder();
  ~JpegDecoder();
  JpegDecoder(const JpegDecoder&) = delete;
  JpegDecoder& operator=(const JpegDecoder&) = delete;

  /// Reads the header and returns the size of the image. `bytes` and `name` must stay until read()
  /// is done.
  Size open(std::span<const std::uint8_t> bytes, std::string_view name);
  /// Decodes the pixels of `box`, bit for bit those of the whole image; once after each open().
  /// What the file holds of rows below the box is not looked at.
  void read(const Box& box, Image& image);
  /// The same into 3 * box.width * box.height bytes.
  void read(const Box& box, std::uint8_t* rgb);

 private:
  struct ErrorManager {
    jpeg_error_mgr base;  // first, so that libjpeg's pointer to it is one to us
    std::jmp_buf escape;
    std::array<char, JMSG_LENGTH_MAX> message;
  };

  /// Columns that are decoded: libjpeg begins at a block, and smooth upsampling of chroma looks one
  /// pixel beyond.
  struct Columns {
    JDIMENSION first, count;
  };

  [[noreturn]] static void on_error(j_common_ptr info);
  static void on_message(j_common_ptr info, int level);

  bool step_create();
  bool step_header(const std::uint8_t* data, std::size_t size);
  bool step_start(Columns* columns);
  bool step_rows(const Box& box, JDIMENSION first_column, std::uint8_t* rgb, std::uint8_t* wide);
  void check(bool ok) const;

  jpeg_decompress_struct info_{};
  ErrorManager errors_{};
  std::string_view name_;
  std::vector<std::uint8_t> row_;  // of the decoded columns, in the file's colours
};

}  // namespace ablate

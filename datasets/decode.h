#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "datasets/image.h"
#include "datasets/label_map.h"

namespace ablate {

/// Decodes a JPEG or PNG file held in memory into 8-bit RGB, the buffer of `image` being reused.
/// The format is told by the first bytes, never by a name. Pixels equal Pillow's convert("RGB") of
/// the same file, but for single-channel 16-bit PNGs: those keep their high byte, as all other
/// 16-bit PNGs do, where Pillow clips at 255.
///
/// Throws Error "`name`: reason" when the bytes are no JPEG or PNG, are cut off or damaged, or hold
/// more than 178,956,970 pixels (Pillow's limit against decompression bombs).
void decode_image(std::span<const std::uint8_t> bytes, std::string_view name, Image& image);

/// Whether the bytes begin as a JPEG file does.
bool is_jpeg(std::span<const std::uint8_t> bytes);

/// Decodes the PNG file of an annotation: grey values or palette entries of up to 8 bits are the
/// classes. Throws Error "`name`: reason" as decode_image does, and for pixels of another kind.
void decode_label_map(std::span<const std::uint8_t> bytes, std::string_view name, LabelMap& labels);

// The decoders behind it.

/// Grey, YCbCr, RGB, CMYK and YCCK files, baseline or progressive, 8 bits. Four-channel files count
/// as Adobe's inverted CMYK, as in Pillow. A damaged or incomplete scan is an error, not a warning.
void decode_jpeg(std::span<const std::uint8_t> bytes, std::string_view name, Image& image);

/// Grey, palette and RGB files of every depth, interlaced or not; alpha is dropped.
void decode_png(std::span<const std::uint8_t> bytes, std::string_view name, Image& image);

/// Throws Error unless an image of this size is acceptable.
void check_image_size(std::uint64_t width, std::uint64_t height, std::string_view name);

}  // namespace ablate

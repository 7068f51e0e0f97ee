#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "results/record.h"

namespace ablate {

/// One record as it lies in a spool file, little-endian:
///
///     u32 magic | u32 payload length | u32 sequence | u16 type | u16 0 | payload | u32 checksum
///
/// The checksum covers everything before it. It is the low half of XXH3, not CRC32C: both miss a
/// random error with probability 2^-32, and XXH3 is the hash this project uses already and runs at
/// memory speed without special instructions. The magic lets a reader find the next frame behind
/// damaged bytes.
inline constexpr std::uint32_t kFrameMagic = 0x464C4241;  // "ABLF"
inline constexpr std::size_t kFrameHead = 16;
inline constexpr std::size_t kFrameOverhead = kFrameHead + 4;
inline constexpr std::uint32_t kMaxPayload = 1U << 26;
inline constexpr std::size_t kPointBytes = 20;  ///< of one point in a Points payload

/// A record encoded for append_frame.
struct Payload {
  std::uint16_t type = 0;
  std::string bytes;
};
Payload encode(const Record& record);

/// Appends one frame to `out`. Throws Error when the payload is larger than kMaxPayload.
void append_frame(std::string& out, std::uint32_t sequence, const Payload& payload);

struct Frame {
  std::uint32_t sequence = 0;
  std::uint32_t checksum = 0;
  std::size_t size = 0;  ///< bytes in the file, overhead included
  Record record;
};

/// Whether a whole, undamaged frame lies at the start of `bytes`; fills in `frame` only then. A
/// payload that does not decode counts as damaged.
bool parse_frame(std::string_view bytes, Frame& frame);

/// Bytes the frame at the start of `bytes` claims to need, or 0 when it is too short to say or no
/// frame begins there.
std::size_t claimed_size(std::string_view bytes);

}  // namespace ablate

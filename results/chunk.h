#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ablate {

struct CurvePoint {
  std::int64_t step = 0;
  double value = 0;

  bool operator==(const CurvePoint&) const = default;
};

inline constexpr std::size_t kChunkPoints = 256;

/// A row of table `chunk`: at most kChunkPoints points of one series. Aggregates skip NaN and are
/// empty without any number.
struct Chunk {
  std::int64_t step0 = 0;
  std::int64_t stride = 0;  ///< 0: the data holds every step's distance from step0
  std::int64_t n = 0;
  int codec = 0;  ///< bytes of one value: 4 where single precision is exact, else 8
  std::optional<double> min, max, sum, last;
  std::string data;  ///< little-endian: n u32 distances if stride is 0, then n values
};

/// Packs points with increasing steps; every value comes back bit for bit (NaN as a NaN).
std::vector<Chunk> pack(std::span<const CurvePoint> points);

/// Appends the points of a chunk. False, with nothing appended, when the data do not fit the row.
bool unpack(const Chunk& chunk, std::vector<CurvePoint>& points);

}  // namespace ablate

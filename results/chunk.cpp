#include "results/chunk.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace ablate {
namespace {

using PointSpan = std::span<const CurvePoint>;

bool fits_single(double value) {
  return std::isnan(value) || static_cast<double>(static_cast<float>(value)) == value;
}

// How many points the chunk that begins at the first one can hold: distances are 32 bits wide.
std::size_t reach(PointSpan points) {
  const std::size_t most = std::min(points.size(), kChunkPoints);
  std::size_t n = 1;
  while (n < most && points[n].step - points[0].step <= std::numeric_limits<std::uint32_t>::max())
    ++n;
  return n;
}

std::int64_t common_stride(PointSpan points) {
  if (points.size() == 1) return 1;
  const std::int64_t stride = points[1].step - points[0].step;
  for (std::size_t i = 2; i < points.size(); ++i)
    if (points[i].step - points[i - 1].step != stride) return 0;
  return stride;
}

template <typename T>
void append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void aggregate(PointSpan points, Chunk& chunk) {
  for (const CurvePoint& point : points) {
    if (std::isnan(point.value)) continue;
    chunk.min = chunk.min ? std::min(*chunk.min, point.value) : point.value;
    chunk.max = chunk.max ? std::max(*chunk.max, point.value) : point.value;
    chunk.sum = chunk.sum.value_or(0) + point.value;
  }
  if (!std::isnan(points.back().value)) chunk.last = points.back().value;
}

Chunk pack_one(PointSpan points) {
  Chunk chunk;
  chunk.step0 = points[0].step;
  chunk.stride = common_stride(points);
  chunk.n = static_cast<std::int64_t>(points.size());
  const bool single = std::all_of(points.begin(), points.end(),
                                  [](const CurvePoint& p) { return fits_single(p.value); });
  chunk.codec = single ? 4 : 8;
  aggregate(points, chunk);
  chunk.data.reserve(points.size() * 12);
  if (chunk.stride == 0) {
    for (const CurvePoint& point : points)
      append(chunk.data, static_cast<std::uint32_t>(point.step - chunk.step0));
  }
  for (const CurvePoint& point : points) {
    if (single) {
      append(chunk.data, static_cast<float>(point.value));
    } else {
      append(chunk.data, point.value);
    }
  }
  return chunk;
}

template <typename T>
T load(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

}  // namespace

std::vector<Chunk> pack(PointSpan points) {
  std::vector<Chunk> chunks;
  while (!points.empty()) {
    const std::size_t n = reach(points);
    chunks.push_back(pack_one(points.first(n)));
    points = points.subspan(n);
  }
  return chunks;
}

bool unpack(const Chunk& chunk, std::vector<CurvePoint>& points) {
  const auto n = static_cast<std::size_t>(chunk.n);
  const std::size_t step_bytes = chunk.stride == 0 ? 4 : 0;
  if (chunk.n < 1 || (chunk.codec != 4 && chunk.codec != 8)) return false;
  const auto value_bytes = static_cast<std::size_t>(chunk.codec);
  if (chunk.data.size() != n * (step_bytes + value_bytes)) return false;
  const char* steps = chunk.data.data();
  const char* values = steps + n * step_bytes;
  for (std::size_t i = 0; i < n; ++i) {
    const std::int64_t distance = step_bytes != 0 ? load<std::uint32_t>(steps + 4 * i)
                                                  : chunk.stride * static_cast<std::int64_t>(i);
    const double value = chunk.codec == 4 ? static_cast<double>(load<float>(values + 4 * i))
                                          : load<double>(values + 8 * i);
    points.push_back({chunk.step0 + distance, value});
  }
  return true;
}

}  // namespace ablate

#include "sweeps/pack_sizes.h"

#include <algorithm>

namespace ablate {
namespace {

constexpr double kWorthwhile = 1.05;
constexpr double kUsableMemory = 0.9;  // CUDA's own part, fragments, another run's peak

}  // namespace

PackSizes::Known PackSizes::known(const std::string& shape) const {
  const auto found = shapes_.find(shape);
  if (found != shapes_.end()) return found->second;
  return {.next = fixed_.value_or(1), .most = fixed_.value_or(kMost)};
}

int PackSizes::next(const std::string& shape) const { return known(shape).next; }

bool PackSizes::is_trial(const std::string& shape, int runs) const {
  const Known found = known(shape);
  return !fixed_ && runs > found.best && runs == found.next;
}

void PackSizes::measured(const std::string& shape, int runs, double images_per_s) {
  Known found = known(shape);
  if (found.best > 0 && images_per_s <= kWorthwhile * found.best_speed) {
    found.next = found.best;
  } else {
    found.best = runs;
    found.best_speed = images_per_s;
    found.next = 2 * runs <= found.most ? 2 * runs : runs;
  }
  shapes_[shape] = found;
}

void PackSizes::took_memory(const std::string& shape, int runs, double bytes, double device_bytes) {
  if (bytes <= 0 || device_bytes <= 0) return;
  limit(shape, static_cast<int>(kUsableMemory * device_bytes * runs / bytes));
}

void PackSizes::out_of_memory(const std::string& shape, int runs) { limit(shape, runs / 2); }

void PackSizes::limit(const std::string& shape, int most) {
  Known found = known(shape);
  found.most = std::clamp(most, 1, found.most);
  // A trial that cannot be is over; a number that was asked for, or has proved best, is cut.
  if (found.next > found.most) {
    found.next = fixed_ || found.best == 0 ? found.most : std::min(found.best, found.most);
  }
  shapes_[shape] = found;
}

}  // namespace ablate

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace ablate {

/// How long the speed of a process of so many runs is measured.
struct TrialTimes {
  double warm_up_s =
      5;  ///< after the first step of the last run: capture, algorithms, first batches
  double measured_s = 20;
};

/// How many runs of one shape share a process. Where that is left open it is found out by trying:
/// 1, 2, 4, 8, as long as the runs fit into the device's memory and make together more than 5 %
/// more images a second than half as many did.
class PackSizes {
 public:
  static constexpr int kMost = 8;

  explicit PackSizes(std::optional<int> fixed) : fixed_(fixed) {}

  /// Runs of the next process of this shape.
  int next(const std::string& shape) const;
  /// Whether a process of so many runs is one of which the speed is not known yet.
  bool is_trial(const std::string& shape, int runs) const;

  /// So many runs together made so many images a second.
  void measured(const std::string& shape, int runs, double images_per_s);
  /// So many runs took so much of the device's memory.
  void took_memory(const std::string& shape, int runs, double bytes, double device_bytes);
  /// So many runs did not fit.
  void out_of_memory(const std::string& shape, int runs);

 private:
  struct Known {
    int best = 0;  // 0: nothing measured
    double best_speed = 0;
    int next;
    int most;
  };
  Known known(const std::string& shape) const;
  void limit(const std::string& shape, int most);

  std::optional<int> fixed_;
  std::map<std::string, Known> shapes_;
};

}  // namespace ablate

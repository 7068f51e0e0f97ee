#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include <signal.h>

#include "runner/core/random.h"

namespace ablate::test {

/// Who is hit; the last: `ablate`, and the job it left behind before another `ablate` takes it up.
enum class Victim { Rank, Mpirun, Ablate, AblateThenMpirun };

struct Blow {
  const char* name;
  Victim victim;
  int signal;
};
inline constexpr std::array<Blow, 7> kBlows{
    {{"KILL a rank", Victim::Rank, SIGKILL},
     {"KILL mpirun", Victim::Mpirun, SIGKILL},
     {"KILL ablate", Victim::Ablate, SIGKILL},
     {"KILL ablate, then mpirun", Victim::AblateThenMpirun, SIGKILL},
     {"TERM a rank", Victim::Rank, SIGTERM},
     {"TERM mpirun", Victim::Mpirun, SIGTERM},
     {"TERM ablate", Victim::Ablate, SIGTERM}}};

/// Blows that are still to fall on a live run, in random order, and where those that fell hit.
class Blows {
 public:
  Blows(std::uint64_t seed, int of_a_kind) : random_(seed, Purpose::Test) {
    for (int i = 0; i < of_a_kind; ++i) {
      for (std::size_t kind = 0; kind < kBlows.size(); ++kind) waiting_.push_back(kind);
    }
    for (std::size_t i = waiting_.size(); i > 1; --i) {
      std::swap(waiting_[i - 1], waiting_[random_.below(static_cast<std::uint32_t>(i))]);
    }
  }

  bool empty() const { return waiting_.empty(); }
  const Blow& next() const { return kBlows[waiting_.back()]; }
  double random_seconds(double longest) { return random_.uniform(0, longest); }
  std::uint32_t random_below(std::size_t n) { return random_.below(static_cast<std::uint32_t>(n)); }

  /// The next blow fell: on a live run it is done with, else it falls again later.
  void fell(const std::optional<std::string>& stage) {
    ++hits_[next().name][stage.value_or("no live run")];
    if (stage) {
      ++live_[next().name];
      waiting_.pop_back();
    } else {
      const std::size_t kind = waiting_.back();
      waiting_.pop_back();
      waiting_.insert(waiting_.begin(), kind);
    }
  }

  int live_hits(const std::string& name) const {
    const auto found = live_.find(name);
    return found == live_.end() ? 0 : found->second;
  }
  std::string report() const {
    std::ostringstream out;
    for (const Blow& blow : kBlows) {
      out << "  " << blow.name << ": " << live_hits(blow.name) << " on a live run";
      const auto found = hits_.find(blow.name);
      if (found == hits_.end()) continue;
      for (const auto& [stage, count] : found->second) out << "; " << count << " " << stage;
      out << "\n";
    }
    return out.str();
  }

 private:
  RandomStream random_;
  std::vector<std::size_t> waiting_;
  std::map<std::string, int> live_;
  std::map<std::string, std::map<std::string, int>> hits_;
};

}  // namespace ablate::test

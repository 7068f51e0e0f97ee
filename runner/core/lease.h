#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

namespace ablate {

/// How long those who share a lease wait for each other.
struct LeaseTimes {
  std::chrono::milliseconds heartbeat{15'000};     ///< between two signs of life of a holder
  std::chrono::milliseconds looks_stale{600'000};  ///< age of the last sign that raises doubts
  std::chrono::milliseconds watch{60'000};         ///< without a sign, before it is taken over
};

/// What a process has seen of a lease that looks abandoned, from one try to the next.
struct LeaseWatch {
  std::string sight;  ///< content and time of the last sign; empty: there is no doubt
  std::chrono::steady_clock::time_point since{};
};

/// The right to be the one writer, as a file made with O_EXCL: the primitive that also holds on
/// network file systems, where locks may not. It names host, boot, space of process numbers,
/// process and start time, so the lease of a dead process is taken over at once by those who can
/// see that it is dead. Others take it when it has shown no sign of life for long, by its age and,
/// because clocks differ between hosts, while they watched it. A thread gives the signs; who lost
/// the lease all the same (was stopped for minutes, or cut off) is kept from writing by a fencing
/// number of the thing itself.
class Lease {
 public:
  /// Nothing when another process holds it, or may hold it: `holder` then says who, and `watch`
  /// has to come back with the next try. Throws Error when the folder cannot be written.
  static std::optional<Lease> try_take(const std::filesystem::path& path, std::string& holder,
                                       LeaseWatch& watch, const LeaseTimes& times = {});
  /// Waits as long as the lease looks abandoned. Throws Error when another process holds it, naming
  /// `what` it holds, the process and the file.
  static Lease take(const std::filesystem::path& path, const std::string& what,
                    const LeaseTimes& times = {});
  /// Who holds it ("process 12 on host (FILE)"); nothing when nobody does.
  static std::optional<std::string> holder(const std::filesystem::path& path);

  Lease(Lease&&) noexcept;
  Lease& operator=(Lease&&) noexcept;
  /// Gives it back, if it is still ours.
  ~Lease();

  /// Throws Error when another process has taken the lease over.
  void check() const;

 private:
  class Held;
  explicit Lease(std::unique_ptr<Held> held);

  std::unique_ptr<Held> held_;
};

}  // namespace ablate

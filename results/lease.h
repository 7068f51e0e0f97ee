#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace ablate {

/// The right to be the one writer, as a file made with O_EXCL: the primitive that also holds on
/// network file systems. It names host, boot, process and start time, so the lease of a dead
/// process on this host is taken over at once; one of another host when it was not renewed for ten
/// minutes. A holder that lost it this way is stopped by the fencing number in the database.
class Lease {
 public:
  /// Nothing when another process holds it; `holder` then says who. Throws Error when the folder
  /// cannot be written.
  static std::optional<Lease> try_take(const std::filesystem::path& path, std::string& holder);
  /// Throws Error when another process holds it, naming the process and the file.
  static Lease take(const std::filesystem::path& path);
  /// Who holds it ("process 12 on host (FILE)"); nothing when nobody does.
  static std::optional<std::string> holder(const std::filesystem::path& path);

  Lease(Lease&& other) noexcept;
  Lease& operator=(Lease&&) = delete;
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  /// Gives it back, if it is still ours.
  ~Lease();

  /// Tells other hosts that we live; call at least every few minutes. Throws Error when another
  /// process has taken the lease over.
  void renew();

 private:
  Lease(std::filesystem::path path, std::string content);

  std::filesystem::path path_;
  std::string content_;
};

/// The lease of whoever feeds a database and so works on its runs.
std::filesystem::path ingest_lease(const std::filesystem::path& database);

}  // namespace ablate

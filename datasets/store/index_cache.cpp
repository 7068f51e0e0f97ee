#include "datasets/store/index_cache.h"

#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <optional>

#include <sys/stat.h>

#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/hash.h"
#include "runner/core/log.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kWorthKeeping = 10'000;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// Whether some files of the index still have their sizes: a file that is overwritten in place
/// leaves no trace in its folder. All of them would take as long as the scan.
bool looks_right(const SampleIndex& index, const fs::path& place) {
  if (!index.head().files.empty()) return true;  // those are part of the key
  constexpr std::int64_t kLooks = 64;
  const std::int64_t step = std::max<std::int64_t>(1, index.size() / kLooks);
  for (std::int64_t i = 0; i < index.size(); i += step) {
    std::error_code error;
    if (fs::file_size(place / index.name(i), error) != index.entry(i).length || error) return false;
  }
  return true;
}

std::optional<SampleIndex> kept_index(const fs::path& file, const fs::path& place,
                                      const std::string& key) {
  if (!fs::exists(file)) return std::nullopt;
  try {
    SampleIndex index(file);
    if (index.head().key == key && looks_right(index, place)) return index;
  } catch (const Error& error) {
    log_debug(cat("index is made again: ", error.what()));
  }
  return std::nullopt;
}

void keep(const fs::path& file, const std::string& bytes) {
  try {
    make_directories(file.parent_path());
    write_file_atomic(file, bytes);
  } catch (const Error& error) {
    log_debug(cat("index is not kept: ", error.what()));
  }
}

}  // namespace

fs::path cache_folder() {
  if (const std::string own = variable("ABLATE_CACHE"); !own.empty()) return own;
  if (const std::string xdg = variable("XDG_CACHE_HOME"); !xdg.empty())
    return fs::path(xdg) / "ablate";
  if (const std::string home = variable("HOME"); !home.empty())
    return fs::path(home) / ".cache/ablate";
  return {};
}

SampleIndex cached_index(const CacheSlot& slot, const std::string& key,
                         const std::function<IndexBuilder()>& scan) {
  const fs::path folder = cache_folder();
  const std::string print = hash128_hex(key);
  const std::string name = hash128_hex(cat(fs::canonical(slot.place).string(), "\n", slot.use));
  const fs::path file = folder / (name + ".index");
  if (!folder.empty()) {
    if (auto kept = kept_index(file, slot.place, print)) return std::move(*kept);
  }
  IndexBuilder found = scan();
  found.head.key = print;
  std::string bytes = found.finish();
  const bool wanted = found.size() >= kWorthKeeping || !variable("ABLATE_CACHE").empty();
  if (!folder.empty() && wanted) keep(file, bytes);
  return SampleIndex(std::move(bytes));
}

std::string state_of(const fs::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) throw_file_error(path, "cannot be read", errno);
  std::string state = cat(path.filename().string(), " ", status.st_size, " ", status.st_mtim.tv_sec,
                          ".", status.st_mtim.tv_nsec, "\n");
  // What has just changed may change again without its time telling: clocks of file systems tick
  // slowly. It is never in the same state twice.
  struct timespec now {};
  ::clock_gettime(CLOCK_REALTIME, &now);
  if (now.tv_sec - status.st_mtim.tv_sec < 2)
    state += cat("at ", now.tv_sec, ".", now.tv_nsec, "\n");
  return state;
}

}  // namespace ablate

#include "runner/train/checkpoint.h"

#include <algorithm>
#include <cerrno>
#include <iomanip>
#include <vector>

#include <sys/stat.h>

#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/core/hash.h"
#include "runner/core/log.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kTensors = "tensors.safetensors";
constexpr const char* kState = "state.json";
constexpr const char* kManifest = "manifest.json";
constexpr std::string_view kFresh = ".new-";
constexpr std::string_view kStale = ".old-";

std::string checkpoint_name(std::int64_t step) {
  return cat("step-", std::setw(9), std::setfill('0'), step);
}

json manifest_of(const fs::path& directory) {
  json files = json::object();
  for (const char* name : {kTensors, kState}) {
    files[name] = {{"bytes", fs::file_size(directory / name)},
                   {"sha256", sha256_hex(directory / name)}};
  }
  return {{"files", std::move(files)}};
}

/// Why a checkpoint cannot be used; empty when it can.
std::string defect(const fs::path& checkpoint) {
  try {
    const json manifest = json::parse(read_file(checkpoint / kManifest));
    const json& files = manifest.at("files");
    for (const char* name : {kTensors, kState}) {
      const json& promised = files.at(name);
      if (fs::file_size(checkpoint / name) != promised.at("bytes").get<std::uintmax_t>()) {
        return cat(name, " has another size than its manifest says");
      }
      if (sha256_hex(checkpoint / name) != promised.at("sha256").get<std::string>()) {
        return cat(name, " has another content than its manifest says");
      }
    }
    return {};
  } catch (const std::exception& error) {
    return error.what();
  }
}

/// Makes an empty folder beside `directory`. Another process, perhaps on another machine, may be
/// about the same: a writer that was given up but not yet ended.
fs::path make_sibling(const fs::path& directory, std::string_view prefix) {
  for (int number = 0;; ++number) {
    fs::path sibling =
        directory.parent_path() / cat(prefix, directory.filename().string(), ".", number);
    if (::mkdir(sibling.c_str(), 0777) == 0) return sibling;
    if (errno != EEXIST) throw_file_error(sibling, "cannot be made", errno);
  }
}

/// What is replaced, and what killed writers left behind.
void remove_leftovers(const fs::path& parent) {
  std::vector<fs::path> leftovers;
  for (const auto& entry : fs::directory_iterator(parent)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kFresh) || name.starts_with(kStale)) leftovers.push_back(entry.path());
  }
  for (const fs::path& leftover : leftovers) fs::remove_all(leftover);
}

/// Complete-looking checkpoints, newest first.
std::vector<fs::path> list_checkpoints(const fs::path& directory) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    if (entry.path().filename().string().starts_with("step-")) found.push_back(entry.path());
  }
  std::ranges::sort(found, std::greater<>());
  return found;
}

}  // namespace

void write_directory_atomic(const fs::path& directory,
                            const std::function<void(const fs::path&)>& fill,
                            const std::function<void()>& before_rename) {
  const fs::path parent = directory.parent_path();
  make_directories(parent);
  const fs::path fresh = make_sibling(directory, kFresh);
  try {
    fill(fresh);
    fsync_directory(fresh);
    before_rename();
    // Into a folder, not onto it: damage may have left a file here.
    if (fs::exists(directory)) {
      fs::rename(directory, make_sibling(directory, kStale) / directory.filename());
    }
    fs::rename(fresh, directory);
    fsync_directory(parent);
    remove_leftovers(parent);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(fresh, ignored);
    throw;
  }
}

CheckpointStore::CheckpointStore(fs::path directory, int keep, FenceCheck check_fence)
    : directory_(std::move(directory)), keep_(keep), check_fence_(std::move(check_fence)) {}

CheckpointNote CheckpointStore::save(const Checkpoint& checkpoint,
                                     const std::string& structure_hash, bool deployable) {
  const fs::path target = directory_ / checkpoint_name(checkpoint.step);
  std::string manifest;
  write_directory_atomic(
      target,
      [&](const fs::path& fresh) {
        write_safetensors(fresh / kTensors, checkpoint.tensors);
        json state = checkpoint.state;
        state["step"] = checkpoint.step;
        write_file_atomic(fresh / kState, state.dump(1));
        manifest = manifest_of(fresh).dump(1);
        write_file_atomic(fresh / kManifest, manifest);
      },
      check_fence_);
  prune(target);
  return {.step = checkpoint.step,
          .path = target.string(),
          .bytes = static_cast<std::int64_t>(fs::file_size(target / kTensors)),
          .manifest_sha256 = sha256_hex(std::string_view(manifest)),
          .structure_hash = structure_hash,
          .deployable = deployable};
}

std::optional<fs::path> CheckpointStore::newest_valid() const {
  const std::vector<fs::path> candidates = list_checkpoints(directory_);
  for (const fs::path& candidate : candidates) {
    const std::string reason = defect(candidate);
    if (reason.empty()) return candidate;
    log_warning(cat("checkpoint ", candidate.string(), " is skipped: ", reason));
  }
  if (!candidates.empty()) {
    log_warning(cat("no checkpoint in ", directory_.string(), " is whole: the run starts from its ",
                    "beginning"));
  }
  return std::nullopt;
}

Checkpoint CheckpointStore::load(const fs::path& checkpoint) {
  Checkpoint loaded;
  loaded.state = json::parse(read_file(checkpoint / kState));
  loaded.step = loaded.state.at("step").get<std::int64_t>();
  const SafetensorsFile file(checkpoint / kTensors);
  for (const std::string& name : file.names()) loaded.tensors.emplace_back(name, file.tensor(name));
  return loaded;
}

void CheckpointStore::remove_all() const {
  std::error_code error;
  fs::remove_all(directory_, error);
  if (error) log_warning(cat(directory_.string(), " is not removed: ", error.message()));
}

void CheckpointStore::prune(const fs::path& newest) const {
  int kept = 0;
  for (const fs::path& checkpoint : list_checkpoints(directory_)) {
    const bool keep = checkpoint <= newest && kept < keep_;
    kept += keep ? 1 : 0;
    if (!keep) fs::remove_all(checkpoint);
  }
}

}  // namespace ablate

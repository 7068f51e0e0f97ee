#include "runner/worker/run_list.h"

#include <algorithm>
#include <map>

#include "runner/core/error.h"
#include "runner/core/hash.h"
#include "runner/core/run_paths.h"
#include "runner/train/teacher.h"
#include "runner/worker/spec_file.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;

/// Every spec below OUT/runs, by id.
std::vector<std::string> specs_below(const fs::path& out) {
  std::vector<std::string> specs;
  const fs::path folder = out / "runs";
  if (fs::exists(folder)) {
    for (const auto& entry : fs::directory_iterator(folder)) {
      const fs::path spec = RunPaths(out, entry.path().filename()).spec();
      if (fs::exists(spec)) specs.push_back(spec);
    }
  }
  std::sort(specs.begin(), specs.end());
  if (specs.empty()) {
    throw SpecError(cat("there is no run below ", folder.string(),
                        ": a folder with a spec.json for each is expected, as `ablate sweep FILE "
                        "--specs-only` makes them"));
  }
  return specs;
}

struct Words {
  std::vector<std::string> specs, overrides;
};

Words sort_words(const RunNames& names, const fs::path& out) {
  Words words;
  if (names.all) {
    if (!names.words.empty()) throw SpecError("--all takes no specs: it takes all of --out");
    words.specs = specs_below(out);
    return words;
  }
  for (const std::string& word : names.words) {
    if (fs::is_regular_file(word)) {
      words.specs.push_back(word);
    } else if (word.find('=') != std::string::npos) {
      words.overrides.push_back(word);
    } else {
      throw SpecError(cat(word, ": neither a file nor KEY=VALUE"));
    }
  }
  if (words.specs.empty()) throw SpecError("which run? Name a spec (.json), a run file or --all");
  return words;
}

template <typename Number>
void check_count(const char* option, const std::vector<Number>& given, std::size_t specs) {
  if (given.empty() || given.size() == specs) return;
  throw SpecError(cat(option, " is given ", given.size(), " times for ", specs,
                      " specs; accepted: never, or once for each, in their order"));
}

using WeightFiles = std::map<std::string, fs::path>;  // by SHA-256

/// The weights that a spec names by content. One file alone is for every run: the run itself says
/// what is wrong with it.
fs::path weights_of(const std::string& sha256, const WeightFiles& files) {
  if (sha256.empty() || files.empty()) return {};
  const auto found = files.find(sha256);
  return found == files.end() ? files.begin()->second : found->second;
}

void find_weights(PackedRun& run, const WeightFiles& files) {
  Environment& environment = run.environment;
  if (environment.init_file.empty()) {
    environment.init_file = weights_of(run.spec.init_sha256, files);
  }
  const auto teacher = teacher_file_of(run.spec);
  if (teacher && environment.teacher_file.empty()) {
    environment.teacher_file = weights_of(teacher->sha256, files);
  }
}

}  // namespace

std::vector<PackedRun> list_runs(const RunNames& names, const Environment& environment, int ranks) {
  const Words words = sort_words(names, environment.out);
  check_count("--attempt", names.attempts, words.specs.size());
  check_count("--fence", names.fences, words.specs.size());
  WeightFiles files;
  for (const std::string& file : names.init_files) files[sha256_hex(fs::path(file))] = file;
  std::vector<PackedRun> runs;
  for (std::size_t i = 0; i < words.specs.size(); ++i) {
    PackedRun run{.spec = {}, .environment = environment};
    run.spec = load_spec(words.specs[i], words.overrides, run.environment, ranks);
    find_weights(run, files);
    if (!names.attempts.empty()) run.environment.attempt = names.attempts[i];
    if (!names.fences.empty()) run.environment.fence = names.fences[i];
    runs.push_back(std::move(run));
  }
  return runs;
}

}  // namespace ablate

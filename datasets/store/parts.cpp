#include "datasets/store/parts.h"

#include <algorithm>
#include <array>

#include <nlohmann/json.hpp>

#include "datasets/store/class_list.h"
#include "datasets/store/folder_scan.h"
#include "datasets/store/index_cache.h"
#include "datasets/store/ordered_work.h"
#include "datasets/store/pack_files.h"
#include "datasets/store/shard_scan.h"
#include "runner/core/cpu_quota.h"
#include "runner/core/error.h"
#include "runner/core/log.h"
#include "runner/core/params.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFindings = "findings";
constexpr std::string_view kLeftOut = "left out";
constexpr const char* kFix = "repair or remove the file, or set dataset.on_corrupt = \"skip\"";

const std::vector<std::string>& test_names() {
  static const std::vector<std::string> names{"val", "validation", "test"};
  return names;
}

int threads() { return usable_cpus(); }

/// The index without samples that cannot be decoded; each of those is found.
IndexBuilder sound_samples(IndexBuilder found, const fs::path& folder, Findings& findings) {
  const StoredDataset all(SampleIndex(found.finish()), {.folder = folder, .hint = kFix});
  std::vector<Inspection> seen(static_cast<std::size_t>(all.size()));
  in_parallel(all.size(), threads(),
              [&](std::int64_t i) { seen[static_cast<std::size_t>(i)] = inspect(all, i); });
  std::vector<std::int64_t> left_out;
  for (std::int64_t i = 0; i < all.size(); ++i) {
    const auto& [defect, other_format] = seen[static_cast<std::size_t>(i)];
    if (other_format) findings.add(kOtherExtension, all.where(i));
    if (defect.empty()) continue;
    findings.add(kLeftOut, defect.substr(0, defect.find(cat("; ", kFix))));
    left_out.push_back(i);
  }
  if (static_cast<std::int64_t>(left_out.size()) == all.size()) {
    throw SpecError(cat(folder.string(), ": no image of the data set can be decoded"));
  }
  return without(all.index(), left_out);
}

/// One part from the cache or by `scan`.
StoredPart open_part(const fs::path& folder, const std::string& use, const std::string& state,
                     const StoredSettings& settings,
                     const std::function<IndexBuilder(Findings&)>& scan) {
  const CacheSlot slot{folder, cat(use, settings.skip_corrupt ? " decoded" : "")};
  SampleIndex index = cached_index(slot, state, [&] {
    Findings findings;
    IndexBuilder found = scan(findings);
    if (settings.skip_corrupt) found = sound_samples(std::move(found), folder, findings);
    found.head.facts[kFindings] = findings.json();
    return found;
  });
  Findings findings = Findings::from_json(index.head().facts.at(kFindings));
  return {.samples = std::make_shared<const StoredDataset>(
              std::move(index), StoredAt{folder, kFix, settings.normalization}),
          .findings = std::move(findings)};
}

fs::path existing(const fs::path& root, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (fs::is_directory(root / name)) return root / name;
  }
  throw SpecError(cat(root.string(), ": expected a folder ", join(names, " or "), " in it"));
}

StoredPart open_folder_part(const FolderPart& part, const StoredSettings& settings) {
  return open_part(part.folder, "folder", state_of(part), settings,
                   [&](Findings& findings) { return scan_folder(part, threads(), findings); });
}

StoredPart open_shard_part(const fs::path& root, const std::vector<std::string>& names,
                           const std::vector<std::string>& classes,
                           const StoredSettings& settings) {
  const std::vector<std::string> shards = shard_files(root, names);
  if (shards.empty()) {
    throw SpecError(cat(root.string(), ": expected tar files in a folder ", join(names, " or "),
                        ", or with that in their names"));
  }
  std::string state = cat("shards 1\n", join(classes, "\n"), "\n");
  for (const std::string& shard : shards) state += cat(shard, " ", state_of(root / shard));
  return open_part(root, cat("shards ", names.front()), state, settings, [&](Findings& findings) {
    return scan_shards(root, shards, classes, threads(), findings);
  });
}

void apply(const StoredSettings& settings, const StoredPart& part, std::string_view name) {
  part.findings.log(name);
  const std::size_t left_out = part.findings.count(kLeftOut);
  if (left_out > 0) {
    log_warning(cat(left_out, " of ", static_cast<std::size_t>(part.samples->size()) + left_out,
                    " images were left out"));
  }
  if (name == "train" && !settings.keep_missing && part.findings.count(kEmptyClass) > 0) {
    throw SpecError(cat("training part: ", part.findings.line(kEmptyClass),
                        "; complete the set, or set dataset.missing_classes = \"keep\""));
  }
}

}  // namespace

Normalization read_normalization(Params& params) {
  const auto three = [&](const char* key, const std::array<float, 3>& usual, double low,
                         const char* help) {
    const std::vector<double> values =
        params.numbers(key, {usual.begin(), usual.end()}, low, 1e3, help);
    if (values.size() != usual.size()) {
      params.fail(key, cat(values.size(), " numbers; accepted: 3, for red, green and blue"));
    }
    std::array<float, 3> result{};
    std::ranges::transform(values, result.begin(), [](double x) { return static_cast<float>(x); });
    return result;
  };
  const Normalization usual = kImageNetNormalization;
  Normalization normalization;
  normalization.mean = three("mean", usual.mean, -1e3, "subtracted from pixels in [0, 1]");
  normalization.std = three("std", usual.std, 1e-6, "what they are divided by then");
  return normalization;
}

StoredSettings read_stored_settings(Params& params) {
  StoredSettings settings;
  settings.skip_corrupt =
      params.choice("on_corrupt", "error", {"error", "skip"},
                    "a file that cannot be decoded ends the run, or is left out "
                    "(all files are then decoded once at the start)") == "skip";
  settings.keep_missing =
      params.choice("missing_classes", "error", {"error", "keep"},
                    "classes without a training image are an error, or are kept") == "keep";
  settings.normalization = read_normalization(params);
  return settings;
}

StoredParts open_image_folder(const fs::path& root, const StoredSettings& settings) {
  const fs::path train = existing(root, {"train"});
  const FolderClasses classes = folder_classes(root, train);
  return {.train = open_folder_part({root, train, classes}, settings),
          .test = open_folder_part({root, existing(root, test_names()), classes}, settings)};
}

StoredParts open_tar_shards(const fs::path& root, const StoredSettings& settings) {
  const auto listed = read_class_list(root);
  StoredPart train =
      open_shard_part(root, {"train"}, listed.value_or(std::vector<std::string>()), settings);
  StoredPart test =
      open_shard_part(root, test_names(), train.samples->index().head().classes, settings);
  return {.train = std::move(train), .test = std::move(test)};
}

StoredParts open_pack(const fs::path& root, const StoredSettings& settings) {
  const auto open = [&](const std::vector<std::string>& names) {
    for (const std::string& name : names) {
      const PackFiles files(root, name);
      if (fs::exists(files.index())) {
        return StoredPart{.samples = open_pack_part(files, settings.normalization), .findings = {}};
      }
      if (fs::exists(files.journal())) {
        throw SpecError(cat(files.journal().string(), ": the conversion has not ended; expected ",
                            files.index().filename().string(),
                            " beside it: start the same `ablate-train convert` again"));
      }
    }
    throw SpecError(cat(root.string(), ": expected ", names.front(), ".index and ", names.front(),
                        ".samples in it, as `ablate-train convert` writes them"));
  };
  return {.train = open({"train"}), .test = open(test_names())};
}

StoredParts open_stored(const fs::path& root) {
  if (!fs::is_directory(root)) throw SpecError(cat(root.string(), ": expected a folder"));
  if (fs::exists(PackFiles(root, "train").index())) return open_pack(root);
  if (!shard_files(root, {"train"}).empty()) return open_tar_shards(root, {});
  return open_image_folder(root, {});
}

DatasetSplits splits_of(StoredParts parts, const StoredSettings& settings) {
  apply(settings, parts.train, "train");
  apply(settings, parts.test, "test");
  return {.train = std::move(parts.train.samples),
          .holdout = {},
          .test = std::move(parts.test.samples)};
}

}  // namespace ablate

#include "datasets/store/shard_scan.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>
#include <optional>
#include <set>

#include <nlohmann/json.hpp>

#include "datasets/store/ordered_work.h"
#include "datasets/store/tar_members.h"
#include "runner/core/error.h"
#include "runner/core/mapped_file.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kNoImageInSample = "sample without an image, left out";
constexpr std::string_view kSeveralImages = "sample with several images, the first kept";
constexpr std::string_view kShardMissing = "number missing among the shards";

struct ShardSample {
  std::string name;  ///< "SHARD/PATH"
  std::uint64_t offset = 0, length = 0;
  std::optional<std::uint32_t> label;
  std::string class_name;  ///< when there is no label
};

struct Shard {
  std::vector<ShardSample> samples;
  Findings findings;
};

struct MemberName {
  std::string key, field;
};

MemberName split_name(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::size_t dot = path.find('.', slash == std::string::npos ? 0 : slash + 1);
  MemberName name{path.substr(0, dot), dot == std::string::npos ? "" : path.substr(dot + 1)};
  std::ranges::transform(name.field, name.field.begin(),
                         [](unsigned char c) { return std::tolower(c); });
  return name;
}

bool is_image_field(std::string_view field) {
  return field == "jpg" || field == "jpeg" || field == "png";
}

/// Reads one shard: members one after the other, a sample whenever the key changes.
class ShardReader {
 public:
  explicit ShardReader(const fs::path& file) : file_(file), stem_(file.stem().string()) {}

  Shard read() {
    TarListing listing = list_tar(file_);
    for (std::string& other : listing.others) {
      shard_.findings.add("no plain file in a tar file, left out", cat(stem_, "/", other));
    }
    for (const TarMember& member : listing.files) take(member);
    finish_sample();
    return std::move(shard_);
  }

 private:
  void take(const TarMember& member) {
    const MemberName name = split_name(member.path);
    if (member.path.ends_with(".tar")) {
      throw SpecError(cat(file_.string(), ": ", member.path, " is a tar file itself; unpack the ",
                          "outer one (tar -xf) and give the folder of the inner ones"));
    }
    if (name.key != key_) {
      finish_sample();
      key_ = name.key;
      if (!seen_.insert(key_).second) shard_.findings.add(kSameName, cat(stem_, "/", key_));
    }
    if (is_image_field(name.field)) {
      if (has_image_) {
        shard_.findings.add(kSeveralImages, cat(stem_, "/", key_));
      } else {
        has_image_ = true;
        sample_.name = cat(stem_, "/", member.path);
        sample_.offset = member.offset;
        sample_.length = member.length;
      }
    } else if (name.field == "cls") {
      sample_.label = number(content(member), member);
    } else if (name.field == "json" && !sample_.label) {
      sample_.label = label_of_json(content(member), member);
    }
  }

  void finish_sample() {
    if (has_image_) {
      if (!sample_.label) sample_.class_name = folder_or_shard();
      shard_.samples.push_back(std::move(sample_));
    } else if (!key_.empty()) {
      shard_.findings.add(kNoImageInSample, cat(stem_, "/", key_));
    }
    sample_ = {};
    has_image_ = false;
  }

  std::string folder_or_shard() const {
    const std::string folder = fs::path(key_).parent_path().filename().string();
    return folder.empty() || folder == "." ? stem_ : folder;
  }

  std::string_view content(const TarMember& member) {
    if (!mapped_) mapped_.emplace(file_);
    return mapped_->bytes().substr(member.offset, member.length);
  }

  std::uint32_t number(std::string_view text, const TarMember& member) const {
    while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())))
      text.remove_suffix(1);
    std::uint32_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) {
      throw Error(cat(file_.string(), ": ", member.path, ": \"", text.substr(0, 40),
                      "\" is no label; expected a number from 0 in digits"));
    }
    return value;
  }

  std::optional<std::uint32_t> label_of_json(std::string_view text, const TarMember& member) const {
    const nlohmann::json parsed = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (parsed.is_discarded()) {
      throw Error(cat(file_.string(), ": ", member.path, ": no valid JSON"));
    }
    const auto label = parsed.is_object() ? parsed.find("label") : parsed.end();
    if (label == parsed.end() || !label->is_number_unsigned()) return std::nullopt;
    return label->get<std::uint32_t>();
  }

  fs::path file_;
  std::string stem_;
  std::optional<MappedFile> mapped_;
  Shard shard_;
  std::set<std::string> seen_;
  std::string key_;
  ShardSample sample_;
  bool has_image_ = false;
};

/// The classes of a training part without a list, from what its samples say.
std::vector<std::string> make_classes(const std::vector<Shard>& shards, bool by_name) {
  std::set<std::string> names;
  std::uint32_t largest = 0;
  for (const Shard& shard : shards) {
    for (const ShardSample& sample : shard.samples) {
      if (by_name) {
        names.insert(sample.class_name);
      } else {
        largest = std::max(largest, *sample.label);
      }
    }
  }
  if (by_name) return {names.begin(), names.end()};
  constexpr std::uint32_t kMany = 1'000'000;
  if (largest >= kMany) throw SpecError(cat("label ", largest, "; accepted: below ", kMany));
  std::vector<std::string> numbers;
  for (std::uint32_t i = 0; i <= largest; ++i) numbers.push_back(std::to_string(i));
  return numbers;
}

/// Whether labels are names; throws when some samples have numbers and others not.
bool labelled_by_name(const std::vector<Shard>& shards) {
  const ShardSample* named = nullptr;
  const ShardSample* numbered = nullptr;
  for (const Shard& shard : shards) {
    for (const ShardSample& sample : shard.samples) (sample.label ? numbered : named) = &sample;
  }
  if (named != nullptr && numbered != nullptr) {
    throw Error(cat(named->name, " has no label (.cls, or \"label\" in .json), but ",
                    numbered->name, " has one; expected in all samples or in none"));
  }
  return named != nullptr;
}

std::uint32_t label_of(const ShardSample& sample, const std::vector<std::string>& classes) {
  if (sample.label) {
    if (*sample.label < classes.size()) return *sample.label;
    throw Error(
        cat(sample.name, ": label ", *sample.label, "; accepted: 0 to ", classes.size() - 1));
  }
  const auto found = std::ranges::find(classes, sample.class_name);
  if (found != classes.end()) return static_cast<std::uint32_t>(found - classes.begin());
  throw SpecError(cat(sample.name, ": class \"", sample.class_name,
                      "\" is none of the training part's", suggestion(sample.class_name, classes)));
}

/// Shards are numbered without gaps where they are numbered: a gap is a download that failed.
void note_missing_shards(const std::vector<std::string>& shards, Findings& findings) {
  std::map<std::string, std::vector<std::uint64_t>> numbers;  // by the name before the number
  for (const std::string& shard : shards) {
    const std::string stem = fs::path(shard).stem().string();
    const std::size_t digits = stem.find_last_not_of("0123456789") + 1;
    if (digits == stem.size() || stem.size() - digits > 9) continue;
    numbers[stem.substr(0, digits)].push_back(std::stoull(stem.substr(digits)));
  }
  for (auto& [prefix, found] : numbers) {
    std::ranges::sort(found);
    std::uint64_t expected = std::min<std::uint64_t>(found.front(), 1);
    for (const std::uint64_t number : found) {
      for (; expected < number; ++expected) findings.add(kShardMissing, cat(prefix, expected));
      expected = number + 1;
    }
  }
}

bool is_tar(const fs::path& file) {
  const std::string name = file.filename().string();
  return name.ends_with(".tar") || name.find(".tar.") != std::string::npos ||
         name.ends_with(".tgz");
}

/// Tar files of a folder whose names contain `part`, relative to `root`.
std::vector<std::string> tars_in(const fs::path& root, const fs::path& folder,
                                 std::string_view part) {
  std::vector<std::string> files;
  if (!fs::is_directory(folder)) return files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (is_tar(entry.path()) && name.find(part) != std::string::npos) {
      files.push_back(fs::relative(entry.path(), root).string());
    }
  }
  std::ranges::sort(files);
  return files;
}

}  // namespace

std::vector<std::string> shard_files(const fs::path& root, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    std::vector<std::string> files = tars_in(root, root / name, "");
    if (files.empty()) files = tars_in(root, root, name);
    if (!files.empty()) return files;
  }
  return {};
}

IndexBuilder scan_shards(const fs::path& root, const std::vector<std::string>& shards,
                         const std::vector<std::string>& classes, int threads, Findings& findings) {
  std::vector<Shard> read(shards.size());
  in_parallel(static_cast<std::int64_t>(shards.size()), threads, [&](std::int64_t i) {
    const auto at = static_cast<std::size_t>(i);
    read[at] = ShardReader(root / shards[at]).read();
  });
  const bool by_name = labelled_by_name(read);
  IndexBuilder index;
  index.head.classes = classes.empty() ? make_classes(read, by_name) : classes;
  index.head.files = shards;
  if (!by_name) note_missing_shards(shards, findings);
  for (std::size_t i = 0; i < read.size(); ++i) {
    for (const ShardSample& sample : read[i].samples) {
      index.add({.offset = sample.offset,
                 .length = sample.length,
                 .label = label_of(sample, index.head.classes),
                 .file = static_cast<std::uint32_t>(i)},
                sample.name);
    }
    findings.add(read[i].findings);
  }
  if (index.size() == 0) {
    throw SpecError(cat(root.string(), ": no .jpg, .jpeg or .png member in ", some_of(shards)));
  }
  note_empty_classes(index, findings);
  return index;
}

}  // namespace ablate

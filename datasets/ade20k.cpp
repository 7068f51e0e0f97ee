#include <algorithm>
#include <array>
#include <map>
#include <sstream>

#include "datasets/dataset.h"
#include "datasets/decode.h"
#include "datasets/part_decoder.h"
#include "runner/core/files.h"
#include "runner/core/hash.h"
#include "runner/core/mapped_file.h"
#include "runner/core/params.h"

namespace ablate::datasets::ade20k {
namespace {

namespace fs = std::filesystem;

constexpr int kClasses = 150;
constexpr const char* kFolder = "ADEChallengeData2016";

struct Pair {
  fs::path image, annotation;
};

std::span<const std::uint8_t> bytes_of(const MappedFile& file) {
  const std::string_view bytes = file.bytes();
  return {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()};
}

/// Files with one extension by their names without it.
std::map<std::string, fs::path> files_by_stem(const fs::path& folder, std::string_view extension) {
  std::map<std::string, fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_regular_file() && entry.path().extension() == extension) {
      files.emplace(entry.path().stem().string(), entry.path());
    }
  }
  if (files.empty()) throw SpecError(cat(folder.string(), ": no ", extension, " file in it"));
  return files;
}

/// Says which of `files` have no partner among `others`, and where it would be.
void check_partners(const std::map<std::string, fs::path>& files,
                    const std::map<std::string, fs::path>& others, const fs::path& folder,
                    std::string_view extension) {
  std::int64_t lonely = 0;
  std::string first;
  for (const auto& [stem, file] : files) {
    if (others.contains(stem)) continue;
    if (lonely++ == 0) first = file.string();
  }
  if (lonely == 0) return;
  throw SpecError(cat(first, lonely > 1 ? cat(" and ", lonely - 1, " others") : "",
                      ": expected a file of the same name in ", folder.string(), ", ending in ",
                      extension));
}

std::vector<Pair> list_pairs(const fs::path& root, const char* part) {
  const fs::path images = root / "images" / part, annotations = root / "annotations" / part;
  for (const fs::path& folder : {images, annotations}) {
    if (!fs::is_directory(folder)) {
      throw SpecError(cat("expected a folder ", folder.string(), " (layout of ", kFolder, ")"));
    }
  }
  const auto photos = files_by_stem(images, ".jpg"), maps = files_by_stem(annotations, ".png");
  check_partners(photos, maps, annotations, ".png");
  check_partners(maps, photos, images, ".jpg");
  std::vector<Pair> pairs;
  for (const auto& [stem, image] : photos) pairs.push_back({image, maps.at(stem)});
  return pairs;
}

/// Stored values to classes: 0 stands for "something else", k for class k - 1.
constexpr std::uint8_t class_of(std::uint8_t stored) {
  return stored == 0 ? LabelMap::kIgnore : static_cast<std::uint8_t>(stored - 1);
}

class Ade20k final : public Dataset {
 public:
  Ade20k(std::vector<Pair> pairs, std::vector<std::string> names) : pairs_(std::move(pairs)) {
    facts_ = {.classes = kClasses,
              .image_size = 0,
              .normalization = {{0.485F, 0.456F, 0.406F}, {0.229F, 0.224F, 0.225F}},
              .dense = true,
              .class_names = std::move(names)};
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(pairs_.size()); }
  std::int64_t label(std::int64_t) const override { return 0; }
  const DatasetFacts& facts() const override { return facts_; }

  void load(std::int64_t index, Image& image) const override {
    const fs::path& file = pair(index).image;
    decode_image(bytes_of(MappedFile(file)), file.string(), image);
  }

  void load_labels(std::int64_t index, LabelMap& labels) const override {
    const Pair& files = pair(index);
    decode_label_map(bytes_of(MappedFile(files.annotation)), files.annotation.string(), labels);
    check_size(files, labels);
    for (std::uint8_t& label : labels.classes) {
      if (label > kClasses && label != LabelMap::kIgnore) {
        throw Error(cat(files.annotation.string(), ": value ", int{label}, "; accepted: 0 to ",
                        kClasses, ", and 255"));
      }
      if (label != LabelMap::kIgnore) label = class_of(label);
    }
  }

  /// Of names and sizes: reading it all would take longer than some runs.
  std::string fingerprint() const override {
    std::string text;
    for (const Pair& files : pairs_) {
      text += cat(files.image.filename().string(), " ", fs::file_size(files.image), " ",
                  fs::file_size(files.annotation), "\n");
    }
    return hash128_hex(text);
  }

 private:
  const Pair& pair(std::int64_t index) const { return pairs_[static_cast<std::size_t>(index)]; }

  void check_size(const Pair& files, const LabelMap& labels) const {
    const MappedFile image(files.image);
    const std::string name = files.image.string();
    const Size size = PartDecoder().open({.bytes = bytes_of(image), .name = name});
    if (size.width == labels.width && size.height == labels.height) return;
    throw Error(cat(files.annotation.string(), ": ", labels.width, " x ", labels.height,
                    " labels, but ", files.image.string(), " has ", size.width, " x ", size.height,
                    " pixels"));
  }

  std::vector<Pair> pairs_;
  DatasetFacts facts_;
};

/// The folder, given itself or the one that it was unpacked into.
fs::path find_root(const fs::path& given) {
  for (const fs::path& root : {given, given / kFolder}) {
    if (fs::is_directory(root / "annotations") && fs::is_directory(root / "images")) return root;
  }
  if (fs::exists(given / "images" / "ADE") || fs::exists(given / "index_ade20k.pkl")) {
    throw SpecError(cat(given.string(), ": this is the full ADE20K release; accepted: ", kFolder,
                        " of the scene parsing challenge, with images/ and annotations/"));
  }
  throw SpecError(
      cat(given.string(), ": expected folders images and annotations in it (", kFolder, ")"));
}

/// Names of objectInfo150.txt, the last of its columns; none where the file is missing.
std::vector<std::string> read_names(const fs::path& file) {
  std::vector<std::string> names;
  if (!fs::exists(file)) return names;
  const std::string text = read_file(file);
  std::istringstream lines(text);
  std::string line;
  std::getline(lines, line);  // headings
  while (std::getline(lines, line)) {
    const std::string name = line.substr(line.rfind('\t') + 1);
    if (!name.empty()) names.push_back(name.substr(0, name.find_last_not_of("\r ") + 1));
  }
  if (names.size() != kClasses) {
    throw SpecError(cat(file.string(), ": ", names.size(), " names; accepted: ", kClasses));
  }
  return names;
}

DatasetOpener configure(Params&) {
  return [](const fs::path& given) {
    const fs::path root = find_root(given);
    const std::vector<std::string> names = read_names(root / "objectInfo150.txt");
    const auto open = [&](const char* part) {
      return std::make_shared<Ade20k>(list_pairs(root, part), names);
    };
    return DatasetSplits{.train = open("training"), .holdout = {}, .test = open("validation")};
  };
}

const Registry<DatasetInfo>::Add added{
    {.name = "ade20k",
     .summary = "ADEChallengeData2016: scenes, a label of 150 for each pixel",
     .semantics = 1,
     .needs_root = true,
     .configure = configure}};

}  // namespace
}  // namespace ablate::datasets::ade20k

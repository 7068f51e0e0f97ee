#include <algorithm>
#include <atomic>
#include <cctype>
#include <thread>

#include "datasets/dataset.h"
#include "datasets/decode.h"
#include "runner/core/hash.h"
#include "runner/core/log.h"
#include "runner/core/mapped_file.h"
#include "runner/core/params.h"

namespace ablate::datasets::imagefolder {
namespace {

namespace fs = std::filesystem;

struct Item {
  fs::path file;
  std::int64_t label;
};

bool is_image(const fs::path& file) {
  std::string extension = file.extension().string();
  std::ranges::transform(extension, extension.begin(),
                         [](unsigned char c) { return std::tolower(c); });
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png";
}

/// Sub-folders in byte order of their names: their rank is the class.
std::vector<std::string> class_names(const fs::path& split) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(split)) {
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  if (names.empty()) {
    throw SpecError(cat(split.string(), ": expected one folder a class, found none"));
  }
  return names;
}

std::vector<Item> list_items(const fs::path& split, const std::vector<std::string>& classes) {
  std::vector<Item> items;
  for (const std::string& name : class_names(split)) {
    const auto found = std::ranges::lower_bound(classes, name);
    if (found == classes.end() || *found != name) {
      throw SpecError(cat((split / name).string(), ": class \"", name,
                          "\" does not occur in the training part", suggestion(name, classes)));
    }
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(split / name)) {
      if (entry.is_regular_file() && is_image(entry.path())) files.push_back(entry.path());
    }
    if (files.empty()) {
      throw SpecError(cat((split / name).string(), ": no .jpg, .jpeg or .png file in it"));
    }
    std::ranges::sort(files);
    for (fs::path& file : files) items.push_back({std::move(file), found - classes.begin()});
  }
  return items;
}

void decode_file(const fs::path& file, Image& image) {
  const MappedFile mapped(file);
  const std::string_view bytes = mapped.bytes();
  decode_image({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}, file.string(),
               image);
}

/// Why a file cannot be decoded; empty when it can.
std::string defect(const fs::path& file) {
  try {
    Image image;
    decode_file(file, image);
    return {};
  } catch (const Error& error) {
    return error.what();
  }
}

/// Decodes every file once and drops those that cannot be; each is named in the log.
void drop_corrupt(std::vector<Item>& items) {
  std::vector<std::string> defects(items.size());
  std::atomic<std::size_t> next{0};
  {
    std::vector<std::jthread> workers;
    for (unsigned i = 0; i < std::max(1U, std::thread::hardware_concurrency()); ++i) {
      workers.emplace_back([&] {
        for (std::size_t at = next++; at < items.size(); at = next++) {
          defects[at] = defect(items[at].file);
        }
      });
    }
  }
  std::vector<Item> sound;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (defects[i].empty()) {
      sound.push_back(std::move(items[i]));
    } else {
      log_warning(cat("left out: ", defects[i]));
    }
  }
  if (sound.size() != items.size()) {
    log_warning(cat(items.size() - sound.size(), " of ", items.size(), " images were left out"));
  }
  if (sound.empty()) throw SpecError("no image of the data set can be decoded");
  items = std::move(sound);
}

class ImageFolder final : public Dataset {
 public:
  ImageFolder(std::vector<Item> items, std::int64_t classes) : items_(std::move(items)) {
    facts_ = {.classes = classes,
              .image_size = 0,
              .normalization = {{0.485F, 0.456F, 0.406F}, {0.229F, 0.224F, 0.225F}}};
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(items_.size()); }
  std::int64_t label(std::int64_t index) const override { return item(index).label; }
  const DatasetFacts& facts() const override { return facts_; }

  void load(std::int64_t index, Image& image) const override {
    try {
      decode_file(item(index).file, image);
    } catch (const Error& error) {
      throw Error(
          cat(error.what(), "; repair or remove the file, or set dataset.on_corrupt = \"skip\""));
    }
  }

  /// Of names and sizes: reading a large set would take longer than some runs.
  std::string fingerprint() const override {
    std::string text;
    for (const Item& entry : items_) {
      text += cat(entry.file.parent_path().filename().string(), "/", entry.file.filename().string(),
                  " ", fs::file_size(entry.file), "\n");
    }
    return hash128_hex(text);
  }

 private:
  const Item& item(std::int64_t index) const { return items_[static_cast<std::size_t>(index)]; }

  std::vector<Item> items_;
  DatasetFacts facts_;
};

fs::path existing(const fs::path& root, const std::vector<const char*>& names) {
  for (const char* name : names) {
    if (fs::is_directory(root / name)) return root / name;
  }
  throw SpecError(cat(root.string(), ": expected a folder ", join(names, " or "), " in it"));
}

DatasetOpener configure(Params& params) {
  const bool skip = params.choice("on_corrupt", "error", {"error", "skip"},
                                  "a file that cannot be decoded ends the run, or is left out "
                                  "(all files are then decoded once at the start)") == "skip";
  return [skip](const fs::path& root) {
    const fs::path train = existing(root, {"train"});
    const std::vector<std::string> classes = class_names(train);
    const auto open = [&](const fs::path& split) {
      std::vector<Item> items = list_items(split, classes);
      if (skip) drop_corrupt(items);
      return std::make_shared<ImageFolder>(std::move(items),
                                           static_cast<std::int64_t>(classes.size()));
    };
    return DatasetSplits{
        .train = open(train), .holdout = {}, .test = open(existing(root, {"val", "test"}))};
  };
}

const Registry<DatasetInfo>::Add added{
    {.name = "imagefolder",
     .summary = "DIR/{train,val}/<class>/<image>.{jpg,jpeg,png}, such as ImageNet",
     .semantics = 1,
     .needs_root = true,
     .configure = configure}};

}  // namespace
}  // namespace ablate::datasets::imagefolder

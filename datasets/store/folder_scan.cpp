#include "datasets/store/folder_scan.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "datasets/store/class_list.h"
#include "datasets/store/index_cache.h"
#include "datasets/store/ordered_work.h"
#include "runner/core/error.h"
#include "runner/core/files.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;

struct FoundFile {
  std::string name;
  std::uint64_t bytes = 0;
};

struct FoundFolder {
  std::vector<FoundFile> images;  ///< in byte order of the names
  std::vector<std::string> folders, others;
};

std::string lower_extension(const fs::path& file) {
  std::string extension = file.extension().string();
  std::ranges::transform(extension, extension.begin(),
                         [](unsigned char c) { return std::tolower(c); });
  return extension;
}

FoundFolder list_folder(const fs::path& folder) {
  FoundFolder found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_directory()) {
      found.folders.push_back(name);
    } else if (entry.is_regular_file() && has_image_extension(entry.path())) {
      found.images.push_back({name, entry.file_size()});
    } else {
      found.others.push_back(name);
    }
  }
  std::ranges::sort(found.folders);
  std::ranges::sort(found.images, {}, &FoundFile::name);
  return found;
}

/// The same errors as everywhere, instead of the standard library's.
FoundFolder list_or_fail(const fs::path& folder) {
  try {
    return list_folder(folder);
  } catch (const fs::filesystem_error& error) {
    throw_file_error(folder, "cannot be listed", error.code().value());
  }
}

std::uint32_t class_number(const FolderPart& part, const std::string& name) {
  const auto& names = part.classes.names;
  const auto found = std::ranges::find(names, name);
  if (found != names.end()) return static_cast<std::uint32_t>(found - names.begin());
  throw SpecError(cat((part.folder / name).string(), ": class \"", name, "\" does not occur in ",
                      part.classes.listed ? "classes.txt" : "the training part",
                      suggestion(name, names)));
}

/// Names that differ in their extensions only: often one image twice.
void note_same_stems(const std::string& folder, const std::vector<FoundFile>& images,
                     Findings& findings) {
  for (std::size_t i = 1; i < images.size(); ++i) {
    const fs::path before = images[i - 1].name, here = images[i].name;
    if (before.stem() == here.stem()) findings.add(kSameName, cat(folder, here.stem().string()));
  }
}

IndexBuilder index_of_classes(const FolderPart& part, const std::vector<std::string>& folders,
                              int threads, Findings& findings) {
  std::vector<FoundFolder> found(folders.size());
  in_parallel(static_cast<std::int64_t>(folders.size()), threads, [&](std::int64_t i) {
    const auto at = static_cast<std::size_t>(i);
    found[at] = list_or_fail(part.folder / folders[at]);
  });
  IndexBuilder index;
  index.head.labels_in_names = true;
  for (std::size_t i = 0; i < folders.size(); ++i) {
    const std::string prefix = folders[i] + "/";
    const std::uint32_t label = class_number(part, folders[i]);
    for (const auto& image : found[i].images) {
      index.add({.length = image.bytes, .label = label}, prefix + image.name);
    }
    for (const auto& name : found[i].others) findings.add(kNoImage, prefix + name);
    for (const auto& name : found[i].folders)
      findings.add("folder inside a class, left out", prefix + name);
    note_same_stems(prefix, found[i].images, findings);
  }
  return index;
}

IndexBuilder index_of_flat(const FolderPart& part, const FoundFolder& found, Findings& findings) {
  const auto label_file = find_label_file(part.root, part.folder);
  if (!label_file) {
    throw SpecError(cat(part.folder.string(), ": expected one folder a class, found none, but ",
                        found.images.size(),
                        " images; for images without such folders a file of "
                        "labels is expected: ",
                        join(label_file_names(), ", "), " in ", part.root.string()));
  }
  std::vector<std::string> names;
  for (const FoundFile& image : found.images) names.push_back(image.name);
  const auto labels = label_flat_images(*label_file, names, part.classes.names);
  IndexBuilder index;
  for (std::size_t i = 0; i < names.size(); ++i) {
    index.add({.length = found.images[i].bytes, .label = labels[i]}, names[i]);
  }
  for (const std::string& name : found.others) {
    if (part.folder / name != *label_file) findings.add(kNoImage, name);
  }
  return index;
}

}  // namespace

bool has_image_extension(const fs::path& file) {
  static constexpr std::array<std::string_view, 3> kExtensions{".jpg", ".jpeg", ".png"};
  return std::ranges::find(kExtensions, lower_extension(file)) != kExtensions.end();
}

FolderClasses folder_classes(const fs::path& root, const fs::path& train) {
  if (auto listed = read_class_list(root)) return {.names = std::move(*listed), .listed = true};
  FolderClasses classes{.names = list_or_fail(train).folders};
  if (classes.names.empty()) {
    throw SpecError(cat(train.string(), ": expected one folder a class, found none"));
  }
  return classes;
}

std::string state_of(const FolderPart& part) {
  const FoundFolder found = list_or_fail(part.folder);
  std::string state =
      cat("folder 1\n", state_of(part.folder), join(part.classes.names, "\n"), "\n");
  for (const std::string& name : found.folders) state += state_of(part.folder / name);
  if (found.folders.empty()) {
    if (const auto file = find_label_file(part.root, part.folder)) state += state_of(*file);
  }
  return state;
}

IndexBuilder scan_folder(const FolderPart& part, int threads, Findings& findings) {
  const FoundFolder top = list_or_fail(part.folder);
  IndexBuilder index;
  if (!top.folders.empty()) {
    index = index_of_classes(part, top.folders, threads, findings);
    for (const std::string& name : top.others) findings.add(kNoImage, name);
    for (const FoundFile& image : top.images)
      findings.add("image outside the classes, left out", image.name);
  } else if (!top.images.empty()) {
    index = index_of_flat(part, top, findings);
  } else {
    throw SpecError(cat(part.folder.string(), ": expected one folder a class, found none"));
  }
  if (index.size() == 0)
    throw SpecError(cat(part.folder.string(), ": no .jpg, .jpeg or .png file in it"));
  index.head.classes = part.classes.names;
  note_empty_classes(index, findings);
  return index;
}

}  // namespace ablate

#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "datasets/store/findings.h"
#include "datasets/store/sample_index.h"

namespace ablate {

/// The classes of an image folder: ROOT/classes.txt, else the folders of its training part in byte
/// order of their names.
struct FolderClasses {
  std::vector<std::string> names;
  bool listed = false;  ///< by classes.txt
};

FolderClasses folder_classes(const std::filesystem::path& root, const std::filesystem::path& train);

/// One part of an image folder.
struct FolderPart {
  std::filesystem::path root;
  std::filesystem::path folder;  ///< of the part: "ROOT/train"
  FolderClasses classes;
};

/// Text that changes with the part's files (but for those overwritten in place), classes or labels.
std::string state_of(const FolderPart& part);

/// The part's images: of each class's folder in byte order of their names; or, where the images lie
/// in the part's folder itself, with the labels of a label file (class_list.h). `findings` gets
/// what else lies there and which classes have no image. Throws SpecError on folders that are no
/// class and on parts without an image.
IndexBuilder scan_folder(const FolderPart& part, int threads, Findings& findings);

/// Whether the name ends as JPEG and PNG files do.
bool has_image_extension(const std::filesystem::path& file);

}  // namespace ablate

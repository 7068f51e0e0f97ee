#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ablate {

/// The classes of ROOT/classes.txt, a line each, the first word being the name (of the folder:
/// ImageNet's wnid); a class's number is its line, from 0. Nothing when there is no such file.
/// Throws SpecError "FILE:LINE: ..." on a name that comes twice or an empty file.
std::optional<std::vector<std::string>> read_class_list(const std::filesystem::path& root);

/// The label files that label_flat_images() looks for, in ROOT and in the part's folder.
std::vector<std::string> label_file_names();
/// The first of them that exists.
std::optional<std::filesystem::path> find_label_file(const std::filesystem::path& root,
                                                     const std::filesystem::path& part);

/// Labels of images that lie in one folder without folders for the classes (as ILSVRC's validation
/// images do), in the order of `images`, which are file names in byte order. The file has a line an
/// image: "NAME CLASS ..." (any order; blanks, tabs or commas; NAME with or without its extension;
/// Kaggle's LOC_val_solution.csv is one), or CLASS alone, line i being the i-th image. CLASS is a
/// name of `classes` or a number from 0; in ILSVRC2012_validation_ground_truth.txt it is an
/// ILSVRC2012_ID, which is no number of a class: ILSVRC2012_ids.txt beside it has "ID WNID" a line
/// (the leaves of meta.mat). Throws SpecError with file and line.
std::vector<std::uint32_t> label_flat_images(const std::filesystem::path& label_file,
                                             std::span<const std::string> images,
                                             std::span<const std::string> classes);

}  // namespace ablate

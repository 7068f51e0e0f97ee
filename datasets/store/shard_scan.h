#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "datasets/store/findings.h"
#include "datasets/store/sample_index.h"

namespace ablate {

/// The tar files of one part: those of ROOT/<name>/, else those of ROOT with the name in theirs,
/// for the first of `names` that has some; in byte order, relative to ROOT.
std::vector<std::string> shard_files(const std::filesystem::path& root,
                                     const std::vector<std::string>& names);

/// Indexes one part. Members that lie next to each other and share a key (the path up to the first
/// dot of its last component) are a sample; the rest says what a member is: jpg, jpeg or png the
/// image, cls its label in digits, json an object with a "label". Where a sample has neither, its
/// folder in the tar file, or without one the name of the tar file, is its class.
///
/// `classes` are those of classes.txt, or of the training part; when empty they are made: the
/// numbers up to the largest label, or the names of folders in byte order.
/// `findings` gets what is odd. Throws Error naming shard and sample: damaged, without a label, or
/// with one outside the classes.
IndexBuilder scan_shards(const std::filesystem::path& root, const std::vector<std::string>& shards,
                         const std::vector<std::string>& classes, int threads, Findings& findings);

}  // namespace ablate

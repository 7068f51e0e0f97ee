#include "datasets/store/class_list.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <map>
#include <set>

#include "runner/core/error.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;

constexpr const char* kGroundTruth = "ILSVRC2012_validation_ground_truth.txt";
constexpr const char* kIds = "ILSVRC2012_ids.txt";

struct Line {
  std::vector<std::string> words;
  std::string where;  ///< "FILE:LINE"
};

/// The words of each line that has some: what blanks, tabs and commas separate.
std::vector<Line> lines_of(const fs::path& file) {
  std::ifstream in(file);
  if (!in) throw SpecError(cat(file.string(), ": cannot be read"));
  std::vector<Line> lines;
  std::string text;
  for (int number = 1; std::getline(in, text); ++number) {
    Line line{.words = {}, .where = cat(file.string(), ":", number)};
    std::size_t at = 0;
    while ((at = text.find_first_not_of(" \t,\r", at)) != std::string::npos) {
      const std::size_t end = std::min(text.find_first_of(" \t,\r", at), text.size());
      line.words.push_back(text.substr(at, end - at));
      at = end;
    }
    if (!line.words.empty()) lines.push_back(std::move(line));
  }
  return lines;
}

std::optional<std::uint32_t> as_number(const std::string& word) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return value;
}

/// Turns the word for a class into its number.
class ClassReader {
 public:
  ClassReader(const fs::path& file, std::span<const std::string> classes) : classes_(classes) {
    for (std::size_t i = 0; i < classes.size(); ++i) {
      numbers_[classes[i]] = static_cast<std::uint32_t>(i);
    }
    if (file.filename() == kGroundTruth) read_ids(file.parent_path() / kIds);
  }

  std::uint32_t operator()(const std::string& word, const std::string& where) const {
    if (!ids_.empty()) {
      const auto id = ids_.find(word);
      if (id == ids_.end()) throw SpecError(cat(where, ": ", kIds, " has no ID ", word));
      return number_of(id->second, where);
    }
    if (const auto found = numbers_.find(word); found != numbers_.end()) return found->second;
    const auto number = as_number(word);
    if (number && *number < classes_.size()) return *number;
    if (number) {
      throw SpecError(cat(where, ": class ", word, "; accepted: 0 to ", classes_.size() - 1));
    }
    return number_of(word, where);
  }

 private:
  std::uint32_t number_of(const std::string& name, const std::string& where) const {
    const auto found = numbers_.find(name);
    if (found != numbers_.end()) return found->second;
    const std::string near =
        nearest_name(name, std::vector<std::string>(classes_.begin(), classes_.end()));
    throw SpecError(cat(where, ": class \"", name, "\" does not occur in the training part",
                        near.empty() ? "" : cat(" (did you mean \"", near, "\"?)")));
  }

  void read_ids(const fs::path& file) {
    if (!fs::exists(file)) {
      throw SpecError(cat(file.string(), ": expected, for ", kGroundTruth,
                          " has ILSVRC2012_IDs, which are no class numbers; write \"ID WNID\" lines"
                          " from the devkit's meta.mat, or use a file with wnids"));
    }
    for (const Line& line : lines_of(file)) {
      if (line.words.size() < 2) throw SpecError(cat(line.where, ": expected \"ID WNID\""));
      ids_[line.words[0]] = line.words[1];
    }
  }

  std::span<const std::string> classes_;
  std::map<std::string, std::uint32_t> numbers_;
  std::map<std::string, std::string> ids_;
};

bool is_heading(const Line& line) {
  return line.words[0] == "ImageId" || line.words[0] == "filename";
}

std::vector<std::uint32_t> labels_in_order(const fs::path& file, const std::vector<Line>& lines,
                                           std::size_t images, const ClassReader& class_of) {
  if (lines.size() != images) {
    throw SpecError(cat(file.string(), ": ", lines.size(), " labels for ", images,
                        " images; expected one line an image, in the order of their names"));
  }
  std::vector<std::uint32_t> labels;
  for (const Line& line : lines) labels.push_back(class_of(line.words[0], line.where));
  return labels;
}

std::vector<std::uint32_t> labels_by_name(const fs::path& file, const std::vector<Line>& lines,
                                          std::span<const std::string> images,
                                          const ClassReader& class_of) {
  std::map<std::string, const Line*> by_name;
  for (const Line& line : lines) {
    if (!by_name.emplace(line.words[0], &line).second) {
      throw SpecError(cat(line.where, ": ", line.words[0], " has a label already"));
    }
  }
  std::vector<std::uint32_t> labels;
  for (const std::string& image : images) {
    auto found = by_name.find(image);
    if (found == by_name.end()) found = by_name.find(fs::path(image).stem().string());
    if (found == by_name.end()) throw SpecError(cat(file.string(), ": no label for ", image));
    labels.push_back(class_of(found->second->words[1], found->second->where));
  }
  return labels;
}

}  // namespace

std::optional<std::vector<std::string>> read_class_list(const fs::path& root) {
  const fs::path file = root / "classes.txt";
  if (!fs::exists(file)) return std::nullopt;
  std::vector<std::string> names;
  std::set<std::string> known;
  for (const Line& line : lines_of(file)) {
    if (!known.insert(line.words[0]).second) {
      throw SpecError(cat(line.where, ": class \"", line.words[0], "\" comes twice"));
    }
    names.push_back(line.words[0]);
  }
  if (names.empty()) throw SpecError(cat(file.string(), ": expected a class a line, found none"));
  return names;
}

std::vector<std::string> label_file_names() {
  return {"val_labels.txt", "val_labels.csv", "LOC_val_solution.csv",
          "imagenet_2012_validation_synset_labels.txt", kGroundTruth};
}

std::optional<fs::path> find_label_file(const fs::path& root, const fs::path& part) {
  for (const fs::path& folder : {root, part}) {
    for (const std::string& name : label_file_names()) {
      if (fs::is_regular_file(folder / name)) return folder / name;
    }
  }
  return std::nullopt;
}

std::vector<std::uint32_t> label_flat_images(const fs::path& label_file,
                                             std::span<const std::string> images,
                                             std::span<const std::string> classes) {
  const ClassReader class_of(label_file, classes);
  std::vector<Line> lines = lines_of(label_file);
  if (!lines.empty() && is_heading(lines.front())) lines.erase(lines.begin());
  const bool with_names = !lines.empty() && lines.front().words.size() > 1;
  for (const Line& line : lines) {
    if ((line.words.size() > 1) != with_names) {
      throw SpecError(cat(line.where, ": expected ", with_names ? "a name and a class" : "one word",
                          ", as in the first line"));
    }
  }
  return with_names ? labels_by_name(label_file, lines, images, class_of)
                    : labels_in_order(label_file, lines, images.size(), class_of);
}

}  // namespace ablate

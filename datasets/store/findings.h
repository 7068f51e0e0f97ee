#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace ablate {

class IndexBuilder;

/// What is odd about the files of a data set, by kind ("not an image file"): counted and named, so
/// that nothing is dropped in silence. Value type.
class Findings {
 public:
  void add(std::string_view kind, std::string what);
  void add(const Findings& others);

  bool empty() const { return kinds_.empty(); }
  std::size_t count(std::string_view kind) const;
  const std::map<std::string, std::vector<std::string>, std::less<>>& kinds() const {
    return kinds_;
  }
  /// "KIND: COUNT: a, b, c and N more".
  std::string line(std::string_view kind) const;
  /// A warning for each kind, `where` at its beginning.
  void log(std::string_view where) const;

  nlohmann::json json() const;
  /// Throws nlohmann's exceptions.
  static Findings from_json(const nlohmann::json& json);

 private:
  std::map<std::string, std::vector<std::string>, std::less<>> kinds_;
};

// Kinds that several makers use.
inline constexpr std::string_view kNoImage = "not an image file, left out";
inline constexpr std::string_view kUnreadable = "cannot be read";
inline constexpr std::string_view kUndecodable = "cannot be decoded";
inline constexpr std::string_view kOtherExtension = "another format than its name says";
inline constexpr std::string_view kSameName = "same name twice";
inline constexpr std::string_view kEmptyClass = "class without an image";

/// Adds the classes without a sample.
void note_empty_classes(const IndexBuilder& index, Findings& findings);

/// The first few of a list and how many more there are.
std::string some_of(const std::vector<std::string>& names);

}  // namespace ablate

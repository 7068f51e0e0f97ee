#include "datasets/store/findings.h"

#include <nlohmann/json.hpp>

#include "datasets/store/sample_index.h"
#include "runner/core/log.h"
#include "runner/core/text.h"

namespace ablate {

void Findings::add(std::string_view kind, std::string what) {
  auto found = kinds_.find(kind);
  if (found == kinds_.end()) found = kinds_.emplace(kind, std::vector<std::string>()).first;
  found->second.push_back(std::move(what));
}

void Findings::add(const Findings& others) {
  for (const auto& [kind, names] : others.kinds_) {
    for (const std::string& name : names) add(kind, name);
  }
}

std::size_t Findings::count(std::string_view kind) const {
  const auto found = kinds_.find(kind);
  return found == kinds_.end() ? 0 : found->second.size();
}

std::string Findings::line(std::string_view kind) const {
  const auto found = kinds_.find(kind);
  if (found == kinds_.end()) return cat(kind, ": none");
  return cat(kind, ": ", found->second.size(), ": ", some_of(found->second));
}

void Findings::log(std::string_view where) const {
  for (const auto& [kind, names] : kinds_) log_warning(cat(where, ": ", line(kind)));
}

nlohmann::json Findings::json() const { return kinds_; }

Findings Findings::from_json(const nlohmann::json& json) {
  Findings findings;
  for (const auto& [kind, names] : json.items()) {
    for (const auto& name : names) findings.add(kind, name.get<std::string>());
  }
  return findings;
}

void note_empty_classes(const IndexBuilder& index, Findings& findings) {
  std::vector<bool> seen(index.head.classes.size());
  for (const SampleEntry& entry : index.entries()) seen[entry.label] = true;
  for (std::size_t i = 0; i < seen.size(); ++i) {
    if (!seen[i]) findings.add(kEmptyClass, index.head.classes[i]);
  }
}

std::string some_of(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 8;
  if (names.size() <= kShown) return join(names);
  const std::vector<std::string> first(names.begin(), names.begin() + kShown);
  return cat(join(first), " and ", names.size() - kShown, " more");
}

}  // namespace ablate

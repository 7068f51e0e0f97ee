#include "runner/cli/method_pairs.h"

#include <algorithm>
#include <cstddef>

#include <nlohmann/json.hpp>

#include "results/text_grid.h"
#include "runner/core/error.h"

namespace ablate::cli {

std::vector<std::string> pair_lines(const nlohmann::json& pairs) {
  std::vector<std::string> names, reasons;
  for (const auto& [name, others] : pairs.items()) names.push_back(name);
  const auto mark = [&](const std::string& reason) {
    if (reason.empty()) return std::string("+");
    auto found = std::ranges::find(reasons, reason);
    if (found == reasons.end()) found = reasons.insert(reasons.end(), reason);
    return cat(found - reasons.begin() + 1);
  };
  std::vector<std::vector<std::string>> grid;
  for (std::size_t row = 0; row < names.size(); ++row) {
    grid.push_back({cat(static_cast<char>('a' + row % 26), " ", names[row])});
    for (std::size_t column = 0; column < row; ++column) {
      grid.back().push_back(mark(pairs.at(names[column]).at(names[row]).get<std::string>()));
    }
  }
  grid.emplace_back(std::vector<std::string>{""});
  for (std::size_t column = 0; column + 1 < names.size(); ++column) {
    grid.back().push_back(std::string(1, static_cast<char>('a' + column % 26)));
  }
  std::vector<std::string> lines = grid_lines(grid, {});
  lines.emplace_back("+ works together");
  for (std::size_t i = 0; i < reasons.size(); ++i) {
    lines.push_back(cat(i + 1, " ", reasons[i]));
  }
  return lines;
}

}  // namespace ablate::cli

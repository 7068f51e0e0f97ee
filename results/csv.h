#pragma once

#include <string>
#include <vector>

namespace ablate {

/// One line of a CSV file (RFC 4180): fields are quoted where needed, quotes doubled.
std::string csv_line(const std::vector<std::string>& fields);

}  // namespace ablate

#include "results/csv.h"

#include "runner/core/text.h"

namespace ablate {
namespace {

std::string field(const std::string& text) {
  if (text.find_first_of(",\"\n\r") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

}  // namespace

std::string csv_line(const std::vector<std::string>& fields) {
  std::vector<std::string> escaped;
  for (const std::string& text : fields) escaped.push_back(field(text));
  return join(escaped, ",") + "\n";
}

}  // namespace ablate

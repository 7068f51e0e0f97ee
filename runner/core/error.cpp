#include "runner/core/error.h"

namespace ablate {

void check_failed(const char* condition, const std::string& message, std::source_location where) {
  throw BugError(cat(where.file_name(), ":", where.line(), ": check failed: ", condition,
                     message.empty() ? "" : ": ", message));
}

}  // namespace ablate

#include "runner/worker/spec_file.h"

#include <nlohmann/json.hpp>

#include "runner/core/error.h"
#include "runner/core/files.h"
#include "runner/train/spec_resolver.h"

namespace ablate {

RunSpec load_spec(const std::filesystem::path& file, const std::vector<std::string>& overrides,
                  Environment& environment, int ranks) {
  if (file.extension() == ".json") {
    if (!overrides.empty()) {
      throw SpecError("a resolved spec (.json) takes no overrides: it is an identity");
    }
    return RunSpec::from_json(nlohmann::json::parse(read_file(file)));
  }
  Value draft = read_toml(file);
  for (const std::string& assignment : overrides) {
    auto [path, value] = parse_override(assignment);
    draft.set_path(path, std::move(value));
  }
  const ResolvedRun resolved = resolve_run(draft, {}, environment.data, ranks);
  environment.init_file = resolved.init_file;
  environment.teacher_file = resolved.teacher_file;
  return resolved.spec;
}

}  // namespace ablate

#include "runner/cli/store_access.h"

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <iomanip>
#include <sstream>

#include "runner/core/error.h"

namespace ablate {
namespace {

bool is_id(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

}  // namespace

std::unique_ptr<ResultStore> open_store(const Workspace& workspace, ResultStore::Mode mode) {
  if (!std::filesystem::exists(workspace.database)) {
    throw SpecError(cat("there is no database ", workspace.database.string(),
                        ": run `ablate sweep FILE` first, or name another one by --out or --db"));
  }
  return std::make_unique<ResultStore>(workspace.database, mode);
}

std::string find_run(ResultStore& store, const std::string& text) {
  if (is_id(text)) return store.find_run(text);
  std::vector<std::string> names;
  for (const SweepLine& sweep : list_sweeps(store)) {
    for (const RunLine& line : sweep_runs(store, sweep.name)) {
      if (run_name(line) == text) return line.run_uid;
      names.push_back(run_name(line));
    }
  }
  throw SpecError(cat("no run \"", text,
                      "\": the beginning of an id or \"LABEL seed N\" is expected",
                      suggestion(text, names)));
}

std::string short_id(const std::string& run_uid) { return run_uid.substr(0, 8); }

std::string clock_text(std::optional<std::int64_t> microseconds) {
  if (!microseconds) return "";
  const std::time_t time = *microseconds / 1'000'000;
  std::tm local{};
  ::localtime_r(&time, &local);
  std::ostringstream out;
  out << std::put_time(&local, "%Y-%m-%d %H:%M");
  return out.str();
}

}  // namespace ablate

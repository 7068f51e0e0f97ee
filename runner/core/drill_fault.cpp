#include "runner/core/drill_fault.h"

#include <algorithm>
#include <array>
#include <utility>

#include <nlohmann/json.hpp>

#include "runner/core/error.h"
#include "runner/core/files.h"

namespace ablate {
namespace {

using nlohmann::json;

constexpr std::array<std::pair<DrillKind, std::string_view>, 8> kKinds = {
    {{DrillKind::Kill, "kill"},
     {DrillKind::Hang, "hang"},
     {DrillKind::OutOfMemory, "oom"},
     {DrillKind::Nan, "nan"},
     {DrillKind::FullDisk, "disk"},
     {DrillKind::Term, "term"},
     {DrillKind::Usr1, "usr1"},
     {DrillKind::Slow, "slow"}}};

DrillKind kind_of(const std::string& name) {
  for (const auto& [kind, known] : kKinds) {
    if (known == name) return kind;
  }
  throw SpecError(cat("no fault is called \"", name, "\""));
}

}  // namespace

std::string_view drill_kind_name(DrillKind kind) {
  const auto* const found = std::find_if(kKinds.begin(), kKinds.end(),
                                         [&](const auto& entry) { return entry.first == kind; });
  ABLATE_CHECK(found != kKinds.end());
  return found->second;
}

std::filesystem::path drill_file(const std::filesystem::path& out) { return out / "drill.json"; }

void write_drill_fault(const std::filesystem::path& file, const DrillFault& fault) {
  const json text = {{"fault", drill_kind_name(fault.kind)},
                     {"run", fault.run},
                     {"attempt", fault.attempt},
                     {"rank", fault.rank},
                     {"step", fault.step}};
  write_file_atomic(file, text.dump(1) + "\n");
}

DrillFault read_drill_fault(const std::filesystem::path& file) {
  if (!std::filesystem::is_regular_file(file)) {
    throw SpecError(cat(file.string(),
                        ": no such file; a fault as `ablate drill` plans it is "
                        "expected"));
  }
  try {
    const json text = json::parse(read_file(file));
    return {.kind = kind_of(text.at("fault").get<std::string>()),
            .run = text.at("run").get<std::string>(),
            .attempt = text.at("attempt").get<int>(),
            .rank = text.at("rank").get<int>(),
            .step = text.at("step").get<std::int64_t>()};
  } catch (const std::exception& error) {
    throw SpecError(cat(file.string(), ": not a fault as `ablate drill` plans it: ", error.what()));
  }
}

}  // namespace ablate

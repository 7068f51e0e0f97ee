#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace ablate {

/// What a rank does to itself in a drill.
enum class DrillKind {
  Kill,         ///< ends by SIGKILL
  Hang,         ///< never comes to the next collective
  OutOfMemory,  ///< asks for more memory than its device can have
  Nan,          ///< loses its weights: the loss is not finite
  FullDisk,     ///< can write no checkpoint any more
  Term,         ///< gets SIGTERM
  Usr1,         ///< gets SIGUSR1
  Slow,         ///< takes a quarter of a second longer for each step, so that others can act
};

std::string_view drill_kind_name(DrillKind kind);

/// A fault that `ablate drill` plans for one rank of one attempt at one run. It lies in the output
/// folder of the drill (drill_file), names the run by its id, and so can hit nothing else.
struct DrillFault {
  DrillKind kind = DrillKind::Kill;
  std::string run;  ///< id
  int attempt = 1;
  int rank = 0;
  std::int64_t step = 0;  ///< it comes after so many optimizer steps

  bool operator==(const DrillFault&) const = default;
};

/// OUT/drill.json
std::filesystem::path drill_file(const std::filesystem::path& out);

void write_drill_fault(const std::filesystem::path& file, const DrillFault& fault);
/// Throws SpecError when the file is not there or is none that write_drill_fault() wrote.
DrillFault read_drill_fault(const std::filesystem::path& file);

}  // namespace ablate

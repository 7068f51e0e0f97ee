#pragma once

#include <filesystem>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "methods/kernels/gemm.h"

namespace ablate {

class Communicator;

/// Which algorithm each matrix product uses, for all runs of an output folder: the file
/// OUT/gemm/<platform>.json. Algorithms are chosen by timing, so two choices may differ, and with
/// them the last bits of results; the record, which checkpoints carry too, makes them repeat.
class GemmRecord {
 public:
  /// Reads what is there; a damaged file is as good as none. Rank 0's record becomes that of all.
  GemmRecord(const std::filesystem::path& out, const std::string& platform, Communicator& world);

  const kernels::GemmChoices& choices() const { return choices_; }

  /// Takes up the choices for shapes not yet recorded, writes the file (rank 0) and returns all,
  /// equal on all ranks. Collective.
  const kernels::GemmChoices& settle(const kernels::GemmChoices& found);

  /// For a checkpoint: choices and the platform they are valid for.
  nlohmann::json save() const;
  /// Choices of a checkpoint take precedence. Those of another platform are left out with a
  /// warning: the run goes on, equal within rounding.
  void load(const nlohmann::json& saved);

 private:
  std::filesystem::path file_;
  std::string platform_;
  Communicator& world_;
  kernels::GemmChoices choices_;
};

}  // namespace ablate

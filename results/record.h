#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace ablate {

/// Version of the record formats below, in every spool header. Readers accept this and older ones;
/// frames of a type they do not know are skipped and counted.
inline constexpr int kSpoolSchemaVersion = 1;

/// First record of every spool file. `attempt` counts from 1; bench jobs of a run count down from
/// 0 and never touch its state. `first_step` is the smallest step this attempt writes points for:
/// points of earlier attempts at or after it are dropped.
struct SpoolHeader {
  std::string spool_uid{};  ///< names the file for ever; the writer fills in an empty one
  std::string run_uid{};
  int attempt = 1;
  int rank = 0;
  int schema_version = kSpoolSchemaVersion;
  std::int64_t first_step = 0;
  std::int64_t start_us = 0;  ///< since 1970; the writer fills in 0
};

enum class Better : std::int8_t { Lower = -1, Neither = 0, Higher = 1 };
enum class MetricKind : std::uint8_t { Deterministic = 0, Timing = 1 };
/// Which point of a series stands in tables. MeanLastK averages the last kFinalMeanPoints points.
enum class FinalRule : std::uint8_t { Last = 0, Max = 1, Min = 2, MeanLastK = 3 };
inline constexpr int kFinalMeanPoints = 5;

/// Introduces a metric under an id that is local to its spool. `per_rank` metrics form one series a
/// rank; the others are already reduced over ranks and come from rank 0 alone.
struct MetricDef {
  std::uint32_t id = 0;
  std::string name{}, unit{};
  Better better = Better::Neither;
  MetricKind kind = MetricKind::Deterministic;
  FinalRule final_rule = FinalRule::Last;
  bool per_rank = false;
};

struct Point {
  std::uint32_t metric = 0;  ///< MetricDef::id
  std::int64_t step = 0;
  double value = 0;
};

/// Points in the order they were logged. A later point of the same metric and step replaces an
/// earlier one.
struct Points {
  std::vector<Point> points{};
};

/// A rare, human-readable fact: surgery, prune, resume, hang report. `body` is JSON text. The one
/// of kind "finalized" names the finished model's "structure_hash": bench rows are found by it.
struct Event {
  std::int64_t step = 0;
  std::int64_t t_us = 0;
  std::string kind{}, body{};
};

/// One bit per evaluation item, item i in bit i % 8 of byte i / 8 (1 = right).
struct SampleBits {
  std::string kind{};
  std::int64_t step = 0;
  std::int64_t n = 0;
  std::string bits{};
};

/// Facts of an attempt as one JSON object. Keys are the column names of the tables they end in:
/// Environment - world_size, micro_batch, grad_accum, threads, runs_in_process, slurm_job;
/// Toolchain - git_commit, git_dirty, git_diff, libtorch, cuda, cudnn, nccl, driver, mpi, compiler;
/// Machine - hostname, gpu_model, gpu_uuid, gpu_mem_bytes, cpu, cores, nic, fs_type, sm_clock_mhz,
/// power_limit_w, ecc; Data - n, fingerprint; Lineage - per role the weights_sha256 it began from
/// ("init", "teacher"). Other keys are kept in the attempt's events.
enum class FactKind : std::uint8_t { Environment, Toolchain, Machine, Data, Lineage };
struct Facts {
  FactKind kind = FactKind::Environment;
  std::string json{};
};

struct CheckpointNote {
  std::int64_t step = 0;
  std::string path{};
  std::int64_t bytes = 0;
  std::string manifest_sha256{}, structure_hash{};
  bool deployable = false;
};

/// One row of the bench table as JSON; keys are its column names (without the ids of toolchain and
/// machine, which are those of the attempt).
struct BenchNote {
  std::string json{};
};

/// A number the run itself declares final (the evaluation of the finalized model, parameters,
/// MACs). It takes precedence over the metric's final rule.
struct FinalValue {
  std::uint32_t metric = 0;
  std::int64_t step = 0;
  double value = 0;
};

enum class OutcomeState : std::uint8_t { Done, Interrupted, Diverged, Failed, Transient };

/// How an attempt ended. `cause` is one of: finished, preempted, walltime, oom, nan, hang, node,
/// user, bug, killed.
struct Outcome {
  OutcomeState state = OutcomeState::Done;
  std::string cause = "finished";
  std::string detail{};
  std::int64_t last_step = 0;
  std::int64_t images_seen = 0;  ///< by this run up to last_step, without its parents
  std::int64_t end_us = 0;       ///< since 1970; the writer fills in 0
  int exit_code = 0;
};

/// Last frame of a spool that was closed in order: nothing follows.
struct Seal {
  std::uint64_t points = 0;  ///< logged over the life of the file
};

/// A frame of a type that this version does not know.
struct UnknownRecord {
  std::uint16_t type = 0;
};

using Record = std::variant<SpoolHeader, MetricDef, Points, Event, SampleBits, Facts,
                            CheckpointNote, BenchNote, FinalValue, Outcome, Seal, UnknownRecord>;

std::string_view name_of(FactKind kind);
std::string_view name_of(MetricKind kind);
std::string_view name_of(FinalRule rule);
std::string_view name_of(OutcomeState state);

/// Microseconds since 1970: the time stamps of all records.
std::int64_t now_us();

/// Whether the schema takes `cause` for an attempt.
bool is_known_cause(std::string_view cause);

}  // namespace ablate

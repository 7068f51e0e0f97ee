#include "results/attempt_facts.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "runner/core/error.h"
#include "runner/core/hash.h"

namespace ablate {
namespace {

using nlohmann::json;

const std::vector<std::string> kToolchain = {"git_commit", "git_dirty", "git_diff", "libtorch",
                                             "cuda",       "cudnn",     "nccl",     "driver",
                                             "mpi",        "compiler"};
const std::vector<std::string> kMachine = {
    "hostname", "gpu_model", "gpu_uuid",     "gpu_mem_bytes", "cpu", "cores",
    "nic",      "fs_type",   "sm_clock_mhz", "power_limit_w", "ecc"};
const std::vector<std::string> kEnvironment = {"world_size", "micro_batch",     "grad_accum",
                                               "threads",    "runs_in_process", "slurm_job"};
const std::vector<std::string> kBench = {
    "structure_hash", "baseline_hash", "protocol",    "device", "dtype",      "batch",
    "resolution",     "images_per_s",  "p50_ms",      "p99_ms", "peak_bytes", "joules_per_image",
    "macs",           "params",        "reps",        "spread", "threads",    "max_batch",
    "memory_budget",  "ratio",         "ratio_spread"};
const std::vector<std::string> kData = {"n", "fingerprint"};
const std::vector<std::string> kLineage = {"init", "teacher"};

json parse_object(const std::string& text, std::string_view what) {
  json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object())
    throw SpecError(cat(what, " is not a JSON object: ", text.substr(0, 80)));
  return object;
}

// STRICT tables refuse a value of the wrong type; a fact of one becomes an SQLite error that names
// the column, so only true JSON types are converted here.
void bind_json(SQLite::Statement& statement, int i, const json& value) {
  if (value.is_null()) return statement.bind(i);
  if (value.is_boolean()) return bind_value(statement, i, value.get<bool>() ? 1 : 0);
  if (value.is_number_integer()) return bind_value(statement, i, value.get<std::int64_t>());
  if (value.is_number()) return bind_value(statement, i, value.get<double>());
  if (value.is_string()) return bind_value(statement, i, value.get<std::string>());
  bind_value(statement, i, value.dump());
}

json column(const json& object, const std::string& name) {
  const auto found = object.find(name);
  return found == object.end() ? json() : *found;
}

// The row of a table of distinct things (toolchain, machine), made when new.
std::int64_t id_of(SQLite::Database& db, const std::string& table,
                   const std::vector<std::string>& columns, const json& object) {
  json known = json::object();
  for (const std::string& name : columns) known[name] = column(object, name);
  const std::string hash = hash128_hex(known.dump());
  SQLite::Statement insert(
      db, cat(
              "INSERT OR IGNORE INTO ", table, "(hash, ", join(columns), ") VALUES (?",
              [&] {
                std::string marks;
                for (std::size_t i = 0; i < columns.size(); ++i) marks += ", ?";
                return marks;
              }(),
              ")"));
  insert.bind(1, hash);
  int i = 2;
  for (const std::string& name : columns) {
    if (name == "git_diff" && known[name].is_string()) {
      bind_value(insert, i++, Blob{known[name].get_ref<const std::string&>()});
    } else {
      bind_json(insert, i++, known[name]);
    }
  }
  insert.exec();
  return *query_integer(db, cat("SELECT ", table, "_id FROM ", table, " WHERE hash = ?"), hash);
}

std::string without(json object, const std::vector<std::string>& columns) {
  for (const std::string& name : columns) object.erase(name);
  return object.empty() ? std::string() : object.dump();
}

// Rank 0's word counts; another rank's fills what is still unknown.
void set_environment(SQLite::Database& db, const AttemptKey& key, const json& object) {
  for (const std::string& name : kEnvironment) {
    if (!object.contains(name)) continue;
    const std::string value = key.rank == 0 ? "?" : cat("coalesce(", name, ", ?)");
    SQLite::Statement update(
        db, cat("UPDATE attempt SET ", name, " = ", value, " WHERE attempt_id = ?"));
    bind_json(update, 1, object[name]);
    bind_value(update, 2, key.attempt);
    update.exec();
  }
}

void set_toolchain(SQLite::Database& db, const AttemptKey& key, const json& object) {
  const std::int64_t id = id_of(db, "toolchain", kToolchain, object);
  execute(db,
          cat("UPDATE attempt SET toolchain_id = ",
              key.rank == 0 ? "?" : "coalesce(toolchain_id, ?)", " WHERE attempt_id = ?"),
          id, key.attempt);
}

void set_data(SQLite::Database& db, const AttemptKey& key, const json& object) {
  const json fingerprint = column(object, "fingerprint");
  if (!fingerprint.is_string()) throw SpecError("data facts have no fingerprint");
  const auto text = fingerprint.get<std::string>();
  execute(db, "UPDATE attempt SET data_fingerprint = ? WHERE attempt_id = ?", text, key.attempt);
  auto known = prepare(db,
                       "SELECT d.dataset_id, d.name, d.fingerprint FROM dataset d "
                       "JOIN run USING(dataset_id) WHERE run_id = ?",
                       key.run);
  if (!known.executeStep()) return;
  const std::int64_t dataset = known.getColumn(0).getInt64();
  if (known.getColumn(2).isNull()) {
    SQLite::Statement update(db, "UPDATE dataset SET fingerprint = ?, n = ? WHERE dataset_id = ?");
    update.bind(1, text);
    bind_json(update, 2, column(object, "n"));
    bind_value(update, 3, dataset);
    update.exec();
  } else if (known.getColumn(2).getString() != text) {
    throw SpecError(cat("data set ", known.getColumn(1).getString(), " has fingerprint ", text,
                        " here and ", known.getColumn(2).getString(),
                        " elsewhere: these are different data under one name"));
  }
}

void set_lineage(SQLite::Database& db, const AttemptKey& key, const json& object) {
  for (const std::string& role : kLineage) {
    if (!object.contains(role)) continue;
    SQLite::Statement update(
        db, "UPDATE run_edge SET weights_sha256 = ? WHERE run_id = ? AND role = ?");
    bind_json(update, 1, object[role]);
    bind_value(update, 2, key.run);
    bind_value(update, 3, role);
    update.exec();
  }
}

}  // namespace

std::string store_facts(SQLite::Database& db, const AttemptKey& key, const Facts& facts) {
  const json object = parse_object(facts.json, cat(name_of(facts.kind), " facts"));
  switch (facts.kind) {
    case FactKind::Environment:
      set_environment(db, key, object);
      return without(object, kEnvironment);
    case FactKind::Toolchain:
      set_toolchain(db, key, object);
      return without(object, kToolchain);
    case FactKind::Machine:
      execute(db, "INSERT OR REPLACE INTO attempt_rank VALUES (?, ?, ?)", key.attempt, key.rank,
              id_of(db, "machine", kMachine, object));
      return without(object, kMachine);
    case FactKind::Data:
      set_data(db, key, object);
      return without(object, kData);
    case FactKind::Lineage:
      set_lineage(db, key, object);
      return without(object, kLineage);
  }
  check_failed("known FactKind", "");
}

void store_bench(SQLite::Database& db, const AttemptKey& key, const BenchNote& note,
                 const std::string& origin, std::int64_t measured_us) {
  const json object = parse_object(note.json, "a bench note");
  if (!column(object, "structure_hash").is_string() || !column(object, "protocol").is_string())
    throw SpecError("a bench note needs structure_hash and protocol");
  execute(db,
          "INSERT OR IGNORE INTO bench(structure_hash, protocol, toolchain_id, machine_id, origin, "
          "measured_us) "
          "VALUES ('', '', (SELECT toolchain_id FROM attempt WHERE attempt_id = ?1), "
          "(SELECT machine_id FROM attempt_rank WHERE attempt_id = ?1 AND rank = ?2), ?3, ?4)",
          key.attempt, key.rank, origin, measured_us);
  SQLite::Statement update(
      db, cat("UPDATE bench SET ", join(kBench, " = ?, "), " = ? WHERE origin = ?"));
  int i = 1;
  for (const std::string& name : kBench) bind_json(update, i++, column(object, name));
  update.bind(i, origin);
  update.exec();
}

}  // namespace ablate

#include "results/status.h"

#include "results/sqlite.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

// The last attempt of a run by its number, one index lookup a run. A run outside the sweep has no
// label.
std::string run_lines_sql(const std::string& from, const std::string& condition,
                          const std::string& order) {
  return cat(
      "SELECT run.run_uid, coalesce(sv.label, ''), d.name, run.seed, run.state, "
      "(SELECT count(*) FROM attempt x WHERE x.run_id = run.run_id AND x.n > 0), "
      "coalesce(a.cause, ''), coalesce(a.detail, ''), a.start_us, a.end_us, a.last_step ",
      from,
      " JOIN dataset d ON d.dataset_id = run.dataset_id LEFT JOIN attempt a ON "
      "a.run_id = run.run_id AND a.n = (SELECT max(n) FROM attempt x WHERE x.run_id = run.run_id) "
      "AND a.n > 0 WHERE ",
      condition, order);
}

RunLine run_line(SQLite::Statement& row) {
  RunLine line;
  line.run_uid = row.getColumn(0).getString();
  line.label = row.getColumn(1).getString();
  line.dataset = row.getColumn(2).getString();
  line.seed = static_cast<std::uint64_t>(row.getColumn(3).getInt64());
  line.state = row.getColumn(4).getString();
  line.attempts = row.getColumn(5).getInt();
  line.cause = row.getColumn(6).getString();
  line.detail = row.getColumn(7).getString();
  line.start_us = integer_or_null(row.getColumn(8));
  line.end_us = integer_or_null(row.getColumn(9));
  line.last_step = integer_or_null(row.getColumn(10));
  return line;
}

[[noreturn]] void no_sweep(ResultStore& store, const std::string& name) {
  std::vector<std::string> names;
  for (const SweepLine& line : list_sweeps(store)) names.push_back(line.name);
  throw SpecError(
      cat("no sweep \"", name, "\" in ", store.file().string(), suggestion(name, names)));
}

std::vector<RunLine> lines_of_sweep(ResultStore& store, const std::string& sweep,
                                    const std::string& condition) {
  return with_database_errors(store.file(), [&] {
    SQLite::Database& db = store.database();
    const auto id = query_integer(db, "SELECT sweep_id FROM sweep WHERE name = ?", sweep);
    if (!id) no_sweep(store, sweep);
    auto rows = prepare(db,
                        run_lines_sql("FROM sweep_run sr JOIN run ON run.run_id = sr.run_id "
                                      "LEFT JOIN sweep_variant sv ON sv.sweep_id = sr.sweep_id "
                                      "AND sv.variant_id = run.variant_id",
                                      cat("sr.sweep_id = ?", condition),
                                      " ORDER BY run.seed, sv.position, run.run_id"),
                        *id);
    std::vector<RunLine> lines;
    while (rows.executeStep()) lines.push_back(run_line(rows));
    return lines;
  });
}

template <typename T, typename Read>
std::vector<T> collect(SQLite::Statement rows, Read read) {
  std::vector<T> list;
  while (rows.executeStep()) list.push_back(read(rows));
  return list;
}

std::string text(SQLite::Statement& row, int i) { return row.getColumn(i).getString(); }

/// Every known fact of an attempt under the name of its column.
std::vector<std::pair<std::string, std::string>> environment_of(SQLite::Database& db,
                                                                std::int64_t attempt) {
  auto row = prepare(
      db,
      "SELECT m.cpu AS CPU, m.cores AS cores, m.gpu_model AS GPU, m.nic AS NIC, "
      "m.fs_type AS \"file system\", t.libtorch AS LibTorch, t.cuda AS CUDA, t.cudnn AS cuDNN, "
      "t.nccl AS NCCL, t.driver AS driver, t.mpi AS MPI, t.compiler AS compiler, "
      "t.git_commit || CASE WHEN t.git_dirty THEN ' (modified)' ELSE '' END AS \"commit\", "
      "a.micro_batch AS \"micro-batch\", a.grad_accum AS accumulation, "
      "a.runs_in_process AS \"runs in the process\", a.slurm_job AS \"Slurm job\", "
      "a.data_fingerprint AS data FROM attempt a LEFT JOIN toolchain t USING(toolchain_id) "
      "LEFT JOIN attempt_rank r ON r.attempt_id = a.attempt_id AND r.rank = 0 "
      "LEFT JOIN machine m USING(machine_id) WHERE a.attempt_id = ?",
      attempt);
  std::vector<std::pair<std::string, std::string>> facts;
  if (!row.executeStep()) return facts;
  for (int i = 0; i < row.getColumnCount(); ++i) {
    const std::string value = text(row, i);
    if (!value.empty()) facts.emplace_back(row.getColumnName(i), value);
  }
  return facts;
}

std::vector<AttemptInfo> attempts_of(SQLite::Database& db, std::int64_t run) {
  return collect<AttemptInfo>(
      prepare(db,
              "SELECT n, coalesce(outcome, ''), coalesce(cause, ''), coalesce(detail, ''), "
              "first_step, last_step, start_us, end_us, world_size, threads, "
              "(SELECT group_concat(DISTINCT hostname) FROM attempt_rank JOIN machine "
              "USING(machine_id) WHERE attempt_id = a.attempt_id), attempt_id "
              "FROM attempt a WHERE run_id = ? ORDER BY n",
              run),
      [&](SQLite::Statement& row) {
        const auto number = [&](int i) { return integer_or_null(row.getColumn(i)); };
        return AttemptInfo{row.getColumn(0).getInt(),
                           text(row, 1),
                           text(row, 2),
                           text(row, 3),
                           number(4),
                           number(5),
                           number(6),
                           number(7),
                           number(8),
                           number(9),
                           text(row, 10),
                           environment_of(db, row.getColumn(11).getInt64())};
      });
}

std::vector<EventInfo> events_of(SQLite::Database& db, std::int64_t run) {
  return collect<EventInfo>(
      prepare(db,
              "SELECT n, rank, step, t_us, kind, coalesce(body_json, '') FROM event "
              "JOIN attempt USING(attempt_id) WHERE run_id = ? ORDER BY n, t_us, rank, seq",
              run),
      [](SQLite::Statement& row) {
        return EventInfo{row.getColumn(0).getInt(),
                         row.getColumn(1).getInt(),
                         row.getColumn(2).getInt64(),
                         row.getColumn(3).getInt64(),
                         text(row, 4),
                         text(row, 5)};
      });
}

std::vector<FinalInfo> finals_of(SQLite::Database& db, std::int64_t run) {
  return collect<FinalInfo>(
      prepare(db,
              "SELECT name, coalesce(unit, ''), f.value, f.step, CASE WHEN d.run_id IS NULL THEN "
              "final_rule ELSE 'declared' END FROM final f JOIN metric USING(metric_id) "
              "LEFT JOIN declared_final d ON d.run_id = f.run_id AND d.metric_id = f.metric_id "
              "WHERE f.run_id = ? ORDER BY name",
              run),
      [](SQLite::Statement& row) {
        return FinalInfo{text(row, 0), text(row, 1), number_or_null(row.getColumn(2)),
                         row.getColumn(3).getInt64(), text(row, 4)};
      });
}

std::vector<CheckpointInfo> checkpoints_of(SQLite::Database& db, std::int64_t run) {
  return collect<CheckpointInfo>(
      prepare(db,
              "SELECT step, coalesce(bytes, 0), path, coalesce(structure_hash, ''), deployable "
              "FROM checkpoint WHERE run_id = ? ORDER BY step",
              run),
      [](SQLite::Statement& row) {
        return CheckpointInfo{row.getColumn(0).getInt64(), row.getColumn(1).getInt64(),
                              text(row, 2), text(row, 3), row.getColumn(4).getInt() != 0};
      });
}

std::vector<RunDetail::Relative> relatives_of(SQLite::Database& db, std::int64_t run,
                                              const std::string& self, const std::string& other) {
  return collect<RunDetail::Relative>(
      prepare(db,
              cat("SELECT role, run_uid, state, coalesce(weights_sha256, '') FROM run_edge e "
                  "JOIN run r ON r.run_id = e.",
                  other, " WHERE e.", self, " = ? ORDER BY role, run_uid"),
              run),
      [](SQLite::Statement& row) {
        return RunDetail::Relative{text(row, 0), text(row, 1), text(row, 2), text(row, 3)};
      });
}

std::vector<RegisteredRun::Method> methods_of(SQLite::Database& db, std::int64_t variant) {
  return collect<RegisteredRun::Method>(
      prepare(db,
              "SELECT name, origin = 'parent' FROM variant_method WHERE variant_id = ? "
              "ORDER BY position",
              variant),
      [](SQLite::Statement& row) {
        return RegisteredRun::Method{text(row, 0), row.getColumn(1).getInt() != 0};
      });
}

std::vector<std::string> sweeps_of(SQLite::Database& db, std::int64_t run) {
  return collect<std::string>(
      prepare(
          db,
          "SELECT name FROM sweep_run JOIN sweep USING(sweep_id) WHERE run_id = ? ORDER BY name",
          run),
      [](SQLite::Statement& row) { return text(row, 0); });
}

}  // namespace

std::string run_name(const RunLine& line) {
  return cat(line.label.empty() ? line.dataset : line.label, " seed ", line.seed);
}

std::vector<RunLine> sweep_runs(ResultStore& store, const std::string& sweep) {
  return lines_of_sweep(store, sweep, "");
}

std::vector<RunLine> sweep_holes(ResultStore& store, const std::string& sweep) {
  return lines_of_sweep(store, sweep, " AND run.run_id IN (SELECT run_id FROM v_holes)");
}

std::vector<SweepLine> list_sweeps(ResultStore& store) {
  return with_database_errors(store.file(), [&] {
    auto rows = prepare(store.database(),
                        "SELECT s.name, s.created_us, r.state, count(r.run_id) FROM sweep s "
                        "LEFT JOIN sweep_run USING(sweep_id) LEFT JOIN run r USING(run_id) "
                        "GROUP BY s.sweep_id, r.state ORDER BY s.sweep_id");
    std::vector<SweepLine> lines;
    while (rows.executeStep()) {
      const std::string name = rows.getColumn(0).getString();
      if (lines.empty() || lines.back().name != name)
        lines.push_back({name, rows.getColumn(1).getInt64(), {}});
      if (!rows.isColumnNull(2))
        lines.back().runs_by_state[rows.getColumn(2).getString()] = rows.getColumn(3).getInt();
    }
    return lines;
  });
}

SweepLine find_sweep(ResultStore& store, const std::string& name) {
  for (SweepLine& line : list_sweeps(store)) {
    if (line.name == name) return std::move(line);
  }
  no_sweep(store, name);
}

RunDetail describe_run(ResultStore& store, const std::string& run_uid) {
  return with_database_errors(store.file(), [&] {
    SQLite::Database& db = store.database();
    RunDetail detail;
    auto line = prepare(db,
                        run_lines_sql("FROM run LEFT JOIN sweep_variant sv ON "
                                      "sv.variant_id = run.variant_id",
                                      "run.run_uid = ?", " ORDER BY sv.sweep_id DESC LIMIT 1"),
                        run_uid);
    if (!line.executeStep()) throw SpecError(cat("no run ", run_uid, " in the database"));
    detail.run = run_line(line);
    auto row = prepare(db,
                       "SELECT run_id, variant_id, config_json, images_seen FROM run "
                       "JOIN variant USING(variant_id) WHERE run_uid = ?",
                       run_uid);
    row.executeStep();
    const std::int64_t run = row.getColumn(0).getInt64();
    detail.config_json = text(row, 2);
    detail.images_seen = integer_or_null(row.getColumn(3));
    detail.methods = methods_of(db, row.getColumn(1).getInt64());
    detail.sweeps = sweeps_of(db, run);
    detail.parents = relatives_of(db, run, "run_id", "parent_id");
    detail.children = relatives_of(db, run, "parent_id", "run_id");
    detail.attempts = attempts_of(db, run);
    detail.events = events_of(db, run);
    detail.finals = finals_of(db, run);
    detail.checkpoints = checkpoints_of(db, run);
    return detail;
  });
}

}  // namespace ablate

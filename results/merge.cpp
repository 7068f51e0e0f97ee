#include "results/merge.h"

#include "results/merge_sweeps.h"
#include "results/sqlite.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

// Runs to be taken over, with their number there and here.
constexpr const char* kPlan = R"sql(
CREATE TEMP TABLE plan(there INTEGER PRIMARY KEY, uid TEXT NOT NULL, here INTEGER, take INTEGER)
)sql";

std::string rank_of(const std::string& schema, const std::string& run) {
  return cat("(CASE ", run,
             ".state WHEN 'done' THEN 7 WHEN 'diverged' THEN 6 WHEN 'skipped' THEN 5 "
             "WHEN 'failed' THEN 4 WHEN 'interrupted' THEN 3 WHEN 'running' THEN 2 "
             "WHEN 'ready' THEN 1 ELSE 0 END) * 1000000 + (SELECT count(*) FROM ",
             schema, ".attempt a WHERE a.run_id = ", run, ".run_id AND a.n > 0)");
}

class Merge {
 public:
  Merge(SQLite::Database& db, MergeReport& report) : db_(db), report_(report) {}

  void run() {
    check_datasets();
    copy_identities();
    copy_variants();
    plan_runs();
    drop_replaced();
    copy_runs();
    copy_attempts();
    copy_numbers();
    copy_bench();
    merge_sweeps(db_);
    db_.exec("DROP TABLE temp.plan");
  }

 private:
  void check_datasets();
  void copy_identities();
  void copy_variants();
  void plan_runs();
  void drop_replaced();
  void copy_runs();
  void copy_attempts();
  void copy_numbers();
  void copy_bench();

  SQLite::Database& db_;
  MergeReport& report_;
};

void Merge::check_datasets() {
  SQLite::Statement clash(db_,
                          "SELECT s.name, s.split, s.fingerprint, d.fingerprint FROM src.dataset s "
                          "JOIN main.dataset d USING(name, split) "
                          "WHERE s.fingerprint <> d.fingerprint");
  if (!clash.executeStep()) return;
  throw SpecError(cat("data set ", clash.getColumn(0).getString(), " (",
                      clash.getColumn(1).getString(), ") has fingerprint ",
                      clash.getColumn(2).getString(), " there and ", clash.getColumn(3).getString(),
                      " here: these are different data under one name; nothing was merged"));
}

void Merge::copy_identities() {
  db_.exec(R"sql(
INSERT OR IGNORE INTO main.toolchain(hash, git_commit, git_dirty, git_diff, libtorch, cuda, cudnn,
    nccl, driver, mpi, compiler)
  SELECT hash, git_commit, git_dirty, git_diff, libtorch, cuda, cudnn, nccl, driver, mpi, compiler
  FROM src.toolchain;
INSERT OR IGNORE INTO main.machine(hash, hostname, gpu_model, gpu_uuid, gpu_mem_bytes, cpu, cores,
    nic, fs_type, sm_clock_mhz, power_limit_w, ecc)
  SELECT hash, hostname, gpu_model, gpu_uuid, gpu_mem_bytes, cpu, cores, nic, fs_type, sm_clock_mhz,
    power_limit_w, ecc FROM src.machine;
INSERT INTO main.dataset(name, split, n, fingerprint)
  SELECT name, split, n, fingerprint FROM src.dataset WHERE true
  ON CONFLICT(name, split) DO UPDATE SET n = coalesce(n, excluded.n),
    fingerprint = coalesce(fingerprint, excluded.fingerprint);
INSERT OR IGNORE INTO main.metric(name, unit, better, kind, final_rule)
  SELECT name, unit, better, kind, final_rule FROM src.metric;
INSERT OR IGNORE INTO main.reference SELECT * FROM src.reference;
)sql");
  SQLite::Statement other(db_,
                          "SELECT name FROM src.metric s JOIN main.metric d USING(name) WHERE "
                          "(s.unit, s.better, s.kind, s.final_rule) IS NOT "
                          "(d.unit, d.better, d.kind, d.final_rule)");
  while (other.executeStep()) {
    report_.problems.push_back(cat("metric \"", other.getColumn(0).getString(),
                                   "\" has other attributes there; those here are kept"));
  }
}

void Merge::copy_variants() {
  db_.exec(R"sql(
INSERT OR IGNORE INTO main.variant(config_hash, config_json, model)
  SELECT config_hash, config_json, model FROM src.variant;
INSERT OR IGNORE INTO main.variant_method
  SELECT d.variant_id, m.position, m.name, m.origin FROM src.variant_method m
  JOIN src.variant s ON s.variant_id = m.variant_id
  JOIN main.variant d ON d.config_hash = s.config_hash;
INSERT INTO main.variant_note
  SELECT d.variant_id, n.position, n.text FROM src.variant_note n
  JOIN src.variant s ON s.variant_id = n.variant_id
  JOIN main.variant d ON d.config_hash = s.config_hash
  WHERE d.variant_id NOT IN (SELECT variant_id FROM main.variant_note);
INSERT OR IGNORE INTO main.variant_param
  SELECT d.variant_id, p.path, p.num, p.txt FROM src.variant_param p
  JOIN src.variant s ON s.variant_id = p.variant_id
  JOIN main.variant d ON d.config_hash = s.config_hash;
)sql");
}

void Merge::plan_runs() {
  db_.exec(kPlan);
  db_.exec(
      cat("INSERT INTO temp.plan SELECT s.run_id, s.run_uid, d.run_id, "
          "d.run_id IS NULL OR ",
          rank_of("src", "s"), " > ", rank_of("main", "d"),
          " FROM src.run s LEFT JOIN main.run d USING(run_uid)"));
  const auto count = [&](const char* condition) {
    return query_integer(db_, cat("SELECT count(*) FROM temp.plan WHERE ", condition)).value_or(0);
  };
  report_.new_runs = count("here IS NULL");
  report_.replaced_runs = count("here IS NOT NULL AND take");
  report_.kept_runs = count("NOT take");
}

// What a run has gathered here, when the other database's version of it is further along.
void Merge::drop_replaced() {
  db_.exec(R"sql(
DELETE FROM main.sample WHERE series_id IN (SELECT series_id FROM main.series s
  JOIN temp.plan p ON p.here = s.run_id AND p.take);
DELETE FROM main.chunk WHERE series_id IN (SELECT series_id FROM main.series s
  JOIN temp.plan p ON p.here = s.run_id AND p.take);
DELETE FROM main.event WHERE attempt_id IN (SELECT attempt_id FROM main.attempt a
  JOIN temp.plan p ON p.here = a.run_id AND p.take);
DELETE FROM main.attempt_rank WHERE attempt_id IN (SELECT attempt_id FROM main.attempt a
  JOIN temp.plan p ON p.here = a.run_id AND p.take);
DELETE FROM main.spool_metric WHERE spool_uid IN (SELECT spool_uid FROM main.spool s
  JOIN temp.plan p ON p.uid = s.run_uid AND p.take);
DELETE FROM main.spool WHERE run_uid IN (SELECT uid FROM temp.plan WHERE take);
)sql");
  for (const char* table :
       {"series", "attempt", "final", "declared_final", "checkpoint", "sample_bits"}) {
    db_.exec(cat("DELETE FROM main.", table,
                 " WHERE run_id IN (SELECT here FROM temp.plan WHERE take)"));
  }
}

void Merge::copy_runs() {
  db_.exec(R"sql(
INSERT INTO main.run(run_uid, variant_id, dataset_id, seed, state, images_seen, structure_hash)
  SELECT s.run_uid, dv.variant_id, dd.dataset_id, s.seed, s.state, s.images_seen, s.structure_hash
  FROM src.run s JOIN temp.plan p ON p.there = s.run_id
  JOIN src.variant sv ON sv.variant_id = s.variant_id
  JOIN main.variant dv ON dv.config_hash = sv.config_hash
  JOIN src.dataset sd ON sd.dataset_id = s.dataset_id
  JOIN main.dataset dd ON dd.name = sd.name AND dd.split = sd.split
  WHERE p.take
  ON CONFLICT(run_uid) DO UPDATE SET state = excluded.state,
    structure_hash = excluded.structure_hash,
    images_seen = coalesce(excluded.images_seen, images_seen);
UPDATE temp.plan SET here = (SELECT run_id FROM main.run WHERE run_uid = uid);
INSERT OR REPLACE INTO main.run_edge
  SELECT c.here, q.here, e.role, e.weights_sha256 FROM src.run_edge e
  JOIN temp.plan c ON c.there = e.run_id AND c.take JOIN temp.plan q ON q.there = e.parent_id;
)sql");
}

void Merge::copy_attempts() {
  db_.exec(R"sql(
INSERT INTO main.attempt(run_id, n, toolchain_id, world_size, micro_batch, grad_accum, threads,
    runs_in_process, fence, data_fingerprint, slurm_job, start_us, end_us, first_step, last_step,
    cause, detail, outcome, exit_code, told_by)
  SELECT p.here, a.n, dt.toolchain_id, a.world_size, a.micro_batch, a.grad_accum, a.threads,
    a.runs_in_process, a.fence, a.data_fingerprint, a.slurm_job, a.start_us, a.end_us,
    a.first_step, a.last_step, a.cause, a.detail, a.outcome, a.exit_code, a.told_by
  FROM src.attempt a JOIN temp.plan p ON p.there = a.run_id AND p.take
  LEFT JOIN src.toolchain st ON st.toolchain_id = a.toolchain_id
  LEFT JOIN main.toolchain dt ON dt.hash = st.hash;
INSERT INTO main.attempt_rank
  SELECT d.attempt_id, r.rank, dm.machine_id FROM src.attempt_rank r
  JOIN src.attempt s ON s.attempt_id = r.attempt_id
  JOIN temp.plan p ON p.there = s.run_id AND p.take
  JOIN main.attempt d ON d.run_id = p.here AND d.n = s.n
  LEFT JOIN src.machine sm ON sm.machine_id = r.machine_id
  LEFT JOIN main.machine dm ON dm.hash = sm.hash;
INSERT INTO main.event
  SELECT d.attempt_id, e.rank, e.seq, e.step, e.t_us, e.kind, e.body_json FROM src.event e
  JOIN src.attempt s ON s.attempt_id = e.attempt_id
  JOIN temp.plan p ON p.there = s.run_id AND p.take
  JOIN main.attempt d ON d.run_id = p.here AND d.n = s.n;
INSERT INTO main.checkpoint
  SELECT p.here, step, path, bytes, manifest_sha256, structure_hash, deployable
  FROM src.checkpoint c JOIN temp.plan p ON p.there = c.run_id AND p.take;
INSERT INTO main.spool SELECT s.* FROM src.spool s JOIN temp.plan p ON p.uid = s.run_uid AND p.take;
INSERT INTO main.spool_metric
  SELECT m.spool_uid, m.local_id, d.metric_id, m.per_rank FROM src.spool_metric m
  JOIN src.spool s ON s.spool_uid = m.spool_uid JOIN temp.plan p ON p.uid = s.run_uid AND p.take
  JOIN src.metric t ON t.metric_id = m.metric_id JOIN main.metric d ON d.name = t.name;
)sql");
}

void Merge::copy_numbers() {
  db_.exec(R"sql(
CREATE TEMP TABLE metric_map AS SELECT s.metric_id there, d.metric_id here
  FROM src.metric s JOIN main.metric d USING(name);
INSERT INTO main.series(run_id, metric_id, rank)
  SELECT p.here, m.here, s.rank FROM src.series s
  JOIN temp.plan p ON p.there = s.run_id AND p.take
  JOIN temp.metric_map m ON m.there = s.metric_id;
CREATE TEMP TABLE series_map AS SELECT s.series_id there, d.series_id here FROM src.series s
  JOIN temp.plan p ON p.there = s.run_id AND p.take
  JOIN temp.metric_map m ON m.there = s.metric_id
  JOIN main.series d ON d.run_id = p.here AND d.metric_id = m.here AND d.rank = s.rank;
INSERT INTO main.sample
  SELECT m.here, s.step, s.value FROM temp.series_map m
  JOIN src.sample s ON s.series_id = m.there ORDER BY m.here, s.step;
INSERT INTO main.chunk(series_id, step0, stride, n, codec, vmin, vmax, vsum, vlast, data)
  SELECT m.here, step0, stride, n, codec, vmin, vmax, vsum, vlast, data FROM temp.series_map m
  JOIN src.chunk c ON c.series_id = m.there ORDER BY m.here, step0;
INSERT INTO main.final(run_id, metric_id, value, step)
  SELECT p.here, m.here, f.value, f.step FROM src.final f
  JOIN temp.plan p ON p.there = f.run_id AND p.take
  JOIN temp.metric_map m ON m.there = f.metric_id;
INSERT INTO main.declared_final(run_id, metric_id, value, step)
  SELECT p.here, m.here, f.value, f.step FROM src.declared_final f
  JOIN temp.plan p ON p.there = f.run_id AND p.take
  JOIN temp.metric_map m ON m.there = f.metric_id;
INSERT INTO main.sample_bits
  SELECT p.here, r.dataset_id, b.kind, b.step, b.n, b.bits FROM src.sample_bits b
  JOIN temp.plan p ON p.there = b.run_id AND p.take JOIN main.run r ON r.run_id = p.here;
DROP TABLE temp.metric_map;
DROP TABLE temp.series_map;
)sql");
}

void Merge::copy_bench() {
  db_.exec(R"sql(
INSERT OR IGNORE INTO main.bench(structure_hash, baseline_hash, toolchain_id, machine_id, protocol,
    device, dtype, batch, resolution, images_per_s, p50_ms, p99_ms, peak_bytes, joules_per_image,
    macs, params, reps, spread, threads, max_batch, memory_budget, ratio, ratio_spread, origin,
    measured_us)
  SELECT b.structure_hash, b.baseline_hash, dt.toolchain_id, dm.machine_id, b.protocol, b.device,
    b.dtype, b.batch, b.resolution, b.images_per_s, b.p50_ms, b.p99_ms, b.peak_bytes,
    b.joules_per_image, b.macs, b.params, b.reps, b.spread, b.threads, b.max_batch, b.memory_budget,
    b.ratio, b.ratio_spread, b.origin, b.measured_us
  FROM src.bench b LEFT JOIN src.toolchain st ON st.toolchain_id = b.toolchain_id
  LEFT JOIN main.toolchain dt ON dt.hash = st.hash
  LEFT JOIN src.machine sm ON sm.machine_id = b.machine_id
  LEFT JOIN main.machine dm ON dm.hash = sm.hash WHERE b.origin IS NOT NULL;
)sql");
}

}  // namespace

MergeReport merge_database(ResultStore& store, const std::filesystem::path& source) {
  {  // checks that it is a database of ours, undamaged and of the current schema
    ResultStore other(source, ResultStore::Mode::ReadOnly);
    other.check();
  }
  return with_database_errors(store.file(), [&] {
    SQLite::Database& db = store.database();
    MergeReport report;
    execute(db, "ATTACH ? AS src", source.string());
    try {
      SQLite::Transaction transaction(db, SQLite::TransactionBehavior::IMMEDIATE);
      Merge(db, report).run();
      transaction.commit();
    } catch (...) {
      db.tryExec("DETACH src");
      throw;
    }
    db.exec("DETACH src");
    store.refresh_ready();
    return report;
  });
}

}  // namespace ablate

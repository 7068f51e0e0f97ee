#include "results/schema_v1.h"

namespace ablate {

// Version 1 is frozen: databases of it exist. What it lacks comes by later migrations. No CHECK and
// no generated column calls a JSON function: SQLite 3.40 refuses them under trusted_schema = OFF,
// so registration checks the JSON and fills in `model`.
const char* const kSchemaV1Tables = R"sql(
-- identity ------------------------------------------------------------
CREATE TABLE toolchain(                  -- one row per distinct software+driver set
  toolchain_id INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE,
  git_commit TEXT, git_dirty INTEGER, git_diff BLOB,
  libtorch TEXT, cuda TEXT, cudnn TEXT, nccl TEXT, driver TEXT, mpi TEXT, compiler TEXT) STRICT;
CREATE TABLE machine(
  machine_id INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE,
  hostname TEXT, gpu_model TEXT, gpu_uuid TEXT, gpu_mem_bytes INTEGER, cpu TEXT, cores INTEGER,
  nic TEXT, fs_type TEXT, sm_clock_mhz INTEGER, power_limit_w INTEGER, ecc INTEGER) STRICT;
-- fingerprint: filled in by the first attempt that reads it; another one under the same name is an
-- error
CREATE TABLE dataset(
  dataset_id INTEGER PRIMARY KEY, name TEXT NOT NULL, split TEXT NOT NULL,
  n INTEGER, fingerprint TEXT, UNIQUE(name, split)) STRICT;

-- what was asked ------------------------------------------------------
CREATE TABLE sweep(
  sweep_id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, spec_toml TEXT NOT NULL,
  spec_hash TEXT NOT NULL, created_us INTEGER NOT NULL) STRICT;
-- a configuration WITHOUT its seed (and its parents' seeds)
CREATE TABLE variant(
  variant_id INTEGER PRIMARY KEY, config_hash TEXT NOT NULL UNIQUE,
  config_json TEXT NOT NULL, model TEXT) STRICT;
CREATE TABLE variant_method(             -- methods in effect, own or inherited from a parent
  variant_id INTEGER NOT NULL REFERENCES variant, position INTEGER NOT NULL, name TEXT NOT NULL,
  origin TEXT NOT NULL CHECK(origin IN('own','parent')), PRIMARY KEY(variant_id,
    position)) STRICT, WITHOUT ROWID;
-- labels belong to a sweep: known runs are shared between sweeps
CREATE TABLE sweep_variant(
  sweep_id INTEGER NOT NULL REFERENCES sweep, variant_id INTEGER NOT NULL REFERENCES variant,
  label TEXT NOT NULL, position INTEGER NOT NULL, PRIMARY KEY(sweep_id, variant_id),
    UNIQUE(sweep_id, label)) STRICT, WITHOUT ROWID;
CREATE TABLE variant_param(              -- flattened for filtering and for "what differs" queries
  variant_id INTEGER NOT NULL REFERENCES variant, path TEXT NOT NULL,
  num REAL, txt TEXT, PRIMARY KEY(variant_id, path)) STRICT, WITHOUT ROWID;
CREATE INDEX variant_param_by_path ON variant_param(path, txt, num);

-- what happened -------------------------------------------------------
CREATE TABLE run(                        -- variant x dataset x seed: the statistical unit
  run_id INTEGER PRIMARY KEY, run_uid TEXT NOT NULL UNIQUE,
  variant_id INTEGER NOT NULL REFERENCES variant,
  dataset_id INTEGER NOT NULL REFERENCES dataset, seed INTEGER NOT NULL,
  state TEXT NOT NULL CHECK(state
    IN('planned','ready','running','interrupted','done','diverged','failed','skipped')),
  -- over the whole lineage: rows of a table must be comparable
  images_seen INTEGER,
  UNIQUE(variant_id, dataset_id, seed)) STRICT;
CREATE INDEX run_by_cell ON run(dataset_id, variant_id, state, seed);
CREATE TABLE sweep_run(sweep_id INTEGER NOT NULL REFERENCES sweep,
    run_id INTEGER NOT NULL REFERENCES run,
  PRIMARY KEY(sweep_id, run_id)) STRICT, WITHOUT ROWID;
CREATE TABLE run_edge(                   -- what a run was made from
  run_id INTEGER NOT NULL REFERENCES run, parent_id INTEGER NOT NULL REFERENCES run,
  role TEXT NOT NULL CHECK(role IN('init','teacher')), weights_sha256 TEXT, PRIMARY KEY(run_id,
    role)) STRICT, WITHOUT ROWID;
CREATE TABLE attempt(                    -- one process group lifetime; a run has 1..n
  attempt_id INTEGER PRIMARY KEY, run_id INTEGER NOT NULL REFERENCES run, n INTEGER NOT NULL,
  toolchain_id INTEGER REFERENCES toolchain, world_size INTEGER, micro_batch INTEGER,
    grad_accum INTEGER, threads INTEGER,
  runs_in_process INTEGER, fence INTEGER NOT NULL, data_fingerprint TEXT,
  slurm_job TEXT, start_us INTEGER, end_us INTEGER, first_step INTEGER, last_step INTEGER,
  cause TEXT CHECK(cause
    IN('finished','preempted','walltime','oom','nan','hang','node','user','bug','killed')),
  detail TEXT, UNIQUE(run_id, n)) STRICT;
CREATE TABLE attempt_rank(
  attempt_id INTEGER NOT NULL REFERENCES attempt, rank INTEGER NOT NULL,
  machine_id INTEGER REFERENCES machine, PRIMARY KEY(attempt_id, rank)) STRICT, WITHOUT ROWID;
-- rare, human-readable facts: surgery, prune, resume, hang report
CREATE TABLE event(
  attempt_id INTEGER NOT NULL REFERENCES attempt, rank INTEGER NOT NULL, seq INTEGER NOT NULL,
    step INTEGER NOT NULL,
  t_us INTEGER NOT NULL, kind TEXT NOT NULL, body_json TEXT,
  PRIMARY KEY(attempt_id, rank, seq)) STRICT, WITHOUT ROWID;
CREATE TABLE checkpoint(
  run_id INTEGER NOT NULL REFERENCES run, step INTEGER NOT NULL, path TEXT NOT NULL,
  bytes INTEGER, manifest_sha256 TEXT NOT NULL, structure_hash TEXT,
    deployable INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY(run_id, step)) STRICT, WITHOUT ROWID;

-- numbers -------------------------------------------------------------
CREATE TABLE metric(
  metric_id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, unit TEXT,
  better INTEGER NOT NULL DEFAULT 0 CHECK(better IN(-1,0,1)),    -- -1 lower, +1 higher
  kind TEXT NOT NULL DEFAULT 'deterministic' CHECK(kind IN('deterministic','timing')),
  final_rule TEXT NOT NULL DEFAULT 'last' CHECK(final_rule IN('last','max','min','mean_last_k')))
    STRICT;
CREATE TABLE series(
  series_id INTEGER PRIMARY KEY, run_id INTEGER NOT NULL REFERENCES run,
  -- -1 = reduced over ranks
  metric_id INTEGER NOT NULL REFERENCES metric, rank INTEGER NOT NULL DEFAULT -1,
  UNIQUE(run_id, metric_id, rank)) STRICT;
CREATE TABLE sample(                     -- hot tail: recent or sparse points
  series_id INTEGER NOT NULL, step INTEGER NOT NULL, value REAL,
  PRIMARY KEY(series_id, step)) STRICT, WITHOUT ROWID;
CREATE TABLE chunk(                      -- sealed history: 256 points, f32/f64 LE + step stride
  chunk_id INTEGER PRIMARY KEY, series_id INTEGER NOT NULL, step0 INTEGER NOT NULL,
    stride INTEGER NOT NULL,
  n INTEGER NOT NULL, codec INTEGER NOT NULL, vmin REAL, vmax REAL, vsum REAL, vlast REAL,
    data BLOB NOT NULL,
  UNIQUE(series_id, step0)) STRICT;
-- projection used by every table: one value per run and metric
CREATE TABLE final(
  run_id INTEGER NOT NULL REFERENCES run, metric_id INTEGER NOT NULL REFERENCES metric,
  value REAL, step INTEGER, PRIMARY KEY(metric_id, run_id)) STRICT, WITHOUT ROWID;
-- speed/memory/energy under a named protocol, measured alone on the device, per structure (all
-- seeds share it)
CREATE TABLE bench(
  bench_id INTEGER PRIMARY KEY, structure_hash TEXT NOT NULL, baseline_hash TEXT,
    toolchain_id INTEGER REFERENCES toolchain,
  machine_id INTEGER REFERENCES machine, protocol TEXT NOT NULL, device TEXT, dtype TEXT,
    batch INTEGER, resolution INTEGER,
  images_per_s REAL, p50_ms REAL, p99_ms REAL, peak_bytes INTEGER, joules_per_image REAL,
  macs INTEGER, params INTEGER, reps INTEGER, spread REAL) STRICT;
CREATE INDEX bench_by_structure ON bench(structure_hash, protocol);
CREATE TABLE sample_bits(                -- 1 bit per evaluation item; 50,000 items = 6,250 bytes
  run_id INTEGER NOT NULL REFERENCES run, dataset_id INTEGER NOT NULL REFERENCES dataset,
  kind TEXT NOT NULL, step INTEGER NOT NULL, n INTEGER NOT NULL, bits BLOB NOT NULL,
  PRIMARY KEY(run_id, dataset_id, kind, step)) STRICT, WITHOUT ROWID;
CREATE TABLE reference(                  -- numbers printed in papers, kept apart from ours
  source TEXT NOT NULL, model TEXT NOT NULL, method TEXT NOT NULL, setting TEXT NOT NULL,
  dataset TEXT NOT NULL, metric TEXT NOT NULL, value REAL, note TEXT,
  PRIMARY KEY(source, model, method, setting, dataset, metric)) STRICT, WITHOUT ROWID;

-- exactly-once ingest ------------------------------------------------
CREATE TABLE spool(                      -- one row per spool file ever seen
  spool_uid TEXT PRIMARY KEY, run_uid TEXT NOT NULL, attempt_n INTEGER NOT NULL,
    rank INTEGER NOT NULL,
  path TEXT, bytes_done INTEGER NOT NULL DEFAULT 0, last_crc INTEGER,
    sealed INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID;
)sql";

const char* const kSchemaV1Views = R"sql(
-- views --------------------------------------------------------------
-- n, mean, sd per variant x dataset x metric (two passes: a one-pass sd is wrong for constants
-- such as MACs)
CREATE VIEW v_cell AS
SELECT r.variant_id, r.dataset_id, f.metric_id, count(*) AS n, m.mean,
       CASE WHEN count(*)>1 THEN sqrt(sum((f.value-m.mean)*(f.value-m.mean))/(count(*)-1)) END AS
    sd,
       min(f.value) AS lo, max(f.value) AS hi
FROM final f JOIN run r USING(run_id)
JOIN (SELECT r2.variant_id v, r2.dataset_id d, f2.metric_id mi, avg(f2.value) AS mean
    FROM final f2 JOIN run r2 USING(run_id)
      WHERE r2.state='done' AND f2.value IS NOT NULL GROUP BY 1,2,3) m
    ON m.v=r.variant_id AND m.d=r.dataset_id AND m.mi=f.metric_id
WHERE r.state='done' AND f.value IS NOT NULL GROUP BY f.metric_id, r.dataset_id, r.variant_id;
CREATE VIEW v_paired AS                  -- every variant against every other, same seed and data
SELECT ra.variant_id a, rb.variant_id b, ra.dataset_id, fa.metric_id, ra.seed,
    fa.value-fb.value AS delta
FROM run ra JOIN run rb
    ON rb.dataset_id=ra.dataset_id AND rb.seed=ra.seed AND rb.variant_id<>ra.variant_id
JOIN final fa ON fa.run_id=ra.run_id JOIN final fb
    ON fb.run_id=rb.run_id AND fb.metric_id=fa.metric_id
WHERE ra.state='done' AND rb.state='done';
CREATE VIEW v_protocol_mix AS            -- a cell mixing toolchains or world sizes is suspicious
SELECT r.variant_id, r.dataset_id, count(DISTINCT a.toolchain_id) toolchains,
    count(DISTINCT a.world_size) worlds
FROM run r JOIN attempt a USING(run_id) GROUP BY 1,2 HAVING toolchains>1 OR worlds>1;
CREATE VIEW v_holes AS                   -- what `ablate sweep` still has to do
SELECT * FROM run WHERE state NOT IN ('done','diverged','skipped');
)sql";

}  // namespace ablate

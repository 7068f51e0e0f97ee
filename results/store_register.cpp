#include <nlohmann/json.hpp>

#include "results/sqlite.h"
#include "results/store.h"
#include "runner/core/error.h"
#include "runner/core/hash.h"

namespace ablate {
namespace {

using nlohmann::json;

/// Those of the newest registration that brings any.
void write_notes(SQLite::Database& db, std::int64_t variant,
                 const std::vector<std::string>& notes) {
  if (notes.empty()) return;
  execute(db, "DELETE FROM variant_note WHERE variant_id = ?", variant);
  int position = 0;
  for (const std::string& note : notes) {
    execute(db, "INSERT INTO variant_note VALUES (?, ?, ?)", variant, position++, note);
  }
}

/// Puts the leaves of a config under the paths a user writes in a spec: "optimizer.lr",
/// "methods.tome.r", "epochs".
class Flattener {
 public:
  Flattener(SQLite::Database& db, std::int64_t variant)
      : variant_(variant), insert_(db, "INSERT OR IGNORE INTO variant_param VALUES (?, ?, ?, ?)") {}

  void add(const std::string& path, const json& value) {
    if (value.is_object()) {
      for (const auto& [key, child] : value.items()) {
        const bool transparent = key == "params" || (key == "training" && path.empty());
        add(transparent ? path : path.empty() ? key : cat(path, ".", key), child);
      }
    } else if (value.is_array() && !value.empty() && value[0].is_object() &&
               value[0].contains("name")) {
      for (const json& child : value) add(cat(path, ".", child["name"].get<std::string>()), child);
    } else {
      leaf(path, value);
    }
  }

 private:
  void leaf(const std::string& path, const json& value) {
    const auto number =
        value.is_number() ? std::optional<double>(value.get<double>()) : std::nullopt;
    const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    rebind(insert_, variant_, path, number, text).exec();
  }

  std::int64_t variant_;
  SQLite::Statement insert_;
};

std::int64_t id_of_variant(SQLite::Database& db, const RegisteredRun& run) {
  const auto find = [&] {
    return query_integer(db, "SELECT variant_id FROM variant WHERE config_hash = ?",
                         run.config_hash);
  };
  if (const auto known = find()) return *known;
  const json config = json::parse(run.config_json, nullptr, /*allow_exceptions=*/false);
  ABLATE_CHECK(config.is_object(), "configuration ", run.config_hash, " is not a JSON object");
  const json model = config.value(json::json_pointer("/model/name"), json());
  execute(db, "INSERT INTO variant(config_hash, config_json, model) VALUES (?, ?, ?)",
          run.config_hash, run.config_json,
          model.is_string() ? model.get<std::string>() : std::optional<std::string>());
  const std::int64_t variant = db.getLastInsertRowid();
  int position = 0;
  for (const auto& method : run.methods) {
    execute(db, "INSERT INTO variant_method VALUES (?, ?, ?, ?)", variant, position++, method.name,
            method.inherited ? "parent" : "own");
  }
  Flattener(db, variant).add("", config);
  return variant;
}

/// The variant of a run, with the notes that it has by now.
std::int64_t register_variant(SQLite::Database& db, const RegisteredRun& run) {
  const std::int64_t variant = id_of_variant(db, run);
  write_notes(db, variant, run.notes);
  return variant;
}

std::int64_t id_of_dataset(SQLite::Database& db, const RegisteredRun& run) {
  execute(db, "INSERT OR IGNORE INTO dataset(name, split) VALUES (?, ?)", run.dataset, run.split);
  return *query_integer(db, "SELECT dataset_id FROM dataset WHERE name = ? AND split = ?",
                        run.dataset, run.split);
}

std::int64_t id_of_parent(SQLite::Database& db, const RegisteredRun& run,
                          const RegisteredRun::Edge& edge) {
  const auto parent = query_integer(db, "SELECT run_id FROM run WHERE run_uid = ?", edge.run_uid);
  ABLATE_CHECK(parent.has_value(), "run ", run.run_uid, " is registered before its parent ",
               edge.run_uid);
  return *parent;
}

std::int64_t register_run(SQLite::Database& db, const RegisteredRun& run, std::int64_t variant) {
  const auto find = [&] {
    return query_integer(db, "SELECT run_id FROM run WHERE run_uid = ?", run.run_uid);
  };
  if (const auto known = find()) {
    execute(db, "UPDATE run SET images_seen = coalesce(?, images_seen) WHERE run_id = ?",
            run.images_seen, *known);
    return *known;
  }
  execute(db,
          "INSERT INTO run(run_uid, variant_id, dataset_id, seed, state, images_seen) "
          "VALUES (?, ?, ?, ?, 'planned', ?)",
          run.run_uid, variant, id_of_dataset(db, run), run.seed, run.images_seen);
  const std::int64_t id = db.getLastInsertRowid();
  for (const auto& edge : run.parents) {
    execute(db, "INSERT INTO run_edge(run_id, parent_id, role) VALUES (?, ?, ?)", id,
            id_of_parent(db, run, edge), edge.role);
  }
  return id;
}

std::int64_t id_of_sweep(SQLite::Database& db, const SweepInfo& sweep) {
  execute(db,
          "INSERT INTO sweep(name, spec_toml, spec_hash, created_us) VALUES (?, ?, ?, ?) "
          "ON CONFLICT(name) DO UPDATE SET spec_toml = excluded.spec_toml, "
          "spec_hash = excluded.spec_hash",
          sweep.name, sweep.spec_toml, hash128_hex(sweep.spec_toml), now_us());
  const auto id = query_integer(db, "SELECT sweep_id FROM sweep WHERE name = ?", sweep.name);
  // The lists of runs and labels are those of this version of the file; the runs themselves stay.
  execute(db, "DELETE FROM sweep_run WHERE sweep_id = ?", *id);
  execute(db, "DELETE FROM sweep_variant WHERE sweep_id = ?", *id);
  return *id;
}

void label_variant(SQLite::Database& db, std::int64_t sweep, std::int64_t variant,
                   const RegisteredRun& run) {
  const auto known = query_text(
      db, "SELECT label FROM sweep_variant WHERE sweep_id = ? AND variant_id = ?", sweep, variant);
  if (known && *known != run.label) {
    throw SpecError(cat("rows \"", *known, "\" and \"", run.label,
                        "\" are the same configuration: remove one or change a setting"));
  }
  const auto other =
      query_integer(db, "SELECT variant_id FROM sweep_variant WHERE sweep_id = ? AND label = ?",
                    sweep, run.label);
  ABLATE_CHECK(!other || *other == variant, "label \"", run.label, "\" names two configurations");
  execute(db, "INSERT OR IGNORE INTO sweep_variant VALUES (?, ?, ?, ?)", sweep, variant, run.label,
          run.row);
}

}  // namespace

RegisteredRun registered_run(const RunSpec& spec) {
  RegisteredRun run;
  run.run_uid = spec.id();
  run.config_hash = spec.config_hash();
  run.config_json = spec.config_json().dump();
  run.dataset = spec.dataset.name;
  // Data of one name are the same data only under the same settings (holdout, size of synthetic
  // data): the settings tell the fingerprints apart.
  std::vector<std::string> settings;
  const json params = spec.dataset.params.to_json();
  for (const auto& [key, value] : params.items())
    settings.push_back(cat(key, "=", value.is_string() ? value.get<std::string>() : value.dump()));
  run.split = join(settings, " ");
  run.seed = spec.seed;
  for (const Component& method : spec.inherited_methods) run.methods.push_back({method.name, true});
  for (const Component& method : spec.methods) run.methods.push_back({method.name, false});
  for (const Parent& parent : spec.parents) run.parents.push_back({parent.role, parent.run_id});
  return run;
}

void ResultStore::register_sweep(const SweepInfo& sweep, std::span<const RegisteredRun> runs) {
  with_database_errors(file_, [&] {
    SQLite::Database& db = *database_;
    SQLite::Transaction transaction(db, SQLite::TransactionBehavior::IMMEDIATE);
    const std::int64_t id = id_of_sweep(db, sweep);
    for (const RegisteredRun& run : runs) {
      const std::int64_t variant = register_variant(db, run);
      label_variant(db, id, variant, run);
      execute(db, "INSERT OR IGNORE INTO sweep_run VALUES (?, ?)", id,
              register_run(db, run, variant));
    }
    refresh_ready();
    transaction.commit();
  });
}

void ResultStore::register_runs(std::span<const RegisteredRun> runs) {
  with_database_errors(file_, [&] {
    SQLite::Database& db = *database_;
    SQLite::Transaction transaction(db, SQLite::TransactionBehavior::IMMEDIATE);
    for (const RegisteredRun& run : runs) {
      register_run(db, run, register_variant(db, run));
    }
    refresh_ready();
    transaction.commit();
  });
}

bool ResultStore::knows_run(const std::string& run_uid) {
  return with_database_errors(file_, [&] {
    return query_integer(*database_, "SELECT 1 FROM run WHERE run_uid = ?", run_uid).has_value();
  });
}

std::string ResultStore::find_run(const std::string& prefix) {
  return with_database_errors(file_, [&] {
    auto matches = prepare(*database_,
                           "SELECT run_uid FROM run WHERE run_uid >= ?1 AND run_uid < ?1 || '~' "
                           "ORDER BY run_uid LIMIT 2",
                           prefix);
    if (!matches.executeStep())
      throw SpecError(cat("no run begins with \"", prefix, "\"; `ablate status` lists them"));
    std::string found = matches.getColumn(0).getString();
    if (found != prefix && matches.executeStep()) {
      throw SpecError(cat("several runs begin with \"", prefix, "\" (", found, ", ",
                          matches.getColumn(0).getString(), "): give more digits"));
    }
    return found;
  });
}

}  // namespace ablate

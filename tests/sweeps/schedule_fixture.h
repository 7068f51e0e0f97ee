#pragma once

#include <functional>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "results/ingest.h"
#include "results/sqlite.h"
#include "runner/core/error.h"
#include "runner/core/stop.h"
#include "sweeps/session.h"
#include "tests/support/programs.h"
#include "tests/support/temp_folder.h"

namespace ablate::test {

/// Sweeps through the real scheduler, executor, ingester and store, with the stand-in trainer.
class Schedule : public ::testing::Test {
 protected:
  Schedule() {
    workspace_.out = folder_ / "out";
    workspace_.database = folder_ / "results.db";
    workspace_.train_program = fake_train();
    std::filesystem::create_directories(workspace_.out);
  }

  static std::string head(const std::string& model = "steps = 6") {
    return "name = \"s\"\n[seeds]\ncount = 1\n[run]\ndataset = { name = \"d\" }\nmodel = { name = "
           "\"fake\", " +
           model + " }\n";
  }

  ScheduleSummary run(const std::string& text,
                      const std::function<void(ScheduleOptions&)>& change = {}) {
    const SweepSpec sweep = parse_sweep_text(text, "s.toml");
    const ResolvedSweep resolved = resolve_sweep(sweep, workspace_);
    ResultStore store(workspace_.database);
    store.register_sweep({sweep.name, sweep.text}, registered_runs(resolved));
    take_up_folders(store, resolved, workspace_);
    const Plan plan = make_plan(sweep.launch, resolved.drafts, resolved.runs, &store, workspace_);
    ScheduleOptions options{sweep.launch};
    if (change) change(options);
    Ingester ingester(store);
    const auto executor = make_executor(options.launch, workspace_);
    ProgressView view(notes_, {});
    return run_schedule(store, *executor, workspace_, scheduled_runs(resolved, plan), options,
                        ingester, view, stop_);
  }

  /// One text column of a query, joined by blanks.
  std::string query(const std::string& sql) {
    ResultStore store(workspace_.database, ResultStore::Mode::ReadOnly);
    auto rows = prepare(store.database(), sql);
    std::vector<std::string> values;
    while (rows.executeStep()) values.push_back(rows.getColumn(0).getString());
    return join(values, " ");
  }
  std::string states() {
    return query("SELECT state FROM run JOIN sweep_variant USING(variant_id) ORDER BY position");
  }
  std::string attempts(const std::string& label) {
    return query(
        "SELECT outcome || ':' || cause FROM attempt JOIN run USING(run_id) JOIN "
        "sweep_variant USING(variant_id) WHERE label = '" +
        label + "' ORDER BY n");
  }

  TempFolder folder_;
  Workspace workspace_;
  StopSignal stop_;
  std::ostringstream notes_;
};

}  // namespace ablate::test

#include <gtest/gtest.h>

#include "tests/support/mpi_world.h"
#include "tests/support/run_records.h"
#include "tests/support/temp_folder.h"
#include "tests/train/run_tables.h"

// The trainer over MPI: its reducer works while backward runs, BatchNorm groups span ranks in
// between, and the weights are those of one rank.

namespace ablate::test {
namespace {

/// A folder that all ranks see.
class SharedFolder {
 public:
  SharedFolder() {
    Communicator& world = mpi_world();
    if (world.rank() == 0) own_ = std::make_unique<TempFolder>();
    path_ = world.broadcast(own_ ? own_->path().string() : std::string());
  }
  ~SharedFolder() { mpi_world().barrier(); }

  const std::filesystem::path& path() const { return path_; }

 private:
  std::unique_ptr<TempFolder> own_;
  std::filesystem::path path_;
};

void expect_weights_of_one_rank(std::string_view toml, const std::vector<std::string>& overrides) {
  Communicator& world = mpi_world();
  const SharedFolder out;
  const RunSpec spec = resolve_table(
      toml, joined(joined(all_randomness(), overrides), {"precision=fp64", "ema_decay=0.9"}), 4);
  StopSignal stop;
  const Environment environment = environment_in(out.path());
  EXPECT_EQ(execute_run(spec, environment, world, stop).state, OutcomeState::Done);
  if (world.rank() != 0) return;
  const TempFolder alone;
  const RunRecord one = run_small(spec, alone.path()), many = read_run(spec, environment);
  EXPECT_LE(weight_distance(one.weights, many.weights), 1e-9);
  for (const auto& [step, loss] : one.series.at("train/loss")) {
    EXPECT_NEAR(many.series.at("train/loss").at(step), loss, 1e-9) << step;
  }
  EXPECT_EQ(one.finals.at("top1"), many.finals.at("top1"));
}

TEST(TrainerOverMpi, TrainsATransformerAsOneRankDoes) {
  expect_weights_of_one_rank(kTinyVit, {"model.drop_path=0.2", "clip_norm=0.5"});
}

TEST(TrainerOverMpi, TrainsGroupsThatSpanRanksAsOneRankDoes) {
  expect_weights_of_one_rank(kTinyResNet, {"bn_group=16"});
  expect_weights_of_one_rank(kTinyResNet, {"bn_group=32", "epochs=1"});
}

TEST(TrainerOverMpi, AStopOnOneRankStopsAll) {
  Communicator& world = mpi_world();
  const SharedFolder out;
  const RunSpec spec = resolve_table(kTinyVit, {}, 4);
  Environment environment = environment_in(out.path());
  StopSignal stop;
  if (world.rank() == world.size() - 1) stop.request("drained");
  const Outcome outcome = execute_run(spec, environment, world, stop);
  EXPECT_EQ(outcome.state, OutcomeState::Interrupted);
  EXPECT_EQ(outcome.detail, "drained");
  EXPECT_EQ(outcome.last_step, 1);
  environment.attempt = 2;
  StopSignal none;
  EXPECT_EQ(execute_run(spec, environment, world, none).state, OutcomeState::Done);
}

}  // namespace
}  // namespace ablate::test

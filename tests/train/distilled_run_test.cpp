#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/core/hash.h"
#include "runner/train/distillation.h"
#include "runner/train/run_data.h"
#include "runner/train/run_model.h"
#include "tests/core/expect_error.h"
#include "tests/support/models.h"
#include "tests/support/run_records.h"
#include "tests/support/temp_folder.h"
#include "tests/train/run_tables.h"

// Runs made from other runs: students of a teacher, children of a parent.

namespace ablate::test {
namespace {

ResolvedRun resolve_with(std::string_view toml, const std::vector<std::string>& overrides,
                         const std::vector<DraftParent>& parents = {}) {
  return resolve_run(run_table(toml, overrides), parents, {}, 1);
}

/// The first training batch of a run on one rank.
Batch first_batch(const RunSpec& spec) {
  const RunData data(spec, options_of(spec), environment_in("unused"), {});
  const auto loader = data.train_loader();
  loader->seek(0, 0);
  return loader->next();
}

TEST(Student, LearnsFromItsTeachersLogitsOnItsOwnImages) {
  const TempFolder out;
  const ResolvedRun teacher = resolve_with(kTinyResNet, {"epochs=3"});
  run_small(teacher.spec, out.path());
  for (const char* mode : {"hard", "soft"}) {
    const ResolvedRun student = resolve_with(
        kTinyVit,
        joined(all_randomness(), {"precision=fp64", "distillation.alpha=1.0",
                                  "distillation.temperature=2.0", cat("distillation.mode=", mode)}),
        {{"teacher", &teacher}});
    const RunRecord record = run_small(student.spec, out.path(), 2);

    // The loss of the first step from its parts: teacher and student on the mixed images.
    const RunPaths teacher_paths(out.path(), teacher.spec.id());
    const auto taught =
        load_final_model(read_finals(teacher_paths.final_directory()), false, at::kDouble);
    taught->eval();
    const auto self = make_self_communicator();
    const RunModel start =
        make_start_model(student.spec, options_of(student.spec), environment_in(out.path()), 6,
                         at::kDouble, at::kCPU, *self);
    const at::Tensor images = first_batch(student.spec).images.to(at::kDouble);
    const double expected =
        Distillation::kd_loss({.alpha = 1, .temperature = 2, .hard = std::string(mode) == "hard"},
                              logits_of(*start.model, images), logits_of(*taught, images))
            .item<double>();
    EXPECT_NEAR(record.series.at("train/loss").at(0), expected, 1e-12) << mode;

    const auto facts = records_of<Facts>(RunPaths(out.path(), student.spec.id()).spool(1, 0));
    const auto lineage = std::ranges::find(facts, FactKind::Lineage, &Facts::kind);
    ASSERT_NE(lineage, facts.end());
    EXPECT_EQ(nlohmann::json::parse(lineage->json).at("teacher"),
              sha256_hex(teacher_paths.final_weights()));
  }
}

TEST(Student, ContinuesExactlyAfterEveryStep) {
  const TempFolder whole, pieces;
  const ResolvedRun teacher = resolve_with(kTinyVit, {"epochs=1", "seed=9"});
  const ResolvedRun student = resolve_with(
      kTinyVit, joined(all_randomness(), {"model.distilled=true"}), {{"teacher", &teacher}});
  for (const auto* out : {&whole, &pieces}) run_small(teacher.spec, out->path());
  const RunRecord record = run_small(student.spec, whole.path());
  Environment environment = environment_in(pieces.path());
  for (environment.attempt = 1;; ++environment.attempt) {
    if (run_attempt(student.spec, environment, 1, true).state == OutcomeState::Done) break;
  }
  EXPECT_EQ(environment.attempt, 8);
  expect_same_bits(record, read_run(student.spec, environment, environment.attempt));
}

TEST(Child, StartsFromTheWeightsOfItsParentThatItAsksFor) {
  const TempFolder out;
  const ResolvedRun parent = resolve_with(kTinyVit, {"ema_decay=0.9"});
  run_small(parent.spec, out.path());
  const RunPaths parent_paths(out.path(), parent.spec.id());
  for (const bool average : {false, true}) {
    const ResolvedRun child =
        resolve_with(kTinyVit, {"epochs=0", average ? "from_weights=ema" : "from_weights=raw"},
                     {{"init", &parent}});
    const RunRecord record = run_small(child.spec, out.path(), 2);
    const auto start =
        parent_paths.final_directory() / (average ? "ema.safetensors" : "model.safetensors");
    expect_same_tensors(record.weights, read_tensors(start));
    const auto facts = records_of<Facts>(RunPaths(out.path(), child.spec.id()).spool(1, 0));
    const auto lineage = std::ranges::find(facts, FactKind::Lineage, &Facts::kind);
    ASSERT_NE(lineage, facts.end());
    EXPECT_EQ(nlohmann::json::parse(lineage->json).at("init"), sha256_hex(start));
  }
}

TEST(Child, NamesTheParentThatHasNotFinished) {
  const TempFolder out;
  const ResolvedRun parent = resolve_with(kTinyVit, {});
  const ResolvedRun child = resolve_with(kTinyVit, {"epochs=0"}, {{"init", &parent}});
  const std::string message =
      message_of<Error>([&] { run_attempt(child.spec, environment_in(out.path())); });
  EXPECT_NE(message.find(parent.spec.id()), std::string::npos) << message;
  EXPECT_NE(message.find("has not finished"), std::string::npos) << message;
}

// Weights files are known by content, so another file under the same path is noticed.
TEST(WeightsFile, MustBeTheOneTheSpecWasResolvedWith) {
  const TempFolder out;
  const ResolvedRun donor = resolve_with(kTinyVit, {"epochs=0"}),
                    other = resolve_with(kTinyVit, {"epochs=0", "seed=6"});
  const auto given = run_small(donor.spec, out.path()).weights;
  run_small(other.spec, out.path());
  const auto file = out / "start.safetensors";
  std::filesystem::copy(RunPaths(out.path(), donor.spec.id()).final_weights(), file);
  const ResolvedRun run =
      resolve_with(kTinyVit, {"epochs=0", "seed=7", cat("init.weights=", file.string())});
  Environment environment = environment_in(out.path());
  EXPECT_THROW(run_attempt(run.spec, environment), SpecError) << "no file named";
  environment.init_file = RunPaths(out.path(), other.spec.id()).final_weights();
  environment.attempt = 2;
  const std::string message = message_of<SpecError>([&] { run_attempt(run.spec, environment); });
  EXPECT_NE(message.find(run.spec.init_sha256), std::string::npos) << message;
  environment.init_file = file;
  environment.attempt = 3;
  run_attempt(run.spec, environment);
  expect_same_tensors(given, read_run(run.spec, environment, 3).weights);
}

}  // namespace
}  // namespace ablate::test

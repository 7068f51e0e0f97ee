#include <map>
#include <set>

#include <gtest/gtest.h>

#include "methods/models/weights_io.h"
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

// Runs made from other runs or weights: students of a teacher, children of a parent; and runs whose
// length is given in steps.

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

/// A file of weights that is no run's, for a registered network of six classes on images of 8 x 8.
std::filesystem::path teacher_weights(const TempFolder& folder) {
  const auto teacher = make_model("resnet20", "image_size = 8", 6, 8);
  teacher->initialize(3);
  save_weights(*teacher, folder / "teacher.safetensors");
  return folder / "teacher.safetensors";
}

std::string teacher_setting(const std::filesystem::path& file, const std::string& more = "") {
  return cat("distillation.teacher={ model = { name = 'resnet20', image_size = 8", more,
             " }, weights = '", file.string(), "' }");
}

TEST(Student, LearnsFromAFileOfWeightsAsFromARunThatHasThem) {
  const TempFolder folder, out;
  const auto file = teacher_weights(folder);
  const ResolvedRun run =
      resolve_with(kTinyResNet, {"epochs=0", cat("init.weights=", file.string())});
  Environment environment = environment_in(out.path());
  environment.init_file = file;
  run_attempt(run.spec, environment);

  const std::vector<std::string> settings =
      joined(all_randomness(), {"model.distilled=true", "epochs=1"});
  const ResolvedRun of_run = resolve_with(kTinyVit, settings, {{"teacher", &run}});
  const ResolvedRun of_file = resolve_with(kTinyVit, joined(settings, {teacher_setting(file)}));
  EXPECT_EQ(of_file.teacher_file, std::filesystem::absolute(file));
  EXPECT_EQ(of_file.spec.canonical().find(folder.path().string()), std::string::npos);
  const RunRecord taught_by_run = run_small(of_run.spec, out.path());
  environment.init_file.clear();
  environment.teacher_file = file;
  run_attempt(RunSpec::from_json(nlohmann::json::parse(of_file.spec.canonical())), environment);
  const RunRecord taught_by_file = read_run(of_file.spec, environment);
  EXPECT_EQ(taught_by_run.series.at("train/loss"), taught_by_file.series.at("train/loss"));
  expect_same_tensors(taught_by_run.weights, taught_by_file.weights);
}

TEST(Student, KnowsItsTeachersWeightsByContent) {
  const TempFolder folder, out;
  const auto file = teacher_weights(folder);
  const RunSpec spec = resolve_with(kTinyVit, {"epochs=1", teacher_setting(file)}).spec;
  const auto copy = folder / "copy.safetensors";
  std::filesystem::copy(file, copy);
  EXPECT_EQ(resolve_with(kTinyVit, {"epochs=1", teacher_setting(copy)}).spec.id(), spec.id());
  EXPECT_NE(resolve_with(kTinyVit, {"epochs=1"}).spec.id(), spec.id());

  Environment environment = environment_in(out.path());
  const auto refusal = [&] {
    const std::string message = message_of<SpecError>([&] { run_attempt(spec, environment); });
    ++environment.attempt;
    return message;
  };
  EXPECT_NE(refusal().find("name it with --init FILE"), std::string::npos);
  write_safetensors(copy, {{"w", at::zeros({1})}});
  environment.teacher_file = copy;
  EXPECT_NE(refusal().find(sha256_hex(file)), std::string::npos);
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

/// Positions are interpolated, and training goes on with other drop rates.
TEST(Child, MayHaveAnotherImageSize) {
  const TempFolder out;
  const ResolvedRun parent = resolve_with(kTinyVit, {"epochs=1"});
  const RunRecord before = run_small(parent.spec, out.path());
  const ResolvedRun child = resolve_with(
      kTinyVit, {"epochs=0", "model.image_size=16", "model.drop_path=0.2"}, {{"init", &parent}});
  const RunRecord after = run_small(child.spec, out.path(), 2);
  ASSERT_EQ(before.weights.size(), after.weights.size());
  for (const auto& [name, value] : after.weights) {
    const at::Tensor& old = before.weights.at(name);
    const at::Tensor expected =
        name == "pos_embed" ? resize_position_embedding(old, 17, PositionResize::Bicubic) : old;
    EXPECT_TRUE(at::equal(value, expected)) << name;
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

TEST(WeightsFile, PositionsAreInterpolatedAsAsked) {
  const TempFolder out;
  const ResolvedRun donor = resolve_with(kTinyVit, {"epochs=0"});
  const at::Tensor stored = run_small(donor.spec, out.path()).weights.at("pos_embed");
  Environment environment = environment_in(out.path());
  environment.init_file = RunPaths(out.path(), donor.spec.id()).final_weights();
  const std::map<std::string, PositionResize> ways = {
      {"bicubic", PositionResize::Bicubic},
      {"bicubic_antialias", PositionResize::BicubicAntialias},
      {"bilinear", PositionResize::Bilinear}};
  std::set<std::string> ids;
  for (const auto& [name, way] : ways) {
    const RunSpec spec =
        resolve_with(kTinyVit, {"epochs=0", "model.image_size=16", cat("init.pos_embed=", name),
                                cat("init.weights=", environment.init_file.string())})
            .spec;
    ids.insert(spec.id());
    run_attempt(spec, environment);
    EXPECT_TRUE(at::equal(read_run(spec, environment).weights.at("pos_embed"),
                          resize_position_embedding(stored, 17, way)))
        << name;
  }
  EXPECT_EQ(ids.size(), ways.size());
}

/// Ten steps are two epochs of four and half a third one.
TEST(Length, InStepsEndsAndEvaluatesInTheMiddleOfAnEpoch) {
  const TempFolder out, pieces;
  const std::vector<std::string> settings = joined(all_randomness(), {"schedule.name=linear"});
  Value table = run_table(kTinyVit, joined(settings, {"steps=10"}));
  table.as_table().erase("epochs");
  const ResolvedRun run = resolve_run(table, {}, {}, 1);
  EXPECT_EQ(run.total_steps, 10);
  EXPECT_EQ(run.images_seen, 10 * 32);
  EXPECT_EQ(run.spec.epochs(), 3);
  const RunRecord record = run_small(run.spec, out.path());
  EXPECT_EQ(record.series.at("train/loss").rbegin()->first, 9);
  EXPECT_TRUE(record.series.at("eval/top1").contains(9));
  // The schedule ends with the run, so its numbers are not those of the first steps of three
  // epochs.
  const RunRecord whole =
      run_small(resolve_table(kTinyVit, joined(settings, {"epochs=3"})), out.path());
  EXPECT_EQ(record.series.at("train/loss").at(0), whole.series.at("train/loss").at(0));
  EXPECT_NE(record.series.at("train/loss").at(9), whole.series.at("train/loss").at(9));

  Environment environment = environment_in(pieces.path());
  for (environment.attempt = 1;; ++environment.attempt) {
    if (run_attempt(run.spec, environment, 1, true).state == OutcomeState::Done) break;
  }
  EXPECT_EQ(environment.attempt, 10);
  expect_same_bits(record, read_run(run.spec, environment, environment.attempt));
}

TEST(Length, OfWholeEpochsInStepsIsThatOfEpochs) {
  const TempFolder out;
  Value table = run_table(kTinyVit, joined(all_randomness(), {"steps=8"}));
  table.as_table().erase("epochs");
  const RunRecord steps = run_small(resolve_run(table, {}, {}, 1).spec, out.path());
  const RunRecord epochs = run_small(resolve_table(kTinyVit, all_randomness()), out.path());
  EXPECT_EQ(steps.series, epochs.series);
  expect_same_tensors(steps.weights, epochs.weights);
}

}  // namespace
}  // namespace ablate::test

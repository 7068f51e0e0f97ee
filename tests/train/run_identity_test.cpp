#include <fstream>
#include <map>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "runner/core/run_spec.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_folder.h"
#include "tests/train/run_tables.h"

// The id of a run is that of its result: everything that determines it counts, nothing else does.

namespace ablate::test {
namespace {

std::string id_of(std::string_view toml, const std::vector<std::string>& overrides = {},
                  int ranks = 1) {
  return resolve_table(toml, overrides, ranks).id();
}

TEST(RunIdentity, IsThatOfTheContentNotOfItsSpelling) {
  const char* one = R"(
epochs = 3
global_batch = 16
seed = 4
dataset = { name = "synthetic", train_size = 64 }
model = { name = "vit", image_size = 32, depth = 2 }
augmentation = "cifar"
methods = [ { name = "tome", r = 2 }, { name = "nose", remove = 1 } ]
)";
  const char* other = R"(
[[methods]]
remove = 1
name = "nose"
[[methods]]
r = 2
name = "tome"
[model]
depth = 2
name = "vit"
num_heads = 3
[dataset]
train_size = 64
test_size = 512
holdout = 0
name = "synthetic"
[augmentation]
name = "cifar"
pad = 4
flip = 0.5
[optimizer]
name = "adamw"
lr = 0.001
[task]
name = "classification"
label_smoothing = 0
)";
  Value second = parse_toml(other, "second.toml");
  second.set_path("seed", Value(4));
  second.set_path("global_batch", Value(16));
  second.set_path("epochs", Value(3));
  second.set_path("clip_norm", Value(0));
  second.set_path("schedule", Value("cosine"));
  const RunSpec a = resolve_small(one), b = resolve_run(second, {}, {}, 1).spec;
  EXPECT_EQ(a.canonical(), b.canonical());
  EXPECT_EQ(a.id(), b.id());
  EXPECT_EQ(a.id().size(), 32U);
}

TEST(RunIdentity, GroupsLargerThanTheBatchAreTheBatch) {
  EXPECT_EQ(id_of(kTinyResNet, {"bn_group=32"}), id_of(kTinyResNet, {"bn_group=128"}));
  EXPECT_NE(id_of(kTinyResNet, {"bn_group=32"}), id_of(kTinyResNet, {"bn_group=16"}));
}

TEST(RunIdentity, RanksAreNoPartOfIt) {
  for (const int ranks : {2, 4, 8}) {
    EXPECT_EQ(id_of(kTinyVit, all_randomness()), id_of(kTinyVit, all_randomness(), ranks));
  }
}

TEST(RunIdentity, EverySettingThatCanChangeAResultCounts) {
  std::map<std::string, std::string> settings_by_id;
  settings_by_id[id_of(kTinyVit)] = "none";
  for (const char* setting : {"seed=6",
                              "epochs=3",
                              "global_batch=64",
                              "mix_group=8",
                              "bn_group=16",
                              "precision=fp64",
                              "clip_norm=1.0",
                              "ema_decay=0.9",
                              "evaluate_every=1",
                              "on_nan=skip",
                              "dataset.holdout=8",
                              "dataset.noise=25.0",
                              "dataset.classes=7",
                              "model.drop_path=0.1",
                              "model.depth=3",
                              "model.drop_path_mode=constant",
                              "optimizer.lr=3e-3",
                              "optimizer.weight_decay=0.1",
                              "optimizer.layer_decay=0.65",
                              "optimizer.decay_norms=true",
                              "optimizer.name=sgd",
                              "schedule=constant",
                              "schedule.warmup_epochs=1",
                              "schedule.per=epoch",
                              "augmentation=cifar",
                              "augmentation.flip=0.25",
                              "augmentation.mixup=0.8",
                              "augmentation.repeated=2",
                              "task.label_smoothing=0.1",
                              R"(methods=[{name="nose",remove=1}])",
                              R"(methods=[{name="nose",remove=1,direct=true}])",
                              R"(methods=[{name="tome",r=1}])"}) {
    const auto [known, fresh] = settings_by_id.emplace(id_of(kTinyVit, {setting}), setting);
    EXPECT_TRUE(fresh) << setting << " gives the id of " << known->second;
  }
}

// Results of another version of a part are not taken for those of this one.
TEST(RunIdentity, SemanticsOfEveryPartCount) {
  const RunSpec spec = resolve_table(kTinyVit, {R"(methods=[{name="tome",r=1}])"});
  for (Component RunSpec::*part :
       {&RunSpec::dataset, &RunSpec::model, &RunSpec::task, &RunSpec::optimizer, &RunSpec::schedule,
        &RunSpec::augmentation}) {
    RunSpec raised = spec;
    EXPECT_GE((raised.*part).semantics, 1) << (spec.*part).name;
    ++(raised.*part).semantics;
    EXPECT_NE(raised.id(), spec.id()) << (spec.*part).name;
    EXPECT_NE(raised.config_hash(), spec.config_hash()) << (spec.*part).name;
  }
  RunSpec raised = spec;
  ++raised.methods[0].semantics;
  EXPECT_NE(raised.id(), spec.id());
  raised = spec;
  raised.inherited_methods = spec.methods;
  EXPECT_NE(raised.id(), spec.id());
}

TEST(RunIdentity, OfAConfigurationLeavesSeedsOut) {
  const RunSpec one = resolve_table(kTinyVit), other = resolve_table(kTinyVit, {"seed=6"});
  EXPECT_NE(one.id(), other.id());
  EXPECT_EQ(one.config_hash(), other.config_hash());
  EXPECT_NE(one.config_hash(), resolve_table(kTinyVit, {"epochs=5"}).config_hash());
}

TEST(RunIdentity, ChildrenFollowTheirParentsByRole) {
  const auto resolve = [](const std::vector<std::string>& overrides,
                          const std::vector<DraftParent>& parents = {}) {
    return resolve_run(run_table(kTinyVit, overrides), parents, {}, 1);
  };
  const ResolvedRun parent = resolve({}), reseeded = resolve({"seed=6"}),
                    longer = resolve({"epochs=5"});
  const auto child = [&](const ResolvedRun& of, const char* role) {
    return resolve({"epochs=1"}, {{role, &of}}).spec;
  };
  EXPECT_NE(child(parent, "init").id(), resolve({"epochs=1"}).spec.id());
  EXPECT_NE(child(parent, "init").id(), child(parent, "teacher").id());
  EXPECT_NE(child(parent, "init").id(), child(reseeded, "init").id());
  EXPECT_EQ(child(parent, "init").config_hash(), child(reseeded, "init").config_hash());
  EXPECT_NE(child(parent, "init").config_hash(), child(longer, "init").config_hash());
  // The order in which parents are named does not count.
  const auto both = [&](bool swapped) {
    std::vector<DraftParent> parents{{"init", &parent}, {"teacher", &longer}};
    if (swapped) std::swap(parents[0], parents[1]);
    return resolve({"epochs=1"}, parents).spec.id();
  };
  EXPECT_EQ(both(false), both(true));
}

TEST(RunIdentity, KnowsWeightsByContentNotByPath) {
  const TempFolder folder;
  const auto write = [&](const std::string& name, const char* bytes) {
    std::ofstream(folder / name) << bytes;
    return cat("init.weights=", (folder / name).string());
  };
  const std::string first = write("a.safetensors", "some weights"),
                    copy = write("b.safetensors", "some weights"),
                    other = write("c.safetensors", "other weights");
  EXPECT_EQ(id_of(kTinyVit, {first}), id_of(kTinyVit, {copy}));
  EXPECT_NE(id_of(kTinyVit, {first}), id_of(kTinyVit, {other}));
  EXPECT_NE(id_of(kTinyVit, {first}), id_of(kTinyVit));
  EXPECT_NE(id_of(kTinyVit, {first}), id_of(kTinyVit, {first, "init.reset_head=true"}));
  const std::string canonical = resolve_table(kTinyVit, {first}).canonical();
  EXPECT_EQ(canonical.find(folder.path().string()), std::string::npos) << canonical;
}

TEST(RunIdentity, SurvivesItsFile) {
  const ResolvedRun parent = resolve_run(run_table(kTinyVit), {}, {}, 1);
  const RunSpec spec =
      resolve_run(run_table(kTinyVit, joined(all_randomness(), {R"(methods=[{name="tome",r=1}])"})),
                  {{"init", &parent}, {"teacher", &parent}}, {}, 1)
          .spec;
  const RunSpec read = RunSpec::from_json(nlohmann::json::parse(spec.canonical()));
  EXPECT_EQ(read.canonical(), spec.canonical());
  EXPECT_EQ(read.id(), spec.id());
  EXPECT_EQ(read.config_hash(), spec.config_hash());
  EXPECT_THROW(RunSpec::from_json(nlohmann::json{{"seed", 1}}), Error);
}

TEST(RunIdentity, NoTwoRunsOfOneIdDifferByTheirEnvironment) {
  const RunSpec spec = resolve_table(kTinyVit, {"epochs=1"}, 2);
  const TempFolder one, two;
  Environment environment = environment_in(two.path());
  environment.threads = 2;
  environment.loader_threads = 3;
  environment.micro_batch = 8;
  environment.checkpoint_steps = 1;
  run_attempt(spec, environment, 2);
  run_small(spec, one.path());
  const auto name_of_only_run = [](const TempFolder& out) {
    const auto first = std::filesystem::directory_iterator(out / "runs");
    return first->path().filename().string();
  };
  EXPECT_EQ(name_of_only_run(one), spec.id());
  EXPECT_EQ(name_of_only_run(two), spec.id());
}

}  // namespace
}  // namespace ablate::test

#include "runner/train/spec_resolver.h"

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_folder.h"
#include "tests/train/run_tables.h"

// What is wrong with a run table is said before anything starts: what, where, what would do.

namespace ablate::test {
namespace {

using Words = std::vector<std::string>;

void expect_words(const std::string& message, const Words& words) {
  for (const std::string& word : words) {
    EXPECT_NE(message.find(word), std::string::npos) << "\"" << word << "\" in: " << message;
  }
}

/// One mistake: settings on top of a good table, and what the message must say.
struct Mistake {
  const char* name;
  std::vector<std::string> overrides;
  Words words;
  std::string_view table = kTinyVit;
  int ranks = 1;
};

std::ostream& operator<<(std::ostream& out, const Mistake& mistake) { return out << mistake.name; }

class Mistaken : public testing::TestWithParam<Mistake> {};

TEST_P(Mistaken, TableIsRefusedWithTheFix) {
  const Mistake& mistake = GetParam();
  expect_words(message_of<SpecError>(
                   [&] { resolve_table(mistake.table, mistake.overrides, mistake.ranks); }),
               mistake.words);
}

const Mistake kUnknown[] = {
    {"Key", {"global_bacth=64"}, {"global_bacth", "unknown key", "did you mean \"global_batch\""}},
    {"DatasetKey", {"dataset.trainsize=3"}, {"dataset \"synthetic\".trainsize", "\"train_size\""}},
    {"ModelKey", {"model.embed_dims=8"}, {"model \"vit\".embed_dims", "\"embed_dim\""}},
    {"OptimizerKey", {"optimizer.beta3=0.9"}, {"optimizer \"adamw\".beta3", "unknown key"}},
    {"ScheduleKey", {"schedule.warmup=1"}, {"schedule \"cosine\".warmup", "unknown key"}},
    {"AugmentationKey", {"augmentation.mixupp=1"}, {"augmentation \"none\".mixupp", "\"mixup\""}},
    {"TaskKey", {"task.label_smooth=0.1"}, {"task \"classification\".label_smooth", "unknown"}},
    {"MethodKey",
     {R"(methods=[{name="nose",remove=1,sample=3}])"},
     {"methods \"nose\".sample", "\"samples\""}},
    {"Dataset", {"dataset.name=sinthetic"}, {"unknown dataset \"sinthetic\"", "\"synthetic\""}},
    {"Model", {"model.name=vitt"}, {"unknown model \"vitt\"", "did you mean \"vit\""}},
    {"Optimizer", {"optimizer.name=adam"}, {"unknown optimizer \"adam\"", "\"adamw\""}},
    {"Schedule", {"schedule=cosin"}, {"unknown schedule \"cosin\"", "\"cosine\""}},
    {"Augmentation", {"augmentation=cifr"}, {"unknown augmentation \"cifr\"", "\"cifar\""}},
    {"Task", {"task=clasification"}, {"unknown task \"clasification\"", "\"classification\""}},
    {"Method", {R"(methods=["nos"])"}, {"unknown method \"nos\"", "\"nose\""}},
    {"Precision", {"precision=fp16"}, {"run.precision", "\"fp16\"", "one of: fp32, fp64"}},
    {"KernelsOfFp32",
     {"kernels=fused"},
     {"run.kernels", "\"fused\" does not go with precision \"fp32\"", "reference"}},
    {"KernelsOfBf16",
     {"precision=bf16", "kernels=reference"},
     {"run.kernels", "precision \"bf16\"", "fused"}},
    {"Wire", {"wire=fp16"}, {"run.wire", "one of: fp32, bf16"}},
    {"NanPolicy", {"on_nan=skipp"}, {"run.on_nan", "did you mean \"skip\""}},
};
INSTANTIATE_TEST_SUITE_P(Unknown, Mistaken, testing::ValuesIn(kUnknown),
                         [](const auto& of) { return of.param.name; });

const Mistake kWrongType[] = {
    {"Text", {"epochs=three"}, {"run.epochs", "\"three\"", "integer"}},
    {"Fraction", {"global_batch=3.5"}, {"run.global_batch", "3.5", "integer"}},
    {"Boolean", {"ema_decay=true"}, {"run.ema_decay", "true"}},
    {"ModelOfANumber", {"model=5"}, {"model: found 5", "a name, or a table"}},
    {"AugmentationOfAList", {"augmentation=[5]"}, {"augmentation: found [5]", "a name"}},
    {"MethodsOfAText", {"methods=nose"}, {"expected an array", "a string"}},
    {"NameOfANumber", {"optimizer.name=3"}, {"expected a string", "an integer"}},
    {"Rate", {"optimizer.lr=fast"}, {"optimizer \"adamw\".lr", "\"fast\""}},
    {"InitOfAText", {"init=w.safetensors"}, {"init", "a table"}},
};
INSTANTIATE_TEST_SUITE_P(WrongType, Mistaken, testing::ValuesIn(kWrongType),
                         [](const auto& of) { return of.param.name; });

const Mistake kOutOfRange[] = {
    {"Epochs", {"epochs=-1"}, {"run.epochs", "-1", "0"}},
    {"Batch", {"global_batch=0"}, {"run.global_batch", "1"}},
    {"Seed", {"seed=-3"}, {"run.seed", "-3"}},
    {"Average", {"ema_decay=1.0"}, {"run.ema_decay", "0.9999999"}},
    {"Clip", {"clip_norm=-0.5"}, {"run.clip_norm", "-0.5"}},
    {"MixGroup", {"mix_group=1"}, {"run.mix_group", "2"}},
    {"Smoothing", {"task.label_smoothing=1.0"}, {"label_smoothing", "0.99"}},
    {"DropPath", {"model.drop_path=1.0"}, {"drop_path", "0.99"}},
    {"Momentum", {R"(optimizer={name="sgd",momentum=1.0})"}, {"momentum", "0.999999"}},
};
INSTANTIATE_TEST_SUITE_P(OutOfRange, Mistaken, testing::ValuesIn(kOutOfRange),
                         [](const auto& of) { return of.param.name; });

const Mistake kSizes[] = {
    {"BatchAndRanks",
     {},
     {"global_batch", "32 images", "3 ranks", "global_batch = 30 or 33"},
     kTinyVit,
     3},
    {"BatchBelowRanks", {"global_batch=2"}, {"4 ranks", "use global_batch = 4,"}, kTinyVit, 4},
    {"BatchAboveTheSet", {"global_batch=256"}, {"256 images", "training set (128)"}},
    {"BatchAboveWhatIsNotHeldOut", {"dataset.holdout=100"}, {"32 images", "training set (28)"}},
    {"HoldoutOfEverything",
     {"dataset.holdout=128"},
     {"dataset.holdout = 128", "128 training samples", "at most 127"}},
    {"BatchNormGroupAndBatch",
     {"bn_group=12"},
     {"bn_group = 12", "global_batch = 32"},
     kTinyResNet},
    {"BatchNormGroupAndSlice",
     {"global_batch=96", "bn_group=32"},
     {"bn_group = 32", "2 ranks (48 images each)", "divides the pass"},
     kTinyResNet,
     2},
    {"MixGroupAndSlice",
     {"augmentation=cifar_strong", "mix_group=32"},
     {"groups of 32", "8 images of each of 4 ranks", "mix_group = 8"},
     kTinyVit,
     4},
    {"WarmUpAndRun", {"schedule.warmup_epochs=3"}, {"warm-up of", "raise epochs"}},
    {"HeadsAndWidth", {"model.num_heads=3"}, {"num_heads", "embed_dim = 16"}},
    {"PatchAndImage", {"model.patch_size=3"}, {"image_size", "patch side 3"}},
    {"AugmentationAndModel",
     {"augmentation.image_size=16"},
     {"augmentation.image_size = 16", "images of 8", "leave the key out"}},
};
INSTANTIATE_TEST_SUITE_P(Sizes, Mistaken, testing::ValuesIn(kSizes),
                         [](const auto& of) { return of.param.name; });

const Mistake kCombinations[] = {
    {"MethodAndModel",
     {R"(methods=[{name="nose",remove=1}])"},
     {"\"nose\"", "token mixer", "\"resnet20\" does not offer"},
     kTinyResNet},
    {"MethodTwice",
     {R"(methods=[{name="tome",r=1},{name="tome",r=2}])"},
     {"\"tome\" is applied twice"}},
    {"RemovalOfEveryLayer",
     {R"(methods=[{name="nose",remove=2}])"},
     {"remove: 2 layers", "2 attention layers", "one must stay"}},
    {"RemovalOfABlockThatIsNotThere",
     {R"(methods=[{name="nose",layers=[2]}])"},
     {"layers: block 2", "blocks are 0 to 1"}},
    {"DilutionLongerThanTheRun",
     {R"(methods=[{name="nose",remove=1,dilution_epochs=2}])"},
     {"dilution_epochs: lambda is still 0.5", "2 epochs", "train longer"}},
    {"ScheduleForMoreBlocks",
     {R"(methods=[{name="tome",schedule=[1,1,1]}])"},
     {"schedule: 3 numbers for 2 blocks"}},
    {"DecisionWithoutHoldout",
     {R"(methods=[{name="nose",remove=1,decide_on="holdout"}])"},
     {"\"nose\"", "held-out samples", "dataset.holdout = N"}},
    {"DistillationWithoutTeacher",
     {"distillation.alpha=0.3"},
     {"no teacher", "teacher = \"LABEL\""}},
    {"TeacherWithoutWeights",
     {"distillation.teacher={ model = 'resnet20' }"},
     {"distillation.teacher.weights", "required"}},
    {"TeacherOfOtherImages",
     {"distillation.teacher={ model = 'resnet50', weights = 'w' }"},
     {"teacher takes images of 224", "its student of 8", "one image_size"}},
    {"TeacherThatIsNotThere",
     {"distillation.teacher={ model = { name = 'resnet20', image_size = 8 }, weights = '/no' }"},
     {"no file /no"}},
    {"TeacherOfNoModel",
     {"distillation.teacher={ model = 'resnet21', weights = 'w' }"},
     {"unknown model \"resnet21\"", "\"resnet20\""}},
    {"StepsAndEpochs", {"steps=10"}, {"steps", "as epochs does", "leave one"}},
    {"AverageWithoutParent",
     {"from_weights=ema"},
     {"from_weights", "no parent", "from = \"LABEL\""}},
    {"MissingWeights", {"init.weights=/nowhere/w.safetensors"}, {"no file /nowhere/w.safetensors"}},
    {"InitWithoutWeights", {"init.reset_head=true"}, {"init.weights", "required"}},
    {"TwoWarmUps",
     {"schedule.warmup_epochs=1", "schedule.warmup_steps=1"},
     {"warmup_steps", "not both"}},
};
INSTANTIATE_TEST_SUITE_P(Combinations, Mistaken, testing::ValuesIn(kCombinations),
                         [](const auto& of) { return of.param.name; });

TEST(RunTable, MissingPartsAreNamedWithWhatIsAccepted) {
  const auto message = [](const char* toml) {
    return message_of<SpecError>([&] { resolve_small(toml); });
  };
  expect_words(message("dataset = 'synthetic'\nmodel = 'vit'"), {"epochs", "is required"});
  expect_words(message("epochs = 1\nmodel = 'vit'"), {"dataset", "is required", "{ name = "});
  expect_words(message("epochs = 1\ndataset = 'synthetic'"), {"model", "is required"});
  expect_words(message("epochs = 1\ndataset = { train_size = 64 }\nmodel = 'vit'"),
               {"dataset needs a name"});
  expect_words(message("epochs = 1\ndataset = 'cifar10'\nmodel = 'vit'"),
               {"where is data set \"cifar10\"", "--data cifar10=DIR"});
}

// Places are those of the file the user wrote.
TEST(RunTable, MistakesHaveTheirLineAndColumn) {
  const auto place = [](const char* toml) {
    const std::string message = message_of<SpecError>([&] { resolve_small(toml); });
    return message.substr(0, message.find(": "));
  };
  EXPECT_EQ(place("epochs = 1\nglobal_batch = 'x'\n"), "test:2:1");
  EXPECT_EQ(place("epochs = 1\ndataset = 'synthetic'\nmodel = 'vitt'\n"), "test:3:1");
  EXPECT_EQ(place("epochs = 1\nmodel = 'vit'\n[dataset]\nname = 'synthetic'\nholdout = 9999\n"),
            "test:5:1");
  EXPECT_EQ(place("epochs = 1\nmodel = 'vit'\n[dataset]\nname = 'synthetic'\n[[methods]]\n"
                  "name = 'nose'\nremove = 1\ndecide_on = 'holdout'\n"),
            "test:8:1");
  EXPECT_EQ(place("epochs = 1\nmodel = 'vit'\n[dataset]\nname = 'synthetic'\n[optimizer]\n"
                  "lr = 0.1\nbetas = 1\n"),
            "test:7:1");
  EXPECT_EQ(place("epochs = 1\nmodel = 'vit'\ndataset = 'synthetic'\nfrom_weights = 'ema'\n"),
            "test:4:1");
}

// A pass of a rank is a fact of the attempt, so it is met when the run starts.
TEST(Passes, ThatDoNotFitAreRefusedByTheRunWithTheFix) {
  struct Case {
    std::string_view table;
    std::vector<std::string> overrides;
    std::int64_t micro_batch;
    Words words;
  };
  const Case cases[] = {
      {kTinyVit, {}, 12, {"micro-batch = 12", "divisor of 16"}},
      {kTinyVit, {}, 32, {"micro-batch = 32", "divisor of 16"}},
      {kTinyVit, {"augmentation=cifar_strong", "mix_group=16"}, 8, {"mix_group = 16", "8 images"}},
      {kTinyResNet, {"bn_group=16"}, 8, {"bn_group = 16", "passes of 8"}},
      {kTinyResNet, {"bn_group=32"}, 8, {"bn_group = 32", "without micro-batches"}}};
  for (const Case& c : cases) {
    const TempFolder out;
    Environment environment = environment_in(out.path());
    environment.micro_batch = c.micro_batch;
    const RunSpec spec = resolve_table(c.table, c.overrides, 2);
    expect_words(message_of<SpecError>([&] { run_attempt(spec, environment, 2); }), c.words);
  }
}

/// A run made from others, by role.
void resolve_from(const std::vector<std::string>& overrides,
                  const std::vector<DraftParent>& parents) {
  resolve_run(run_table(kTinyVit, overrides), parents, {}, 1);
}

TEST(ParentRuns, MustFit) {
  const auto parent = [](const std::vector<std::string>& overrides,
                         std::string_view toml = kTinyVit) {
    return resolve_run(run_table(toml, overrides), {}, {}, 1);
  };
  const ResolvedRun plain = parent({}), merged = parent({R"(methods=[{name="tome",r=1}])"}),
                    fewer = parent({"dataset.classes=5"}), deeper = parent({"model.depth=3"}),
                    larger = parent({"model.image_size=16"}), network = parent({}, kTinyResNet),
                    averaged = parent({"ema_decay=0.9"});
  const auto message = [](const std::vector<std::string>& overrides,
                          const std::vector<DraftParent>& parents) {
    return message_of<SpecError>([&] { resolve_from(overrides, parents); });
  };
  expect_words(message({}, {{"init", &deeper}}), {"parent run is a vit", "same model"});
  expect_words(message({}, {{"init", &network}}), {"parent run is a resnet20", "same model"});
  expect_words(message({"model.drop_path=0.1"}, {{"init", &deeper}}), {"only image_size"});
  resolve_from({"model.drop_path=0.1"}, {{"init", &larger}});
  expect_words(message({}, {{"init", &fewer}}), {"init run has 5 classes", "data set 6"});
  expect_words(message({}, {{"teacher", &fewer}}), {"teacher run has 5 classes"});
  expect_words(message({}, {{"teacher", &larger}}), {"teacher run takes images of 16", "of 8"});
  expect_words(message({R"(methods=[{name="tome",r=1}])"}, {{"init", &merged}}),
               {"\"tome\" is applied twice", "parent"});
  expect_words(message({"init.weights=w.safetensors"}, {{"init", &plain}}), {"no other weights"});
  expect_words(message({"from_weights=ema"}, {{"init", &plain}}),
               {"from_weights", "no weight average", "ema_decay > 0"});
  EXPECT_NO_THROW(resolve_from({"from_weights=ema"}, {{"init", &averaged}}));
  EXPECT_NO_THROW(resolve_from({"distillation.mode=soft"}, {{"teacher", &network}}));
  EXPECT_NO_THROW(
      resolve_from({"distillation.alpha=0.9"}, {{"teacher", &network}, {"init", &merged}}));
  expect_words(message({"distillation.tau=2"}, {{"teacher", &network}}),
               {"distillation.tau", "unknown key"});
}

TEST(RunTable, ADistillationHeadNeedsATeacherOrTrainedWeights) {
  const auto resolve_from = [](const std::vector<std::string>& overrides,
                               const std::vector<DraftParent>& parents) {
    return resolve_run(run_table(kTinyVit, joined({"model.distilled=true"}, overrides)), parents,
                       {}, 1);
  };
  expect_words(message_of<SpecError>([&] { resolve_from({}, {}); }),
               {"vit has a distillation head", "teacher = \"LABEL\""});
  expect_words(message_of<SpecError>(
                   [&] { resolve_table(kTinyVit, {"model=deit_tiny_distilled_patch16_224"}); }),
               {"deit_tiny_distilled_patch16_224 has a distillation head"});
  const ResolvedRun network = resolve_run(run_table(kTinyResNet, {}), {}, {}, 1);
  EXPECT_NO_THROW(resolve_from({}, {{"teacher", &network}}));
  const ResolvedRun taught = resolve_from({}, {{"teacher", &network}});
  EXPECT_NO_THROW(resolve_from({}, {{"init", &taught}}));
  EXPECT_NO_THROW(resolve_from({"epochs=0"}, {})) << "its speed may be asked for";
}

// Evaluation alone, and removal at once, need no epochs.
TEST(RunTable, DilutionNeedsNoLongerRunThanItTakes) {
  for (const char* methods : {R"(methods=[{name="nose",remove=1,dilution_epochs=1}])",
                              R"(methods=[{name="nose",remove=1,dilution_epochs=9,direct=true}])",
                              R"(methods=[{name="nose",remove=1}])"}) {
    EXPECT_NO_THROW(resolve_table(kTinyVit, {methods})) << methods;
  }
  EXPECT_NO_THROW(resolve_table(
      kTinyVit, {"epochs=0", R"(methods=[{name="nose",remove=1,dilution_epochs=9}])"}));
}

TEST(RunTable, TellsTheSizeOfARun) {
  const ResolvedRun parent = resolve_run(run_table(kTinyVit), {}, {}, 1);
  EXPECT_EQ(parent.train_size, 128);
  EXPECT_EQ(parent.test_size, 50);
  EXPECT_EQ(parent.classes, 6);
  EXPECT_EQ(parent.steps_per_epoch, 4);
  EXPECT_EQ(parent.images_seen, 256);
  const ResolvedRun child = resolve_run(run_table(kTinyVit, {"epochs=3", "dataset.holdout=30"}),
                                        {{"init", &parent}}, {}, 1);
  EXPECT_EQ(child.train_size, 98);
  EXPECT_EQ(child.steps_per_epoch, 3) << "the incomplete batch is dropped";
  EXPECT_EQ(child.images_seen, 256 + 3 * 3 * 32) << "over the whole lineage";
}

}  // namespace
}  // namespace ablate::test

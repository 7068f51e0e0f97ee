#include "datasets/transforms.h"

#include <cmath>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "runner/core/params.h"
#include "tests/transforms/image_fixtures.h"

namespace ablate {
namespace {

const Normalization kImageNet{{0.485F, 0.456F, 0.406F}, {0.229F, 0.224F, 0.225F}};

AugmentRecipe recipe(std::string_view name, const std::string& toml = "", int size = 32) {
  const Value table = parse_toml(toml, "sweep.toml");
  Params params(table, "augmentation");
  AugmentRecipe result = read_augmentation(name, params, size);
  params.finish();
  return result;
}

std::string refusal(std::string_view name, const std::string& toml) {
  try {
    recipe(name, toml);
    return "";
  } catch (const SpecError& error) {
    return error.what();
  }
}

TEST(Recipe, Presets) {
  const AugmentRecipe none = recipe("none");
  EXPECT_EQ(none.crop, CropMode::None);
  EXPECT_EQ(none.flip, 0);
  EXPECT_FALSE(none.randaugment || none.mixing.enabled() || none.erasing.probability > 0);
  EXPECT_EQ(none.eval_resize, 32);
  const AugmentRecipe cifar = recipe("cifar");
  EXPECT_EQ(cifar.crop, CropMode::Pad);
  EXPECT_EQ(cifar.pad, 4);
  EXPECT_EQ(cifar.flip, 0.5);
  EXPECT_FALSE(cifar.randaugment || cifar.mixing.enabled());
  const AugmentRecipe strong = recipe("cifar_strong");
  EXPECT_EQ(strong.crop, CropMode::Pad);
  EXPECT_EQ(strong.randaugment->magnitude, 9);
  EXPECT_EQ(strong.erasing.probability, 0.25);
  EXPECT_EQ(strong.mixing.mixup, 0.8);
  EXPECT_EQ(strong.mixing.cutmix, 1.0);
  EXPECT_EQ(strong.repeated, 1);
  const AugmentRecipe deit = recipe("deit", "", 224);
  EXPECT_EQ(deit.crop, CropMode::Resized);
  EXPECT_EQ(deit.repeated, 3);
  EXPECT_EQ(deit.eval_resize, 256);
}

TEST(Recipe, KeysOverrideThePreset) {
  const AugmentRecipe changed =
      recipe("deit",
             "image_size = 64\ncrop_pct = 1.0\nrandaugment = \"\"\nscale = [0.5, 0.9]\n"
             "erasing_mode = \"rand\"\ninterpolation = \"bilinear\"\nmix_prob = 0.25");
  EXPECT_EQ(changed.image_size, 64);
  EXPECT_EQ(changed.eval_resize, 64);
  EXPECT_FALSE(changed.randaugment);
  EXPECT_EQ(changed.resized.scale_low, 0.5);
  EXPECT_EQ(changed.resized.scale_high, 0.9);
  EXPECT_EQ(changed.erasing.mode, ErasingMode::Rand);
  EXPECT_EQ(changed.interpolation, Filter::Bilinear);
  EXPECT_EQ(changed.mixing.probability, 0.25);
  EXPECT_EQ(changed.flip, 0.5);
}

TEST(Recipe, MistakesNamePlaceAndKey) {
  EXPECT_NE(refusal("ciffar", "").find("cifar"), std::string::npos);
  for (const char* toml :
       {"crop = \"centre\"", "flip = 1.5", "scale = [0.9, 0.1]", "scale = [0.5]", "repeated = 0",
        "randaugment = \"rand-m99\"", "eval_resize = 16", "fliip = 0.5", "mixup = \"yes\""}) {
    const std::string message = refusal("cifar", toml);
    const std::string key = std::string(toml).substr(0, std::string(toml).find(' '));
    EXPECT_NE(message.find("sweep.toml:1:"), std::string::npos) << toml << ": " << message;
    EXPECT_NE(message.find(key), std::string::npos) << toml << ": " << message;
  }
}

// What a recipe resolves to reads back as the same recipe.
TEST(Recipe, ResolvedValuesReadBack) {
  for (const std::string& name : augmentation_names()) {
    const Value empty;
    Params params(empty, "augmentation");
    read_augmentation(name, params, 32);
    const Value resolved = params.resolved();
    Params again(resolved, "augmentation");
    read_augmentation(name, again, 96);
    again.finish();
    EXPECT_EQ(again.resolved(), resolved) << name;
  }
}

TEST(Transforms, NormalizesToChw) {
  const Image image = test::noise_image(3, 2, 1);
  std::vector<float> chw(18);
  Normalizer{kImageNet}(image, chw.data());
  for (std::size_t c = 0; c < 3; ++c) {
    for (std::size_t i = 0; i < 6; ++i) {
      const double v = image.pixels[3 * i + c] / 255.0;
      EXPECT_NEAR(chw[6 * c + i], (v - kImageNet.mean[c]) / kImageNet.std[c], 1e-6);
    }
  }
}

TEST(Transforms, EvaluationIsResizeCentreCropNormalize) {
  const AugmentRecipe deit = recipe("deit");
  ASSERT_EQ(deit.eval_resize, 36);
  const Image image = test::noise_image(71, 50, 2);
  std::vector<float> chw(3 * 32 * 32), expected(chw.size());
  EvalTransform(deit, kImageNet)(image, chw.data());
  const Image resized = resize(image, 51, 36, Filter::Bicubic);  // trunc(36 * 71 / 50) = 51
  Normalizer{kImageNet}(crop(resized, {10, 2, 32, 32}), expected.data());  // (51 - 32) / 2 -> 10
  EXPECT_EQ(chw, expected);
}

TEST(Transforms, WithoutAugmentationTrainingEqualsEvaluation) {
  const AugmentRecipe none = recipe("none");
  for (const Image& image : {test::noise_image(32, 32, 3), test::noise_image(48, 37, 3)}) {
    std::vector<float> train(3 * 32 * 32), eval(train.size());
    TrainTransform(none, kImageNet)(image, {1, 2}, train.data());
    EvalTransform(none, kImageNet)(image, eval.data());
    EXPECT_EQ(train, eval);
  }
}

TEST(Transforms, ArePureFunctionsOfTheKey) {
  const TrainTransform transform(recipe("cifar_strong"), kImageNet);
  const Image image = test::noise_image(32, 32, 4);
  const auto run = [&](const AugmentKey& key) {
    std::vector<float> chw(3 * 32 * 32);
    transform(image, key, chw.data());
    return chw;
  };
  const AugmentKey key{7, sample_key(3, 1234, 1)};
  const auto first = run(key);
  EXPECT_NE(first, run({8, key.sample}));
  EXPECT_NE(first, run({7, sample_key(4, 1234, 1)}));
  EXPECT_NE(first, run({7, sample_key(3, 1235, 1)}));
  EXPECT_NE(first, run({7, sample_key(3, 1234, 2)}));
  EXPECT_EQ(first, run(key));
}

// Switching one stage off leaves what the others do as it was.
TEST(Transforms, StagesDrawIndependently) {
  const Image image = test::noise_image(32, 32, 5);
  const TrainTransform all(recipe("cifar_strong", "flip = 1.0\nerasing = 0.0"), kImageNet);
  const TrainTransform unflipped(recipe("cifar_strong", "flip = 0.0\nerasing = 0.0"), kImageNet);
  const TrainTransform plain(recipe("cifar", "flip = 0.0"), kImageNet);
  for (std::uint64_t sample = 0; sample < 20; ++sample) {
    const AugmentKey key{1, sample};
    Image by_hand = plain.augmented(image, key);
    RandomStream random = key.stream(AugmentStage::RandAugment);
    Image flipped = by_hand;
    hflip(flipped);
    RandomStream same = random;
    randaugment(by_hand, *all.recipe().randaugment, {124, 116, 104}, random);
    EXPECT_EQ(unflipped.augmented(image, key), by_hand);
    randaugment(flipped, *all.recipe().randaugment, {124, 116, 104}, same);
    EXPECT_EQ(all.augmented(image, key), flipped);
  }
}

TEST(Transforms, ResizedCropResizesItsBox) {
  const AugmentRecipe settings = recipe("deit", "flip = 0.0\nrandaugment = \"\"");
  const Image image = test::noise_image(60, 45, 6);
  const AugmentKey key{2, sample_key(0, 9)};
  RandomStream random = key.stream(AugmentStage::Crop);
  const Box box = random_resized_crop_box(60, 45, settings.resized, random);
  EXPECT_EQ(TrainTransform(settings, kImageNet).augmented(image, key),
            resize(image, box, 32, 32, Filter::Bicubic));
}

// The network sees the same whether the whole image was there or the plan's source alone, from
// memory that other samples have used.
TEST(Transforms, ThePlansSourceIsEnough) {
  SampleMemory memory;
  for (const char* name : {"none", "cifar_strong", "deit"}) {
    for (const char* settings : {"", "eval_resize = 40"}) {
      const AugmentRecipe chosen = recipe(name, settings);
      const TrainTransform train(chosen, kImageNet);
      const EvalTransform eval(chosen, kImageNet);
      for (std::uint64_t i = 0; i < 20; ++i) {
        const Size size{33 + static_cast<int>(i * 7 % 29), 40 + static_cast<int>(i * 5 % 17)};
        const Image image = test::noise_image(size.width, size.height, i);
        const AugmentKey key{4, i};
        std::vector<float> whole(3 * 32 * 32), part(whole.size());
        const CropPlan plan = train.plan(size, key), central = eval.plan(size);
        train(image, key, whole.data());
        train(crop(image, plan.source), plan, key, memory, part.data());
        EXPECT_EQ(part, whole) << name << " " << i;
        eval(image, whole.data());
        eval(crop(image, central.source), central, memory, part.data());
        EXPECT_EQ(part, whole) << name << " " << i;
      }
    }
  }
}

// 4000 x 500 becomes 2048 x 256, of which columns 912 to 1135 and rows 16 to 239 are shown. Scale
// s = 500/256 and support 2 s: from trunc(16.5 s - 2 s + 0.5) up to trunc(239.5 s + 2 s + 0.5).
TEST(Transforms, EvaluationOfAWideImageTakesItsMiddle) {
  const EvalTransform eval(recipe("deit", "", 224), kImageNet);
  EXPECT_EQ(eval.plan({4000, 500}).source, (Box{1778, 28, 444, 444}));
}

TEST(Transforms, SampleKeysAreDistinctAndBounded) {
  EXPECT_NE(sample_key(1, 0), sample_key(0, 1));
  EXPECT_NE(sample_key(0, 0, 1), sample_key(0, 1, 0));
  EXPECT_NE(sample_key(0, 0, 1), sample_key(1, 0, 0));
  EXPECT_THROW(sample_key(1ULL << 20, 0), BugError);
  EXPECT_THROW(sample_key(0, 1ULL << 40), BugError);
  EXPECT_THROW(sample_key(0, 0, 16), BugError);
}

}  // namespace
}  // namespace ablate

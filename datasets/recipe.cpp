#include "datasets/recipe.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "runner/core/error.h"
#include "runner/core/params.h"

namespace ablate {

namespace {

constexpr std::string_view kPolicy = "rand-m9-mstd0.5-inc1";

/// Defaults as they stand in a spec.
struct Preset {
  std::string_view crop = "none";
  double scale_low = 0.08;
  double flip = 0;
  std::string_view randaugment = "";
  double erasing = 0, mixup = 0, cutmix = 0;
  std::int64_t repeated = 1;
  double crop_pct = 1;
};

Preset find_preset(std::string_view name, const Params& params) {
  const std::vector<std::string>& names = augmentation_names();
  if (std::find(names.begin(), names.end(), name) == names.end()) {
    params.fail("name", cat("unknown augmentation \"", name, "\"", suggestion(name, names)));
  }
  Preset preset;
  if (name == "none") return preset;
  preset.flip = 0.5;
  preset.crop = "pad";
  if (name == "cifar") return preset;
  preset.randaugment = kPolicy;
  preset.erasing = 0.25;
  preset.mixup = 0.8;
  preset.cutmix = 1.0;
  if (name == "cifar_strong") return preset;
  preset.crop = "resized";
  preset.repeated = 3;
  preset.crop_pct = 0.875;
  return preset;
}

CropMode read_crop(Params& params, const Preset& preset) {
  const std::string name = params.choice("crop", preset.crop, {"none", "pad", "resized"},
                                         "how training images are cut to image_size");
  if (name == "pad") return CropMode::Pad;
  return name == "resized" ? CropMode::Resized : CropMode::None;
}

/// A [low, high] pair of numbers in [least, most].
std::pair<double, double> read_range(Params& params, std::string_view key, double low, double high,
                                     double least, double most, std::string_view help) {
  const std::vector<double> pair = params.numbers(key, {low, high}, least, most, help);
  if (pair.size() != 2 || pair[0] > pair[1]) {
    params.fail(key, cat("[", join(pair), "]; accepted: [low, high] with low <= high"));
  }
  return {pair[0], pair[1]};
}

ResizedCrop read_resized(Params& params, const Preset& preset) {
  ResizedCrop result;
  std::tie(result.scale_low, result.scale_high) =
      read_range(params, "scale", preset.scale_low, 1.0, 1e-3, 1.0,
                 "share of the image's area that crop = \"resized\" takes");
  std::tie(result.ratio_low, result.ratio_high) =
      read_range(params, "ratio", 3.0 / 4.0, 4.0 / 3.0, 0.1, 10.0,
                 "width / height of the part that crop = \"resized\" takes");
  return result;
}

std::optional<RandAugment> read_randaugment(Params& params, const Preset& preset) {
  const std::string policy = params.text("randaugment", preset.randaugment,
                                         "RandAugment policy in timm's grammar, \"\" for none");
  if (policy.empty()) return std::nullopt;
  try {
    return parse_randaugment(policy);
  } catch (const SpecError& error) {
    params.fail("randaugment", error.what());
  }
}

Erasing read_erasing(Params& params, const Preset& preset) {
  Erasing result;
  result.probability =
      params.number("erasing", preset.erasing, 0, 1, "probability of random erasing");
  const std::string mode = params.choice("erasing_mode", "pixel", {"pixel", "const", "rand"},
                                         "what erased pixels become: noise, zero, one draw");
  if (mode == "const") result.mode = ErasingMode::Const;
  if (mode == "rand") result.mode = ErasingMode::Rand;
  return result;
}

Mixing read_mixing(Params& params, const Preset& preset) {
  Mixing result;
  result.mixup = params.number("mixup", preset.mixup, 0, 100, "alpha of mixup, 0 for none");
  result.cutmix = params.number("cutmix", preset.cutmix, 0, 100, "alpha of cutmix, 0 for none");
  result.probability =
      params.number("mix_prob", 1, 0, 1, "probability that a group of images is mixed");
  result.switch_probability =
      params.number("switch_prob", 0.5, 0, 1, "probability of cutmix where both are on");
  return result;
}

int read_eval_resize(Params& params, const Preset& preset, int image_size) {
  const double pct = params.number("crop_pct", preset.crop_pct, 0.1, 1,
                                   "image_size / short side of evaluation images");
  const auto implied = static_cast<std::int64_t>(image_size / pct);
  return static_cast<int>(params.integer("eval_resize", implied, image_size, 1 << 14,
                                         "short side of evaluation images, overrides crop_pct"));
}

}  // namespace

const std::vector<std::string>& augmentation_names() {
  static const std::vector<std::string> names{"none", "cifar", "cifar_strong", "deit",
                                              std::string(kDenseAugmentation)};
  return names;
}

AugmentRecipe read_augmentation(std::string_view name, Params& params, int default_image_size) {
  const Preset preset = find_preset(name, params);
  AugmentRecipe recipe;
  if (name == kDenseAugmentation) {
    recipe.dense = read_dense_recipe(params, default_image_size, recipe.image_size, recipe.flip);
    return recipe;
  }
  recipe.image_size = static_cast<int>(params.integer(
      "image_size", default_image_size, 8, 2048, "side of the square images the network sees"));
  recipe.crop = read_crop(params, preset);
  recipe.pad = static_cast<int>(
      params.integer("pad", 4, 0, 512, "black pixels added on every side by crop = \"pad\""));
  recipe.resized = read_resized(params, preset);
  const std::string filter = params.choice("interpolation", "bicubic", {"bilinear", "bicubic"},
                                           "antialiased filter of every resize");
  recipe.interpolation = filter == "bicubic" ? Filter::Bicubic : Filter::Bilinear;
  recipe.flip = params.number("flip", preset.flip, 0, 1, "probability of a horizontal flip");
  recipe.randaugment = read_randaugment(params, preset);
  recipe.erasing = read_erasing(params, preset);
  recipe.mixing = read_mixing(params, preset);
  recipe.repeated = static_cast<int>(params.integer("repeated", preset.repeated, 1, 15,
                                                    "draws of each image in an epoch's order"));
  recipe.eval_resize = read_eval_resize(params, preset, recipe.image_size);
  return recipe;
}

}  // namespace ablate

#include "datasets/randaugment.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>

#include "datasets/pixel_ops.h"
#include "runner/core/error.h"

namespace ablate {

namespace {

constexpr double kMaxLevel = 10;

[[noreturn]] void bad_policy(std::string_view text, const std::string& reason) {
  throw SpecError(cat("RandAugment policy \"", text, "\": ", reason,
                      "; accepted: \"rand\" followed by any of -m<magnitude 0..10>, ",
                      "-mstd<0..10>, -mmax<0..10>, -n<layers 1..15>, -p<probability 0..1>, ",
                      "-inc<0 or 1>, as in \"rand-m9-mstd0.5-inc1\"; all fifteen operations are "
                      "drawn alike"));
}

/// A policy part such as "mstd0.5".
struct Part {
  std::string_view key;
  double value;
};

Part parse_part(std::string_view text, std::string_view part) {
  if (part.starts_with('t')) {
    bad_policy(text, cat("\"", part.substr(1),
                         "\", another choice or other weights of operations, "
                         "is not offered"));
  }
  const auto number = part.find_first_of("0123456789.");
  if (number == std::string_view::npos) bad_policy(text, cat("\"", part, "\" has no number"));
  Part result{part.substr(0, number), 0};
  const auto end = std::from_chars(part.data() + number, part.data() + part.size(), result.value);
  if (end.ec != std::errc{} || end.ptr != part.data() + part.size()) {
    bad_policy(text, cat("\"", part.substr(number), "\" is no number"));
  }
  return result;
}

double within(std::string_view text, const Part& part, double low, double high) {
  if (part.value < low || part.value > high) {
    bad_policy(text, cat(part.key, " = ", part.value, " is out of range"));
  }
  return part.value;
}

int whole(std::string_view text, const Part& part, int low, int high) {
  const int value = static_cast<int>(within(text, part, low, high));
  if (value != part.value) bad_policy(text, cat(part.key, " must be a whole number"));
  return value;
}

double signed_by(bool negative, double value) { return negative ? -value : value; }

}  // namespace

RandAugment parse_randaugment(std::string_view text) {
  const std::vector<std::string> parts = split(text, '-');
  if (parts.front() != "rand") bad_policy(text, "does not start with \"rand\"");
  RandAugment result;
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const Part part = parse_part(text, parts[i]);
    if (part.key == "m") {
      result.magnitude = within(text, part, 0, kMaxLevel);
    } else if (part.key == "mstd") {
      result.magnitude_std = within(text, part, 0, kMaxLevel);
    } else if (part.key == "mmax") {
      result.magnitude_max = within(text, part, 0, kMaxLevel);
    } else if (part.key == "n") {
      result.layers = whole(text, part, 1, kAugmentOps);
    } else if (part.key == "p") {
      result.probability = within(text, part, 0, 1);
    } else if (part.key == "inc") {
      result.increasing = whole(text, part, 0, 1) == 1;
    } else {
      bad_policy(text, cat("unknown part \"", part.key, "\""));
    }
  }
  return result;
}

std::vector<AugmentDraw> draw_randaugment(const RandAugment& settings, RandomStream& random) {
  std::vector<AugmentDraw> draws;
  for (int layer = 0; layer < settings.layers; ++layer) {
    AugmentDraw draw{};
    draw.op = static_cast<AugmentOp>(random.below(kAugmentOps));
    draw.applied = random.chance(settings.probability);
    const double level = settings.magnitude + settings.magnitude_std * random.normal();
    draw.level = std::clamp(level, 0.0, settings.magnitude_max);
    draw.negative = random.chance(0.5);
    draws.push_back(draw);
  }
  return draws;
}

double augment_argument(AugmentOp op, double level, bool negative, bool increasing) {
  const double share = level / kMaxLevel;
  switch (op) {
    case AugmentOp::AutoContrast:
    case AugmentOp::Equalize:
    case AugmentOp::Invert:
      return 0;
    case AugmentOp::Rotate:
      return signed_by(negative, share * 30.0);
    case AugmentOp::Posterize: {
      const int bits = static_cast<int>(share * 4);
      return increasing ? 4 - bits : bits;
    }
    case AugmentOp::Solarize: {
      const int threshold = std::min(256, static_cast<int>(share * 256));
      return increasing ? 256 - threshold : threshold;
    }
    case AugmentOp::SolarizeAdd:
      return std::min(128, static_cast<int>(share * 110));
    case AugmentOp::Color:
    case AugmentOp::Contrast:
    case AugmentOp::Brightness:
    case AugmentOp::Sharpness:
      if (!increasing) return share * 1.8 + 0.1;
      return std::max(0.1, 1.0 + signed_by(negative, share * 0.9));
    case AugmentOp::ShearX:
    case AugmentOp::ShearY:
      return signed_by(negative, share * 0.3);
    case AugmentOp::TranslateX:
    case AugmentOp::TranslateY:
      return signed_by(negative, share * 0.45);
  }
  ABLATE_CHECK(false, "unknown operation ", static_cast<int>(op));
}

void apply_augment_op(Image& image, AugmentOp op, double argument, const Rgb& fill) {
  Image spare;
  apply_augment_op(image, op, argument, fill, spare);
}

void apply_augment_op(Image& image, AugmentOp op, double argument, const Rgb& fill, Image& spare) {
  const auto transform = [&](const AffineMatrix& matrix) {
    affine_bicubic(image, matrix, fill, spare);
  };
  switch (op) {
    case AugmentOp::AutoContrast:
      return autocontrast(image);
    case AugmentOp::Equalize:
      return equalize(image);
    case AugmentOp::Invert:
      return invert(image);
    case AugmentOp::Rotate:
      return transform(rotation_matrix(argument, image.width, image.height));
    case AugmentOp::Posterize:
      return posterize(image, static_cast<int>(argument));
    case AugmentOp::Solarize:
      return solarize(image, static_cast<int>(argument));
    case AugmentOp::SolarizeAdd:
      return solarize_add(image, static_cast<int>(argument));
    case AugmentOp::Color:
      return adjust_color(image, argument);
    case AugmentOp::Contrast:
      return adjust_contrast(image, argument);
    case AugmentOp::Brightness:
      return adjust_brightness(image, argument);
    case AugmentOp::Sharpness:
      return adjust_sharpness(image, argument, spare);
    case AugmentOp::ShearX:
      return transform({1, argument, 0, 0, 1, 0});
    case AugmentOp::ShearY:
      return transform({1, 0, 0, argument, 1, 0});
    case AugmentOp::TranslateX:
      return transform({1, 0, argument * image.width, 0, 1, 0});
    case AugmentOp::TranslateY:
      return transform({1, 0, 0, 0, 1, argument * image.height});
  }
  ABLATE_CHECK(false, "unknown operation ", static_cast<int>(op));
}

void randaugment(Image& image, const RandAugment& settings, const Rgb& fill, RandomStream& random) {
  Image spare;
  randaugment(image, settings, fill, random, spare);
}

void randaugment(Image& image, const RandAugment& settings, const Rgb& fill, RandomStream& random,
                 Image& spare) {
  for (const AugmentDraw& draw : draw_randaugment(settings, random)) {
    if (!draw.applied) continue;
    const double argument =
        augment_argument(draw.op, draw.level, draw.negative, settings.increasing);
    apply_augment_op(image, draw.op, argument, fill, spare);
  }
}

}  // namespace ablate

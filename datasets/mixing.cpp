#include "datasets/mixing.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace ablate {

MixPlan cutmix_plan(double lambda, int center_y, int center_x, int height, int width) {
  const double ratio = std::sqrt(1.0 - lambda);
  const int half_h = static_cast<int>(height * ratio) / 2;
  const int half_w = static_cast<int>(width * ratio) / 2;
  const int top = std::max(0, center_y - half_h), bottom = std::min(height, center_y + half_h);
  const int left = std::max(0, center_x - half_w), right = std::min(width, center_x + half_w);
  MixPlan plan;
  plan.cutmix = true;
  plan.box = {left, top, right - left, bottom - top};
  const double replaced = static_cast<double>(plan.box.width) * plan.box.height;
  plan.lambda = 1.0 - replaced / (static_cast<double>(height) * width);
  return plan;
}

MixPlan draw_mix(const Mixing& settings, std::uint64_t seed, std::uint64_t group,
                 std::uint32_t step, int height, int width) {
  if (!settings.enabled()) return {};
  RandomStream random(seed, Purpose::Mix, group, step);
  const bool mixed = random.chance(settings.probability);
  const bool switched = random.chance(settings.switch_probability);
  if (!mixed) return {};
  const bool cutmix = settings.cutmix > 0 && (settings.mixup <= 0 || switched);
  const double alpha = cutmix ? settings.cutmix : settings.mixup;
  const double lambda = random.beta(alpha, alpha);
  if (!cutmix) return {lambda, false, {}};
  const int center_y = static_cast<int>(random.below(static_cast<std::uint32_t>(height)));
  const int center_x = static_cast<int>(random.below(static_cast<std::uint32_t>(width)));
  return cutmix_plan(lambda, center_y, center_x, height, width);
}

namespace {

void mix_pair(float* __restrict a, float* __restrict b, std::ptrdiff_t size, double lambda) {
  const auto own = static_cast<float>(lambda), other = static_cast<float>(1.0 - lambda);
  for (std::ptrdiff_t i = 0; i < size; ++i) {
    const float first = a[i], second = b[i];
    a[i] = own * first + other * second;
    b[i] = own * second + other * first;
  }
}

void swap_box(float* a, float* b, int channels, int height, int width, const Box& box) {
  for (int c = 0; c < channels; ++c) {
    for (int y = box.top; y < box.top + box.height; ++y) {
      const std::ptrdiff_t at = (static_cast<std::ptrdiff_t>(c) * height + y) * width + box.left;
      std::swap_ranges(a + at, a + at + box.width, b + at);
    }
  }
}

}  // namespace

void apply_mix(float* images, int group, int channels, int height, int width, const MixPlan& plan) {
  if (plan.lambda == 1) return;
  const std::ptrdiff_t size = static_cast<std::ptrdiff_t>(channels) * height * width;
  for (int i = 0; i < group / 2; ++i) {
    float* a = images + i * size;
    float* b = images + (group - 1 - i) * size;
    if (plan.cutmix) {
      swap_box(a, b, channels, height, width, plan.box);
    } else {
      mix_pair(a, b, size, plan.lambda);
    }
  }
}

void mixed_targets(const std::int64_t* labels, int group, int classes, double smoothing,
                   const MixPlan& plan, float* targets) {
  const double off = smoothing / classes, on = 1.0 - smoothing;
  for (int i = 0; i < group; ++i) {
    float* row = targets + static_cast<std::ptrdiff_t>(i) * classes;
    const std::int64_t own = labels[i], other = labels[group - 1 - i];
    for (std::int64_t k = 0; k < classes; ++k) {
      const double hot = (k == own ? plan.lambda : 0.0) + (k == other ? 1.0 - plan.lambda : 0.0);
      row[k] = static_cast<float>(off + on * hot);
    }
  }
}

}  // namespace ablate

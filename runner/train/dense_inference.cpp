#include "runner/train/dense_inference.h"

#include <algorithm>
#include <cmath>

#include "methods/models/ops_resize.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

/// Scores that are alive at a time when classes are picked.
constexpr std::int64_t kMostScores = std::int64_t{1} << 24;

std::int64_t scaled(std::int64_t length, double ratio) {
  return std::max<std::int64_t>(std::llround(std::floor(static_cast<double>(length) * ratio + 0.5)),
                                1);
}

}  // namespace

DenseInference DenseInference::read(Params& params) {
  constexpr std::int64_t kWidest = 65'536;
  DenseInference settings;
  settings.sliding = params.choice("inference", "whole", {"whole", "slide"},
                                   "ask about whole images, or about windows that overlap, whose "
                                   "scores are averaged") == "slide";
  settings.crop = params.integer("crop", settings.crop, 1, kWidest, "side of a window");
  settings.stride = params.integer("stride", settings.stride, 1, kWidest, "from window to window");
  settings.ratios = params.numbers("ratios", settings.ratios, 0.01, 100,
                                   "sizes that an image is asked at, over its test size; "
                                   "probabilities are averaged");
  settings.flip = params.boolean("flip", false, "ask about the mirror image too");
  if (settings.ratios.empty()) params.fail("ratios", "empty; [1.0] asks at the test size alone");
  if (settings.stride > settings.crop) {
    params.fail("stride", cat(settings.stride, " leaves gaps between windows of ", settings.crop));
  }
  return settings;
}

std::vector<std::int64_t> window_starts(std::int64_t length, std::int64_t crop,
                                        std::int64_t stride) {
  std::vector<std::int64_t> starts{0};
  while (starts.back() + crop < length) {
    starts.push_back(std::min(starts.back() + stride, length - crop));
  }
  return starts;
}

DenseScores::DenseScores(const DenseNetwork& network, const at::Tensor& images, std::int64_t height,
                         std::int64_t width, const DenseInference& inference)
    : height_(height), width_(width), crop_(inference.crop), stride_(inference.stride) {
  const at::NoGradGuard no_grad;
  for (const double ratio : inference.ratios) {
    const at::Tensor seen = ratio == 1.0
                                ? images
                                : ops::resize_bilinear(images, scaled(images.size(2), ratio),
                                                       scaled(images.size(3), ratio));
    for (const bool flipped : {false, true}) {
      if (flipped && !inference.flip) continue;
      const at::Tensor asked = flipped ? seen.flip(3) : seen;
      View view = inference.sliding ? sliding(network, asked) : whole(network, asked);
      view.flipped = flipped;
      views_.push_back(std::move(view));
    }
  }
}

/// Both interpolations, to the size that was asked at and to the original one, are one product.
DenseScores::View DenseScores::whole(const DenseNetwork& network, const at::Tensor& images) const {
  const at::Tensor logits = network(images);
  const auto weights = [&](std::int64_t axis, std::int64_t original) {
    const at::Tensor to_asked =
        ops::bilinear_weights(logits.size(axis), images.size(axis), logits.options());
    return at::mm(ops::bilinear_weights(images.size(axis), original, logits.options()), to_asked);
  };
  return {logits, weights(2, height_), weights(3, width_), false};
}

DenseScores::View DenseScores::sliding(const DenseNetwork& network,
                                       const at::Tensor& images) const {
  const std::int64_t height = images.size(2), width = images.size(3);
  const std::int64_t tall = std::min(crop_, height), wide = std::min(crop_, width);
  at::Tensor sums, counts;
  for (const std::int64_t top : window_starts(height, crop_, stride_)) {
    for (const std::int64_t left : window_starts(width, crop_, stride_)) {
      const at::Tensor logits = ops::resize_bilinear(
          network(images.narrow(2, top, tall).narrow(3, left, wide)), tall, wide);
      if (!sums.defined()) {
        sums = at::zeros({images.size(0), logits.size(1), height, width}, logits.options());
        counts = at::zeros({1, 1, height, width}, logits.options());
      }
      sums.narrow(2, top, tall).narrow(3, left, wide).add_(logits);
      counts.narrow(2, top, tall).narrow(3, left, wide).add_(1.0);
    }
  }
  return {sums.div_(counts), ops::bilinear_weights(height, height_, sums.options()),
          ops::bilinear_weights(width, width_, sums.options()), false};
}

at::Tensor DenseScores::rows(std::int64_t first, std::int64_t count) const {
  const at::NoGradGuard no_grad;
  at::Tensor sum;
  for (const View& view : views_) {
    const at::Tensor logits =
        ops::weigh_places(view.logits, view.rows.narrow(0, first, count), view.columns);
    const at::Tensor placed = view.flipped ? logits.flip(3) : logits;
    if (views_.size() == 1) return placed;
    const at::Tensor share = placed.softmax(1) / static_cast<double>(views_.size());
    sum = sum.defined() ? sum.add_(share) : share;
  }
  return sum;
}

at::Tensor DenseScores::labels() const {
  const at::Tensor& logits = views_.front().logits;
  const std::int64_t of_a_row = logits.size(0) * logits.size(1) * width_;
  const std::int64_t at_once = std::max<std::int64_t>(kMostScores / of_a_row, 1);
  std::vector<at::Tensor> parts;
  for (std::int64_t first = 0; first < height_; first += at_once) {
    parts.push_back(rows(first, std::min(at_once, height_ - first)).argmax(1));
  }
  return at::cat(parts, 1);
}

at::Tensor dense_logits(const DenseNetwork& network, const at::Tensor& images, std::int64_t height,
                        std::int64_t width, const DenseInference& inference) {
  return DenseScores(network, images, height, width, inference).rows(0, height);
}

}  // namespace ablate

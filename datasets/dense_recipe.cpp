#include "datasets/dense_recipe.h"

#include <functional>
#include <utility>
#include <vector>

#include "runner/core/error.h"
#include "runner/core/params.h"

namespace ablate {
namespace {

constexpr double kLargestSide = 1 << 14;

/// A pair of numbers in [least, most], the first `order` the second.
template <typename Order>
std::vector<double> read_pair(Params& params, std::string_view key, std::vector<double> fallback,
                              double least, double most, std::string_view help,
                              std::string_view form, Order order) {
  std::vector<double> pair = params.numbers(key, std::move(fallback), least, most, help);
  if (pair.size() != 2 || !order(pair[0], pair[1])) {
    params.fail(key, cat("[", join(pair), "]; accepted: ", form));
  }
  return pair;
}

}  // namespace

DenseRecipe read_dense_recipe(Params& params, int default_image_size, int& image_size,
                              double& flip) {
  image_size = static_cast<int>(params.integer("image_size", default_image_size, 8, 2048,
                                               "side of the square that training images give"));
  flip = params.number("flip", 0.5, 0, 1, "probability of a horizontal flip");
  DenseRecipe recipe;
  const std::vector<double> frame =
      read_pair(params, "resize", {4.0 * image_size, 1.0 * image_size}, 8, kLargestSide,
                "images are resized, proportions kept, to fit into this frame",
                "[long, short] with long >= short", std::greater_equal());
  recipe.frame_long = static_cast<int>(frame[0]);
  recipe.frame_short = static_cast<int>(frame[1]);
  const std::vector<double> ratio =
      read_pair(params, "ratio", {recipe.ratio_low, recipe.ratio_high}, 0.05, 20,
                "range of the factor of that frame in training", "[low, high] with low <= high",
                std::less_equal());
  recipe.ratio_low = ratio[0];
  recipe.ratio_high = ratio[1];
  recipe.cat_max_ratio =
      params.number("cat_max_ratio", recipe.cat_max_ratio, 0.01, 1,
                    "a square in which one class fills this share or more is drawn again");
  recipe.photometric = params.boolean("photometric", recipe.photometric,
                                      "distortion of brightness, contrast, saturation and hue");
  return recipe;
}

}  // namespace ablate

#include "methods/models/dense.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "methods/models/edit.h"
#include "methods/models/fold.h"
#include "methods/models/weights_io.h"
#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/support/models.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

using test::largest_difference;
using test::logits_of;
using test::make_model;
using test::TempFolder;

constexpr std::int64_t kAdeClasses = 150;

std::int64_t below(const Model& model, const std::string& prefix) {
  std::int64_t count = 0;
  for (const auto& item : model.named_parameters()) {
    if (item.key().starts_with(prefix)) count += item.value().numel();
  }
  return count;
}

/// Weights of a k x k convolution and its norm, or of a classifier.
std::int64_t conv_norm(std::int64_t in, std::int64_t out, std::int64_t k) {
  return in * out * k * k + 2 * out;
}

/// Of UPerNet at 512 channels on four maps of `c`, layer by layer.
std::int64_t upernet_head(std::int64_t c) {
  return 4 * conv_norm(c, 512, 1) + conv_norm(c + 4 * 512, 512, 3) + 3 * conv_norm(c, 512, 1) +
         3 * conv_norm(512, 512, 3) + conv_norm(4 * 512, 512, 3) + 513 * kAdeClasses;
}

struct DeitCase {
  const char* backbone;
  std::int64_t channels;
  double head, auxiliary, neck;  ///< millions, as published configurations have them
};

constexpr DeitCase kDeits[] = {{"deit_tiny_patch16_224", 192, 27.61, 0.48, 1.48},
                               {"deit_small_patch16_224", 384, 29.19, 0.92, 5.90},
                               {"deit_base_patch16_224", 768, 32.33, 1.81, 23.60}};

TEST(DenseModels, HaveTheParametersOfPublishedConfigurations) {
  for (const DeitCase& deit : kDeits) {
    const auto model = make_model(cat("upernet_", deit.backbone), "neck = 'multilevel'", 150);
    EXPECT_EQ(below(*model, "decode_head."), upernet_head(deit.channels));
    EXPECT_EQ(below(*model, "auxiliary_head."),
              conv_norm(deit.channels, 256, 3) + 257 * kAdeClasses);
    const auto millions = [&](const char* prefix) {
      return static_cast<double>(below(*model, prefix)) / 1e6;
    };
    EXPECT_NEAR(millions("decode_head."), deit.head, 0.005);
    EXPECT_NEAR(millions("auxiliary_head."), deit.auxiliary, 0.005);
    EXPECT_NEAR(millions("neck."), deit.neck, 0.005);
    EXPECT_EQ(model->image_size(), 512);
  }
}

constexpr const char* kSmallVit =
    "image_size = 32\npatch_size = 8\nembed_dim = 16\nnum_heads = 2\ndepth = 4\n";
constexpr const char* kSmallHead = "channels = 8\npool_scales = [1, 2]\nauxiliary_channels = 8\n";

std::shared_ptr<Model> small_upernet(const std::string& more = "") {
  auto model = make_model("upernet_vit", cat(kSmallVit, kSmallHead, more), 6);
  model->initialize(3);
  model->to(at::kDouble);
  model->eval();
  return model;
}

/// Texture that differs from place to place.
at::Tensor test_images(std::int64_t height, std::int64_t width) {
  return at::arange(2 * 3 * height * width, at::kDouble)
      .mul(0.37)
      .sin()
      .view({2, 3, height, width});
}

TEST(DenseModels, GiveScoresForImagesOfAnySize) {
  for (const char* name : {"upernet_vit", "linear_vit", "segmenter_vit", "upernet_resnet20"}) {
    const bool vit = std::string_view(name).ends_with("vit");
    const bool upernet = std::string_view(name).starts_with("upernet");
    auto model =
        make_model(name, cat(vit ? kSmallVit : "image_size = 32\n", upernet ? kSmallHead : ""), 6);
    model->initialize(1);
    model->to(at::kDouble);
    model->eval();
    const std::int64_t stride = vit ? 8 : 1;
    EXPECT_EQ(logits_of(*model, test_images(32, 32)).sizes(),
              (std::vector<std::int64_t>{2, 6, 32 / stride, 32 / stride}));
    const at::Tensor odd = logits_of(*model, test_images(27, 41));
    EXPECT_EQ(odd.sizes(), (std::vector<std::int64_t>{2, 6, (27 + stride - 1) / stride,
                                                      (41 + stride - 1) / stride}));
    EXPECT_TRUE(odd.isfinite().all().item<bool>());
  }
}

TEST(DenseModels, PadAtTheBottomAndOnTheRight) {
  const auto model = small_upernet();
  const at::Tensor images = test_images(27, 41);
  const at::Tensor padded = at::constant_pad_nd(images, {0, 7, 0, 5});
  EXPECT_TRUE(at::equal(logits_of(*model, images), logits_of(*model, padded)));
}

// Positions follow the map: a model born for a larger one, with weights interpolated as files are.
TEST(DenseModels, InterpolatePositionsAsWeightsOfAnotherSizeAre) {
  const TempFolder folder;
  const auto model = small_upernet();
  save_weights(*model, folder / "w.safetensors");
  auto larger = make_model("upernet_vit",
                           cat("image_size = 48\npatch_size = 8\nembed_dim = 16\nnum_heads = 2\n",
                               "depth = 4\n", kSmallHead),
                           6);
  larger->to(at::kDouble);
  larger->eval();
  const LoadReport report = load_weights(*larger, folder / "w.safetensors");
  EXPECT_EQ(report.resized, std::vector<std::string>{"backbone.pos_embed"});
  EXPECT_LT(largest_difference(logits_of(*model, test_images(48, 48)),
                               logits_of(*larger, test_images(48, 48))),
            1e-12);
}

TEST(DenseModels, BeginWithTheBackboneOfAClassifier) {
  const TempFolder folder;
  auto classifier = make_model("vit", kSmallVit, 11);
  classifier->initialize(9);
  save_weights(*classifier, folder / "classifier.safetensors");
  for (const char* name : {"upernet_vit", "segmenter_vit"}) {
    const bool upernet = std::string_view(name) == "upernet_vit";
    auto model = make_model(name, cat(kSmallVit, upernet ? kSmallHead : ""), 6);
    model->initialize(1);
    const std::map<std::string, at::Tensor> before = [&] {
      std::map<std::string, at::Tensor> copies;
      for (const auto& [key, tensor] : named_tensors(*model)) copies[key] = tensor.clone();
      return copies;
    }();
    const LoadReport report = load_weights(*model, folder / "classifier.safetensors");
    const NamedTensors given = named_tensors(*classifier);
    for (const auto& [key, tensor] : named_tensors(*model)) {
      if (!key.starts_with("backbone.")) {
        EXPECT_TRUE(at::equal(tensor, before.at(key))) << key;
        EXPECT_TRUE(std::ranges::find(report.kept, key) != report.kept.end()) << key;
        continue;
      }
      const auto of_classifier =
          std::ranges::find(given, key.substr(9), [](const auto& pair) { return pair.first; });
      ASSERT_NE(of_classifier, given.end()) << key;
      EXPECT_TRUE(at::equal(tensor, of_classifier->second)) << key;
    }
  }
}

TEST(DenseModels, BeginWithTheBackboneThatAClassifierOfTheSeedHas) {
  auto classifier = make_model("vit", kSmallVit, 6);
  classifier->initialize(3);
  const auto model = make_model("upernet_vit", cat(kSmallVit, kSmallHead), 6);
  model->initialize(3);
  const auto parameters = model->named_parameters();
  for (const auto& item : classifier->named_parameters()) {
    if (item.key().starts_with("head") || item.key().starts_with("norm.")) continue;
    EXPECT_TRUE(at::equal(item.value(), parameters["backbone." + item.key()])) << item.key();
  }
}

TEST(DenseModels, RefuseABackboneOfAnotherKind) {
  const TempFolder folder;
  auto classifier = make_model("vit",
                               "image_size = 32\npatch_size = 8\nembed_dim = 24\n"
                               "num_heads = 2\ndepth = 4\n");
  classifier->initialize(1);
  save_weights(*classifier, folder / "other.safetensors");
  const auto model = small_upernet();
  EXPECT_NE(test::message_of<Error>([&] {
              load_weights(*model, folder / "other.safetensors");
            }).find("of another shape"),
            std::string::npos);
}

// Removed attention doubles the residual stream; a fold takes the doublings out of it without
// changing what the heads see.
TEST(DenseModels, FoldDoublingsWithoutChangingABit) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    for (const char* more : {"", "neck = 'multilevel'\nfinal_norm = true\n"}) {
      const auto model = small_upernet(more);
      model->to(type);
      Surgeon surgeon(*model);
      for (const int block : {0, 2}) {
        surgeon.apply(SetGains{block, 2.0, 0.0});
        surgeon.apply(RemoveMixer{block});
      }
      const at::Tensor images = test_images(32, 32).to(type);
      const at::Tensor before = logits_of(*model, images);
      EXPECT_EQ(fold_doublings(*model).scale, 4.0);
      EXPECT_TRUE(at::equal(logits_of(*model, images), before));
    }
  }
}

TEST(DenseModels, ReadBlocksOfChoiceAndRefuseOthers) {
  EXPECT_EQ(FeatureRequest{}.blocks_of(12), (std::vector<std::int64_t>{2, 5, 8, 11}));
  FeatureRequest thirds{.taps = FeatureRequest::Taps::Thirds};
  EXPECT_EQ(thirds.blocks_of(12), (std::vector<std::int64_t>{3, 5, 7, 11}));
  EXPECT_EQ(thirds.blocks_of(24), (std::vector<std::int64_t>{7, 11, 15, 23}));
  EXPECT_NE(test::message_of<SpecError>([&] {
              make_model("upernet_vit", cat(kSmallVit, kSmallHead, "out_indices = [1, 4]\n"), 6);
            }).find("there is no block 4; blocks are 0 to 3"),
            std::string::npos);
  EXPECT_NE(test::message_of<SpecError>([&] {
              make_model("upernet_vit", cat(kSmallVit, kSmallHead, "out_indices = [2, 1]\n"), 6);
            }).find("must rise"),
            std::string::npos);
  EXPECT_NE(test::message_of<SpecError>([&] {
              make_model("upernet_vit", cat(kSmallVit, kSmallHead, "auxiliary_level = 4\n"), 6);
            }).find("levels are 0 to 3"),
            std::string::npos);
}

}  // namespace
}  // namespace ablate

#include <gtest/gtest.h>

#include "methods/models/dense.h"
#include "methods/models/weights_io.h"
#include "methods/models/windows.h"
#include "runner/core/error.h"
#include "tests/support/models.h"
#include "tests/support/temp_folder.h"

// Feature maps of backbones, of images of any size.

namespace ablate {
namespace {

using test::largest_difference;

struct FamilyCase {
  const char *name, *model, *settings;
  std::int64_t stride;  ///< of the first map
};

/// Small ones of every family and kind of attention, without the side of the image.
constexpr FamilyCase kFamilies[] = {
    {"vit", "vit", "patch_size = 4\nembed_dim = 16\nnum_heads = 2\ndepth = 4\n", 4},
    {"flatten_vit", "flatten_vit", "patch_size = 4\nembed_dim = 16\nnum_heads = 2\ndepth = 4\n", 4},
    {"resnet", "resnet18", "", 4},
    {"swin", "swin",
     "patch_size = 2\nembed_dims = [8, 16]\ndepths = [2, 2]\nnum_heads = [2, 4]\n"
     "attention = 'SS'\nwindow = 5\n",
     2},
    {"flatten_swin", "swin",
     "patch_size = 2\nembed_dims = [8, 16]\ndepths = [2, 2]\nnum_heads = [2, 4]\n"
     "attention = 'LS'\nwindow = 3\nlinear_window = 6\n",
     2},
    {"pvt", "pvt",
     "patch_size = 2\nembed_dims = [8, 16]\ndepths = [1, 1]\nnum_heads = [1, 2]\n"
     "mlp_ratios = [2, 2]\nreductions = [2, 1]\nattention = 'SS'\n",
     2},
    {"flatten_pvt", "pvt",
     "patch_size = 2\nembed_dims = [8, 16]\ndepths = [1, 1]\nnum_heads = [1, 2]\n"
     "mlp_ratios = [2, 2]\nreductions = [1, 1]\nattention = 'LL'\n",
     2},
    {"cswin", "cswin",
     "patch_size = 2\nembed_dims = [8, 16]\ndepths = [1, 1]\nnum_heads = [2, 4]\n"
     "stripes = [3, 2]\nattention = 'SS'\n",
     2},
    {"flatten_cswin", "cswin",
     "patch_size = 2\nembed_dims = [8, 16]\ndepths = [1, 1]\nnum_heads = [2, 4]\n"
     "stripes = [3, 3]\nattention = 'LS'\n",
     2},
};

class BackboneFamilies : public testing::TestWithParam<FamilyCase> {
 protected:
  /// UPerNet, whose head sees all maps.
  static std::shared_ptr<Model> make(std::int64_t side) {
    auto model = test::make_model(cat("upernet_", GetParam().model),
                                  cat("image_size = ", side, "\n", GetParam().settings,
                                      "channels = 8\npool_scales = [1, 2]\n"),
                                  4);
    model->initialize(5);
    const at::NoGradGuard no_grad;
    for (at::Tensor& parameter : model->parameters()) {
      if (parameter.abs().max().item<double>() > 0) continue;
      parameter.copy_(at::arange(parameter.numel()).mul(0.7).sin().mul(0.2).view_as(parameter));
    }
    model->to(at::kDouble);
    model->eval();
    return model;
  }
  static at::Tensor images(std::int64_t height, std::int64_t width) {
    const at::Tensor k = at::arange(2 * 3 * height * width, at::kDouble);
    return (k * 0.37).sin().view({2, 3, height, width});
  }
  static std::vector<at::Tensor> maps_of(Model& model, const at::Tensor& images) {
    ForwardState state;
    const at::NoGradGuard no_grad;
    auto& backbone = const_cast<Backbone&>(dynamic_cast<DenseModel&>(model).backbone());
    return backbone.features(images, state);
  }
};

TEST_P(BackboneFamilies, GiveMapsOfTheirLevels) {
  const auto model = make(32);
  const auto levels = dynamic_cast<DenseModel&>(*model).backbone().feature_levels();
  EXPECT_EQ(levels.front().stride, GetParam().stride);
  for (const auto& [height, width] : {std::pair{32, 32}, {48, 32}, {27, 61}}) {
    const auto maps = maps_of(*model, images(height, width));
    ASSERT_EQ(maps.size(), levels.size());
    const std::int64_t unit = levels.back().stride;
    for (std::size_t i = 0; i < maps.size(); ++i) {
      EXPECT_EQ(maps[i].size(1), levels[i].channels);
      EXPECT_TRUE(maps[i].isfinite().all().item<bool>());
      const auto places = [&](std::int64_t length) {
        // Images are padded to the last stride; convolutions of residual networks round up as well.
        const bool padded = std::string_view(GetParam().name) != "resnet";
        const std::int64_t whole = padded ? (length + unit - 1) / unit * unit : length;
        return (whole + levels[i].stride - 1) / levels[i].stride;
      };
      EXPECT_EQ(maps[i].size(2), places(height)) << i;
      EXPECT_EQ(maps[i].size(3), places(width)) << i;
    }
  }
}

// Nothing but learnt positions knows how large images were when a model was made.
TEST_P(BackboneFamilies, SeeLargerImagesAsAModelMadeForThemDoes) {
  const test::TempFolder folder;
  const auto model = make(32), larger = make(48);
  save_weights(*model, folder / "w.safetensors");
  load_weights(*larger, folder / "w.safetensors");
  const auto maps = maps_of(*model, images(48, 48)), truth = maps_of(*larger, images(48, 48));
  for (std::size_t i = 0; i < maps.size(); ++i) {
    EXPECT_LT(largest_difference(maps[i], truth[i]), 1e-11) << i;
  }
}

TEST_P(BackboneFamilies, BeginWithTheWeightsOfTheirClassifier) {
  const test::TempFolder folder;
  const auto classifier =
      test::make_model(GetParam().model, cat("image_size = 32\n", GetParam().settings), 7);
  classifier->initialize(8);
  save_weights(*classifier, folder / "w.safetensors");
  const auto model = make(48);
  const LoadReport report = load_weights(*model, folder / "w.safetensors");
  const auto weights = model->named_parameters();
  std::int64_t equal = 0;
  for (const auto& item : classifier->named_parameters()) {
    const at::Tensor* own = weights.find("backbone." + item.key());
    if (own && own->sizes() == item.value().sizes()) {
      EXPECT_TRUE(at::equal(own->to(at::kFloat), item.value())) << item.key();
      ++equal;
    }
  }
  EXPECT_GT(equal, 10);
  for (const std::string& name : report.kept) {
    EXPECT_TRUE(!name.starts_with("backbone.") || name.starts_with("backbone.norm")) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, BackboneFamilies, testing::ValuesIn(kFamilies),
                         [](const auto& family) { return family.param.name; });

// A map that windows do not fill is one with zeros around it.
TEST(PaddedWindows, AreThoseOfTheMapWithZerosBelowAndOnTheRight) {
  for (const std::int64_t shift : {0, 1}) {
    Windows padded({5, 7}, {3, 4}, shift), filled({6, 8}, {3, 4}, shift);
    const at::Tensor map = at::arange(2 * 5 * 7 * 3, at::kDouble).view({2, 5, 7, 3});
    const at::Tensor tokens = map.flatten(1, 2);
    const at::Tensor surrounded = at::constant_pad_nd(map, {0, 0, 0, 1, 0, 1}).flatten(1, 2);
    EXPECT_TRUE(at::equal(padded.cut(tokens), filled.cut(surrounded)));
    EXPECT_TRUE(at::equal(padded.join(padded.cut(tokens)), tokens));
    EXPECT_EQ(padded.mask(map.options()).defined(), shift > 0);
    if (shift > 0) {
      EXPECT_TRUE(at::equal(padded.mask(map.options()), filled.mask(map.options())));
    }
  }
}

TEST(AnyWindowsOfMaps, KeepTheBornOneAndForgetOthers) {
  AnyWindows windows({8, 8}, {4, 0}, 0);
  const Windows* born = &windows.born();
  EXPECT_EQ(born->width(), 8);
  for (std::int64_t width = 4; width < 12; ++width) {
    Windows& made = windows.of(8 * width, 8);
    EXPECT_EQ(made.width(), width);
    EXPECT_EQ(made.map(), (MapSize{8, width}));
    EXPECT_EQ(&windows.of(64, 8), born);
    EXPECT_EQ(&windows.of(64, 0), born);
  }
}

}  // namespace
}  // namespace ablate

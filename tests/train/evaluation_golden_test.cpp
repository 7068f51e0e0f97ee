#include <filesystem>
#include <vector>

#include <gtest/gtest.h>

#include "datasets/loader.h"
#include "methods/models/weights_io.h"
#include "tests/support/datasets.h"
#include "tests/support/models.h"
#include "tests/support/source_tree.h"
#include "tests/support/temp_folder.h"
#include "tests/transforms/image_fixtures.h"

// From image files to logits as timm has them: tests/golden/make_evaluation_golden.py.

namespace ablate::test {
namespace {

namespace fs = std::filesystem;

SafetensorsFile evaluation_golden(const std::string& what) {
  return SafetensorsFile(source_root() / cat("tests/golden/evaluation_", what, ".safetensors"));
}

/// What the script cuts by, in its order.
struct Way {
  int side;
  const char* settings;
};
constexpr Way kWays[] = {{224, "crop_pct = 0.875"},
                         {224, "crop_pct = 0.9"},
                         {224, "crop_pct = 1.0"},
                         {224, "crop_pct = 0.875\ninterpolation = 'bilinear'"},
                         {384, "crop_pct = 0.875"}};

/// The three drawn images as an image folder of three classes.
DatasetSplits drawn_images(const TempFolder& root) {
  for (const char* name : {"grey", "tall", "wide"}) {
    for (const char* part : {"train", "val"}) {
      fs::create_directories(root / part / name);
      fs::copy(source_root() / cat("tests/golden/evaluation_", name, ".jpg"),
               root / part / name / "image.jpg");
    }
  }
  return open_dataset("imagefolder", "", root.path());
}

/// Rows of the goldens, which are wide, tall, grey, in the order of the folder.
at::Tensor in_folder_order(const at::Tensor& golden) { return golden.flip(0); }

/// All images of a set in evaluation, (N, 3, side, side).
at::Tensor evaluation_images(const std::shared_ptr<const Dataset>& set, const Way& way) {
  EvalLoader loader(set, make_recipe("none", way.side, way.settings),
                    {.global_batch = 5, .threads = 1});
  loader.start();
  std::vector<at::Tensor> parts;
  for (std::int64_t i = 0; i < loader.batches(); ++i) parts.push_back(loader.next().images);
  return at::cat(parts).narrow(0, 0, set->size());
}

/// The 8-bit pixels that normalised ones were made of.
std::uint32_t crc_of_pixels(const at::Tensor& normalized, const Normalization& statistics) {
  const auto channel = [](const std::array<float, 3>& values) {
    return at::tensor(at::ArrayRef<float>(values.data(), 3)).to(at::kDouble).view({3, 1, 1});
  };
  const at::Tensor pixels =
      ((normalized.to(at::kDouble) * channel(statistics.std) + channel(statistics.mean)) * 255)
          .round()
          .to(at::kByte)
          .permute({1, 2, 0})
          .contiguous();
  return crc32(
      std::span(pixels.const_data_ptr<std::uint8_t>(), static_cast<std::size_t>(pixels.numel())));
}

std::shared_ptr<Model> golden_classifier() {
  auto model = make_model("vit",
                          "image_size = 224\npatch_size = 16\nembed_dim = 12\ndepth = 2\n"
                          "num_heads = 2");
  model->to(at::kDouble);
  load_weights(*model, source_root() / "tests/golden/evaluation_weights.safetensors");
  model->eval();
  return model;
}

void expect_crcs(const at::Tensor& images, const at::Tensor& golden, const Dataset& set) {
  for (std::int64_t i = 0; i < images.size(0); ++i) {
    EXPECT_EQ(crc_of_pixels(images[i], set.facts().normalization), golden[i].item<std::int64_t>())
        << "image " << i;
  }
}

void expect_logits(const at::Tensor& images, const at::Tensor& golden) {
  const at::Tensor logits = logits_of(*golden_classifier(), images.to(at::kDouble));
  EXPECT_LT((logits - golden).abs().max().item<double>(), 1e-10);
}

TEST(Evaluation, GivesThePixelsAndLogitsOfTimm) {
  const TempFolder root;
  const auto set = drawn_images(root).test;
  ASSERT_EQ(set->size(), 3);
  const SafetensorsFile golden = evaluation_golden("output");
  for (std::size_t way = 0; way < std::size(kWays); ++way) {
    SCOPED_TRACE(cat(kWays[way].side, " ", kWays[way].settings));
    const at::Tensor images = evaluation_images(set, kWays[way]);
    expect_crcs(images, in_folder_order(golden.tensor(cat("crc.", way))), *set);
    if (!golden.has(cat("logits.", way))) continue;
    const at::Tensor rows = images.index_select(2, at::tensor({0, 111, 223}, at::kLong));
    const at::Tensor expected = in_folder_order(golden.tensor(cat("rows.", way)));
    EXPECT_LT((rows - expected).abs().max().item<float>(), 1e-6);
    expect_logits(images, in_folder_order(golden.tensor(cat("logits.", way))));
  }
}

TEST(Evaluation, OfTwoHundredPhotosGivesThePixelsAndLogitsOfTimm) {
  const fs::path photos = shared_folder() / "data/imagenet-sample/train";
  if (!fs::is_directory(photos)) {
    GTEST_SKIP() << "needs data/imagenet-sample below ABLATE_SHARED or ../shared";
  }
  const TempFolder root;
  fs::create_directory_symlink(fs::canonical(photos), root / "train");
  fs::create_directory_symlink(fs::canonical(photos), root / "val");
  const auto set = open_dataset("imagefolder", "", root.path()).test;
  ASSERT_EQ(set->size(), 200);
  const SafetensorsFile golden = evaluation_golden("photos");
  for (std::size_t way = 0; way < 2; ++way) {
    SCOPED_TRACE(kWays[way].settings);
    const at::Tensor images = evaluation_images(set, kWays[way]);
    expect_crcs(images, golden.tensor(cat("crc.", way)), *set);
    expect_logits(images, golden.tensor(cat("logits.", way)));
  }
}

}  // namespace
}  // namespace ablate::test

#include <fstream>
#include <span>

#include <gtest/gtest.h>

#include "datasets/decode.h"
#include "runner/core/files.h"
#include "tests/support/datasets.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_folder.h"
#include "tests/worker/ablate_train.h"

namespace ablate {
namespace {

constexpr const char* kShapes =
    "train_size = 32\ntest_size = 19\nimage_size = 16\nclasses = 4\nragged = true\n";

RunSpec train_dense(const std::filesystem::path& out) {
  const RunSpec spec = test::resolve_small(
      std::string("model = { name = 'linear_vit', image_size = 16, patch_size = 4, embed_dim = 16, "
                  "depth = 1, num_heads = 2 }\nepochs = 4\nglobal_batch = 16\noptimizer = { name = "
                  "'adamw', lr = 1e-2 }\n[dataset]\nname = 'synthetic_segmentation'\n") +
      kShapes);
  test::run_small(spec, out);
  std::ofstream(RunPaths(out, spec.id()).spec()) << spec.canonical();
  return spec;
}

template <typename Decode>
void read_png(const std::filesystem::path& file, Decode decode) {
  const std::string text = read_file(file);
  decode(std::span(reinterpret_cast<const std::uint8_t*>(text.data()), text.size()), file.string());
}

/// Intersection over union by class of the files in `folder` with the labels of a data set.
std::vector<double> iou_of_files(const std::filesystem::path& folder, const Dataset& data) {
  std::vector<double> hits(4), sums(4);
  for (std::int64_t i = 0; i < data.size(); ++i) {
    LabelMap truth, stored;
    data.load_labels(i, truth);
    read_png(folder / ("0000" + std::string(i < 10 ? "0" : "") + std::to_string(i) + ".png"),
             [&](std::span<const std::uint8_t> bytes, const std::string& name) {
               decode_label_map(bytes, name, stored);
             });
    EXPECT_EQ(stored.width, truth.width);
    EXPECT_EQ(stored.height, truth.height);
    for (std::size_t p = 0; p < truth.classes.size(); ++p) {
      const std::size_t wanted = truth.classes[p], said = stored.classes.at(p) - std::size_t{1};
      hits[wanted] += wanted == said ? 1 : 0;
      ++sums[wanted];
      if (wanted != said) ++sums.at(said);
    }
  }
  for (std::size_t k = 0; k < 4; ++k) hits[k] *= 100 / sums[k];
  return hits;
}

// The files are what was counted: the run's numbers of every class follow from them.
TEST(Predictions, AreWhatWasCounted) {
  const test::TempFolder out, maps;
  const RunSpec spec = train_dense(out.path());
  const auto data = test::open_dataset("synthetic_segmentation", kShapes).test;
  for (const int ranks : {1, 2}) {
    const std::filesystem::path folder = maps.path() / std::to_string(ranks);
    const auto report =
        test::json_of_ablate_train({"eval", RunPaths(out.path(), spec.id()).directory.string(),
                                    "--predictions", folder.string()},
                                   ranks);
    const std::vector<double> iou = iou_of_files(folder, *data);
    for (std::size_t k = 0; k < 4; ++k) {
      const auto& said = report.at("details").at("iou")[k];
      EXPECT_NEAR(said.is_null() ? iou[k] : said.get<double>(), iou[k], 1e-9) << k;
    }
    Image sheet;
    read_png(folder / "sheet.png",
             [&](std::span<const std::uint8_t> bytes, const std::string& name) {
               decode_image(bytes, name, sheet);
             });
    EXPECT_EQ(sheet.width, 3 * 256 + 2 * 4);
    EXPECT_GT(sheet.height, 5 * 150);
  }
}

TEST(Predictions, OfImagesWithALabelEachAreRefused) {
  const test::TempFolder out;
  const RunSpec spec = test::resolve_small(
      "model = { name = 'vit', image_size = 8, patch_size = 4, embed_dim = 16, depth = 1, "
      "num_heads = 2 }\nepochs = 1\nglobal_batch = 16\n[dataset]\nname = 'synthetic'\n"
      "train_size = 16\ntest_size = 8\nimage_size = 8\nclasses = 4\n");
  test::run_small(spec, out.path());
  const RunPaths paths(out.path(), spec.id());
  std::ofstream(paths.spec()) << spec.canonical();
  const CapturedRun run = test::run_ablate_train(
      {"eval", paths.directory.string(), "--predictions", (out.path() / "maps").string()});
  EXPECT_EQ(run.status.code, 2);
  EXPECT_NE(run.errors.find("a label an image"), std::string::npos) << run.errors;
}

}  // namespace
}  // namespace ablate

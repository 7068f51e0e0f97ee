#include <fstream>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/support/temp_folder.h"
#include "tests/train/run_tables.h"

namespace ablate::test {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kOnFolders = R"(
epochs = 1
global_batch = 4
dataset = { name = "imagefolder" }
model = { name = "vit", image_size = 32, embed_dim = 16, depth = 2, num_heads = 2 }
)";

// A set whose files are gone can only be known from before.
TEST(OpenedDatasets, AreNotOpenedAgain) {
  const TempFolder folder;
  for (const char* part : {"train/a", "train/b", "val/a"}) {
    fs::create_directories(folder / part);
    for (int i = 0; i < 3; ++i) std::ofstream(folder / part / (std::to_string(i) + ".jpg"));
  }
  const DataRoots roots{{"imagefolder", folder.path()}};
  OpenedDatasets opened;
  const auto resolve = [&](const std::vector<std::string>& overrides, OpenedDatasets* known) {
    return resolve_run(run_table(kOnFolders, overrides), {}, roots, 1, known);
  };
  const ResolvedRun first = resolve({"seed=1"}, &opened);
  EXPECT_EQ(first.train_size, 6);
  fs::remove_all(folder / "train");
  const ResolvedRun again = resolve({"seed=1"}, &opened);
  EXPECT_EQ(again.spec.id(), first.spec.id());
  EXPECT_EQ(again.train_size, first.train_size);
  EXPECT_EQ(again.classes, first.classes);

  EXPECT_THROW(resolve({"seed=1"}, nullptr), SpecError);
  EXPECT_THROW(resolve({"dataset.on_corrupt=skip"}, &opened), SpecError) << "other settings";
  EXPECT_THROW(resolve({"dataset.on_corrupt=skip"}, &opened), SpecError) << "is not remembered";
}

}  // namespace
}  // namespace ablate::test

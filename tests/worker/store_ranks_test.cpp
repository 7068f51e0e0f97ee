#include <fstream>

#include "runner/core/files.h"
#include "tests/support/source_tree.h"
#include "tests/support/temp_folder.h"
#include "tests/worker/ablate_train.h"

namespace ablate::test {
namespace {

/// The final weights' bytes of the only run below a folder.
std::string weights_below(const std::filesystem::path& out) {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(out)) {
    if (entry.path().filename() == "model.safetensors") return read_file(entry.path());
  }
  ADD_FAILURE() << "no weights below " << out;
  return {};
}

// Two ranks add two numbers in any order alike: the transport does not show.
TEST(RanksWithoutMpi, TrainTheWeightsOfRanksUnderMpi) {
  const TempFolder folder;
  const auto spec = (folder / "run.toml").string();
  std::ofstream(spec) << R"(
dataset = { name = "synthetic", train_size = 64, test_size = 20, image_size = 8, classes = 4 }
model = { name = "vit", image_size = 8, embed_dim = 16, depth = 2, num_heads = 2 }
epochs = 2
global_batch = 16
mix_group = 4
seed = 3
)";
  const auto arguments = [&](const char* out) {
    return std::vector<std::string>{"run",      spec, "--out", (folder / out).string(),
                                    "--device", "cpu"};
  };
  const CapturedRun mpi = run_ablate_train(arguments("mpi"), 2);
  ASSERT_EQ(mpi.status.code, 0) << mpi.errors;
  ProcessOptions options;
  options.arguments = {"scripts/ranks", "2", program("ablate-train").string()};
  for (const std::string& argument : arguments("store")) options.arguments.push_back(argument);
  options.environment = {{"OMP_NUM_THREADS", "1"}};
  options.working_folder = source_root();
  const CapturedRun store = run_and_capture(options, {}, 120);
  ASSERT_EQ(store.status.code, 0) << store.errors;
  EXPECT_TRUE(weights_below(folder / "mpi") == weights_below(folder / "store"));
}

}  // namespace
}  // namespace ablate::test

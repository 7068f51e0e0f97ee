#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "results/spool_reader.h"
#include "runner/core/files.h"
#include "runner/measure/cuda_devices.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_folder.h"
#include "tests/worker/ablate_train.h"

namespace ablate {
namespace {

using nlohmann::json;
using test::json_of_ablate_train;
using test::run_ablate_train;

constexpr const char* kStructureText = R"({"model": {"name": "vit", "params": {"image_size": 16,
  "embed_dim": 64, "depth": 2, "num_heads": 2}}, "classes": 4, "bn_group": 0, "edits": []})";

class BenchEvidence : public ::testing::Test {
 protected:
  BenchEvidence() { write_file_atomic(folder_ / "structure.json", kStructureText); }

  std::vector<std::string> bench(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments{
        "bench", "--structure", file("structure.json"), "--batch", "8", "--budget-seconds", "0.1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  std::string file(const std::string& name) const { return (folder_ / name).string(); }

  test::TempFolder folder_;
};

bool names_event(const json& trace, const std::string& name) {
  for (const json& event : trace.at("traceEvents")) {
    if (event.value("name", "") == name) return true;
  }
  return false;
}

TEST_F(BenchEvidence, AProfileIsATraceAndSaysThatTheCpuHasNoKernels) {
  const CapturedRun run =
      run_ablate_train(bench({"--protocol", "train", "--profile", file("trace.json")}));
  ASSERT_TRUE(run.status.success()) << run.errors;
  EXPECT_NE(run.errors.find("no device, hence no times"), std::string::npos) << run.errors;
  EXPECT_TRUE(names_event(json::parse(read_file(folder_ / "trace.json")), "aten::gelu"));
  EXPECT_EQ(json::parse(run.output).at("record").at("profile").at("ms"), json::object());
}

TEST_F(BenchEvidence, TheLargestBatchIsSoughtOnDevicesAlone) {
  const CapturedRun run = run_ablate_train(bench({"--max-batch"}));
  EXPECT_EQ(run.status.code, 2);
  EXPECT_NE(run.errors.find("--memory-budget-mib"), std::string::npos) << run.errors;
}

TEST_F(BenchEvidence, DevicesAreListedAsJson) {
  const json found = json_of_ablate_train({"devices", "--json"});
  EXPECT_EQ(found.at("devices").size(), find_cuda_devices().devices.size());
  EXPECT_TRUE(found.contains("driver") && found.contains("cudnn") && found.contains("nccl"));
}

using BenchEvidenceGpu = BenchEvidence;

TEST_F(BenchEvidenceGpu, DeviceTimeIsDividedByClassAndUtilisationKnown) {
  if (find_cuda_devices().devices.empty()) GTEST_SKIP() << "no CUDA device";
  const CapturedRun run =
      run_ablate_train(bench({"--protocol", "train", "--device", "cuda", "--dtype", "bf16",
                              "--profile", file("trace.json")}));
  ASSERT_TRUE(run.status.success()) << run.errors;
  const json result = json::parse(run.output);
  const json& profile = result.at("record").at("profile");
  for (const char* part : {"gemm", "attention", "norm", "activation", "optimizer"}) {
    EXPECT_GT(profile.at("ms").value(part, 0.0), 0) << part << profile;
  }
  EXPECT_LE(profile.at("busy_ms").get<double>(), profile.at("span_ms").get<double>());
  const json& machine = result.at("record").at("machine");
  EXPECT_TRUE(machine.contains("gpu_uuid")) << machine;
  const double mfu = result.at("rows").at(0).value("mfu", 0.0);
  EXPECT_GE(mfu, 0.0);
  EXPECT_LT(mfu, 1.0);
}

TEST(RunEvidence, ARunRecordsAFewStepsAndGoesOn) {
  const test::TempFolder folder;
  const std::string spec = (folder / "run.toml").string();
  write_file_atomic(spec, R"(epochs = 3
global_batch = 8
dataset = { name = "synthetic", train_size = 64, test_size = 16, image_size = 8, classes = 4 }
model = { name = "vit", image_size = 8, embed_dim = 16, depth = 2, num_heads = 2 }
)");
  const std::string trace = (folder / "trace.json").string();
  const CapturedRun run = run_ablate_train(
      {"run", spec, "--out", (folder / "out").string(), "--device", "cpu", "--profile", trace});
  ASSERT_TRUE(run.status.success()) << run.errors;
  EXPECT_NE(run.errors.find("profile of 5 steps"), std::string::npos) << run.errors;
  EXPECT_TRUE(names_event(json::parse(read_file(trace)), "aten::gelu"));
}

}  // namespace
}  // namespace ablate

#include <cstdlib>

#include <gtest/gtest.h>

#include "tests/cli/cli_fixture.h"

namespace ablate {
namespace {

using test::Cli;
using test::has;
using test::kSweep;

/// On a machine with a GPU, as far as the stand-in for the training program says.
class BenchDevice : public Cli {
 protected:
  BenchDevice() { ::setenv("FAKE_TRAIN_GPUS", "1", 1); }
  ~BenchDevice() override { ::unsetenv("FAKE_TRAIN_GPUS"); }
};

TEST_F(BenchDevice, IsThatOfTheRunsAndSoIsTheArithmetic) {
  const auto measured = [&](const std::string& name, const std::vector<std::string>& overrides) {
    std::string text = kSweep;
    text.replace(text.find("\"gmacs\""), 7, "\"images_per_s\"");
    std::vector<std::string> arguments = {"--out", name, "sweep", write(name + ".toml", text)};
    arguments.insert(arguments.end(), overrides.begin(), overrides.end());
    const CapturedRun swept = run(arguments);
    EXPECT_EQ(swept.status.code, 0) << swept.errors;
    return run({"--out", name, "query", "SELECT DISTINCT protocol, device FROM bench", "--format",
                "csv"})
        .output;
  };
  EXPECT_TRUE(has(measured("a", {"launch.device=cpu"}), "infer-fp32-b64,cpu\n"));
  EXPECT_TRUE(has(measured("b", {"launch.device=cuda"}), "infer-fp32-b64,cuda\n"));
  EXPECT_TRUE(has(measured("c", {"precision=bf16"}), "infer-bf16-b64,cuda\n"));
}

}  // namespace
}  // namespace ablate

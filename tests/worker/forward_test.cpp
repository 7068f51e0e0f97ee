#include <map>
#include <string>

#include <gtest/gtest.h>

#include "methods/models/safetensors.h"
#include "tests/support/models.h"
#include "tests/support/source_tree.h"
#include "tests/support/temp_folder.h"
#include "tests/worker/ablate_train.h"

namespace ablate {
namespace {

using test::run_ablate_train;
using test::TempFolder;

std::map<std::string, at::Tensor> read_all(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  std::map<std::string, at::Tensor> tensors;
  for (const std::string& name : file.names()) tensors[name] = file.tensor(name);
  return tensors;
}

double relative_error(const at::Tensor& got, const at::Tensor& expected) {
  const at::Tensor exact = expected.to(at::kDouble);
  return ((got.to(at::kDouble) - exact).norm() / exact.norm()).item<double>();
}

struct Golden {
  std::string name, model;
  std::string settings;  ///< of the model, as tests/golden/make_timm_golden.py builds it
  std::string classes = "10", tap = "blocks.0";
};

const Golden kPlain{"vit", "vit", "{ embed_dim = 18, depth = 2, num_heads = 3 }"};
const Golden kDistilled{
    "distilled", "vit",
    "{ image_size = 16, embed_dim = 12, depth = 2, num_heads = 2, distilled = true }"};
const Golden kSwin{"swin", "swin",
                   "{ image_size = 16, patch_size = 2, embed_dims = [8, 16], depths = [2, 1], "
                   "num_heads = [2, 4], attention = 'SS', window = 4 }",
                   "5", "layers.0.blocks.1"};

class ForwardGolden : public testing::TestWithParam<std::tuple<Golden, std::string>> {};

/// A key's bias moves all logits of a query alike, which softmax ignores: its true gradient is 0,
/// and what is computed is rounding.
bool is_zero_gradient(const std::string& name) { return name.ends_with("attn.qkv.bias"); }

at::Tensor without_keys(const at::Tensor& qkv_bias) {
  const auto parts = qkv_bias.chunk(3);
  return at::cat({parts[0], parts[2]});
}

TEST_P(ForwardGolden, LogitsTensorsAndGradientsAreThoseOfTimm) {
  const auto& [golden, dtype] = GetParam();
  const auto folder = test::source_root() / "tests/golden";
  const auto file = [&](const char* kind) {
    return (folder / (golden.name + "_" + kind + ".safetensors")).string();
  };
  const TempFolder temp;
  const CapturedRun run = run_ablate_train(
      {"forward", "--model", golden.model, "--model-params", golden.settings, "--classes",
       golden.classes, "--weights", file("weights"), "--input", file("input"), "--output",
       temp / "y.safetensors", "--taps", golden.tap, "--grad", "--dtype", dtype});
  ASSERT_EQ(run.status.code, 0) << run.errors;
  const auto results = read_all(temp / "y.safetensors");
  const double bound = dtype == "fp64" ? 1e-9 : 1e-5;
  for (auto [name, expected] : read_all(file("output"))) {
    ASSERT_TRUE(results.contains(name)) << name;
    at::Tensor got = results.at(name);
    EXPECT_EQ(got.scalar_type(), dtype == "fp64" ? at::kDouble : at::kFloat);
    ASSERT_EQ(got.sizes(), expected.sizes()) << name;
    if (is_zero_gradient(name)) {
      got = without_keys(got);
      expected = without_keys(expected);
    }
    EXPECT_LE(relative_error(got, expected), bound) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Timm, ForwardGolden,
                         testing::Combine(testing::Values(kPlain, kDistilled, kSwin),
                                          testing::Values("fp64", "fp32")),
                         [](const auto& instance) {
                           return std::get<0>(instance.param).name + "_" +
                                  std::get<1>(instance.param);
                         });

/// A small transformer on images of 8 x 8, weights drawn from the seed.
class Forward : public testing::Test {
 protected:
  Forward() { write_safetensors(input_, {{"images", test::wavy_images(3, 8)}}); }

  CapturedRun run(std::vector<std::string> more) {
    std::vector<std::string> arguments{
        "forward",
        "--model",
        "vit",
        "--model-params",
        "{ image_size = 8, embed_dim = 16, depth = 3, num_heads = 2 }",
        "--classes",
        "5",
        "--input",
        input_.string(),
        "--output",
        output_.string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_ablate_train(std::move(arguments));
  }

  at::Tensor logits(std::vector<std::string> more) {
    const CapturedRun done = run(std::move(more));
    EXPECT_EQ(done.status.code, 0) << done.errors;
    return SafetensorsFile(output_).tensor("logits");
  }

  TempFolder folder_;
  std::filesystem::path input_ = folder_ / "x.safetensors", output_ = folder_ / "y.safetensors";
};

TEST_F(Forward, MethodsChangeTheModelAndFoldingDoesNot) {
  const at::Tensor plain = logits({});
  const std::vector<std::string> removal{"--methods", "[{ name = \"nose\", layers = [1] }]"};
  const at::Tensor removed = logits(removal);
  EXPECT_FALSE(plain.equal(removed));
  EXPECT_TRUE(removed.equal(logits({removal[0], removal[1], "--fold"})));
}

TEST_F(Forward, ASearchNeedsDataThatIsNotThere) {
  const CapturedRun done = run({"--methods", "[{ name = \"nose\", remove = 1 }]"});
  EXPECT_EQ(done.status.code, 2);
  EXPECT_NE(done.errors.find("layers = [...]"), std::string::npos) << done.errors;
  EXPECT_FALSE(std::filesystem::exists(output_));
}

TEST_F(Forward, SaysWhatIsWrongWithItsInput) {
  const CapturedRun no_weight = run({"--grad"});
  EXPECT_EQ(no_weight.status.code, 2);
  EXPECT_NE(no_weight.errors.find("no tensor \"loss_weight\"; it has images"), std::string::npos)
      << no_weight.errors;
  const CapturedRun no_tap = run({"--taps", "blocks.7"});
  EXPECT_EQ(no_tap.status.code, 2);
  EXPECT_NE(no_tap.errors.find("blocks.7"), std::string::npos) << no_tap.errors;
  write_safetensors(input_, {{"images", test::wavy_images(1, 4)}});
  const CapturedRun small = run({});
  EXPECT_EQ(small.status.code, 2);
  EXPECT_NE(small.errors.find("wanted (-1, 3, 8, 8)"), std::string::npos) << small.errors;
}

}  // namespace
}  // namespace ablate

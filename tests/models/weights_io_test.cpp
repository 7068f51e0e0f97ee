#include "methods/models/weights_io.h"

#include <cstring>
#include <fstream>

#include <gtest/gtest.h>

#include "methods/models/edit.h"
#include "runner/core/files.h"
#include "tests/core/expect_error.h"
#include "tests/support/models.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

using test::make_model;
using test::message_of;
using test::TempFolder;

constexpr char kSmall[] = "depth = 1\nembed_dim = 8\nnum_heads = 2\nimage_size = 16";

std::string little_endian(std::uint64_t value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

/// A file with the given header text and data.
std::filesystem::path raw_file(const TempFolder& folder, const std::string& header,
                               const std::string& data) {
  const auto path = folder / "raw.safetensors";
  write_file_atomic(path, little_endian(header.size()) + header + data);
  return path;
}

TEST(Safetensors, ReadsTheFormatByteForByte) {
  const TempFolder folder;
  const float values[] = {1.5F, -2.0F, 3.25F};
  std::string data(reinterpret_cast<const char*>(values), sizeof values);
  data += '\x07';
  const auto path = raw_file(folder,
                             R"({"__metadata__":{"format":"pt"},"b":{"dtype":"U8","shape":[1],)"
                             R"("data_offsets":[12,13]},"a":{"dtype":"F32","shape":[3,1],)"
                             R"("data_offsets":[0,12]}}   )",
                             data);
  const SafetensorsFile file(path);
  EXPECT_EQ(file.names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_TRUE(at::equal(file.tensor("a"), at::tensor({1.5F, -2.0F, 3.25F}).view({3, 1})));
  EXPECT_EQ(file.tensor("b").item<int>(), 7);
  EXPECT_NE(message_of<Error>([&] { file.tensor("c"); }).find("no tensor \"c\""),
            std::string::npos);
}

TEST(Safetensors, RoundTripsEveryType) {
  const TempFolder folder;
  const auto path = folder / "all.safetensors";
  NamedTensors tensors;
  for (const auto type :
       {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kByte}) {
    tensors.emplace_back(cat("t", tensors.size()), at::arange(6).view({2, 3}).to(type));
  }
  tensors.emplace_back("scalar", at::tensor(2.5));
  tensors.emplace_back("empty", at::empty({0, 4}));
  tensors.emplace_back("transposed", at::arange(6, at::kFloat).view({2, 3}).t());
  write_safetensors(path, tensors, {{"note", "a \"quoted\" text"}});
  const SafetensorsFile file(path);
  EXPECT_EQ(file.names().size(), tensors.size());
  EXPECT_EQ(file.metadata().at("note"), "a \"quoted\" text");
  for (const auto& [name, tensor] : tensors) {
    EXPECT_EQ(file.tensor(name).scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(at::equal(file.tensor(name), tensor)) << name;
  }
  // The data start at a multiple of 8, for readers that map the file.
  std::uint64_t length = 0;
  std::memcpy(&length, read_file(path).data(), sizeof length);
  EXPECT_EQ(length % 8, 0U);
  EXPECT_THROW(write_safetensors(path, {{"complex", at::zeros({1}, at::kComplexFloat)}}), Error);
}

TEST(Safetensors, RefusesBrokenFilesByName) {
  const TempFolder folder;
  const auto refusal = [&](const std::string& header, const std::string& data) {
    const auto path = raw_file(folder, header, data);
    const std::string message = message_of<Error>([&] { SafetensorsFile file(path); });
    EXPECT_NE(message.find(path.string()), std::string::npos);
    return message;
  };
  const std::string four(4, '\0');
  EXPECT_NE(refusal(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", four)
                .find("\"x\" lies at bytes 0 to 8 of 4"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", four)
                .find("shape (2) and type F32 has 4 bytes"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", four)
                .find("bytes 4 to 0"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"x":{"dtype":"F8","shape":[4],"data_offsets":[0,4]}})", four)
                .find("type F8, accepted"),
            std::string::npos);
  EXPECT_NE(
      refusal(R"({"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", four).find("\"x\""),
      std::string::npos);
  EXPECT_NE(
      refusal(R"({"x":{"dtype":"F32","shape":[4294967296,4294967297],"data_offsets":[0,4]}})", four)
          .find("\"x\""),
      std::string::npos);
  EXPECT_NE(refusal(R"({"x":{"dtype":"F32","shape":[1]}})", four).find("data_offsets"),
            std::string::npos);
  EXPECT_NE(refusal("{nonsense", four).find("header"), std::string::npos);

  const auto path = folder / "short.safetensors";
  write_file_atomic(path, "abc");
  EXPECT_NE(message_of<Error>([&] { SafetensorsFile file(path); }).find("too few"),
            std::string::npos);
  write_file_atomic(path, little_endian(1000) + "{}");
  EXPECT_NE(message_of<Error>([&] { SafetensorsFile file(path); }).find("header of 1000 bytes"),
            std::string::npos);
  EXPECT_NE(message_of<Error>([&] { SafetensorsFile file(folder / "none"); }).find("No such file"),
            std::string::npos);
}

TEST(Weights, RoundTripParametersAndBuffers) {
  const TempFolder folder;
  for (const auto& [name, settings] : {std::pair{"vit", kSmall}, std::pair{"resnet20", ""}}) {
    const auto saved = make_model(name, settings), loaded = make_model(name, settings);
    saved->initialize(1);
    loaded->initialize(2);
    for (at::Tensor& buffer : saved->buffers()) buffer.add_(3);
    save_weights(*saved, folder / name, {{"model", name}});
    const LoadReport report = load_weights(*loaded, folder / name);
    EXPECT_TRUE(report.resized.empty() && report.kept.empty());
    const NamedTensors a = named_tensors(*saved), b = named_tensors(*loaded);
    for (std::size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i].second, b[i].second));
  }
}

TEST(Weights, ConvertFromOtherFloatingTypes) {
  const TempFolder folder;
  const auto saved = make_model("vit", kSmall), loaded = make_model("vit", kSmall);
  saved->initialize(1);
  saved->to(at::kBFloat16);
  save_weights(*saved, folder / "w");
  load_weights(*loaded, folder / "w");
  for (const auto& [name, tensor] : named_tensors(*loaded)) {
    EXPECT_EQ(tensor.scalar_type(), at::kFloat);
    EXPECT_TRUE(at::equal(tensor, saved->named_parameters()[name].to(at::kFloat)));
  }
}

TEST(Weights, NameEverythingThatDoesNotFitAndTouchNothing) {
  const TempFolder folder;
  const auto model = make_model("vit", kSmall);
  model->initialize(1);
  NamedTensors tensors = named_tensors(*model);
  for (auto& [name, tensor] : tensors) tensor = tensor.detach().clone().add_(1);
  tensors[0].first = "class_token";
  tensors.back().second = at::zeros({11});
  write_safetensors(folder / "w", tensors);
  const at::Tensor before = model->named_parameters()["norm.weight"].clone();
  const std::string message = message_of<Error>([&] { load_weights(*model, folder / "w"); });
  EXPECT_NE(message.find("missing: cls_token"), std::string::npos) << message;
  EXPECT_NE(message.find("unexpected: class_token"), std::string::npos) << message;
  EXPECT_NE(message.find("head.bias (file: 11, model: 10)"), std::string::npos) << message;
  EXPECT_NE(message.find("init.reset_head = true"), std::string::npos) << message;
  EXPECT_TRUE(at::equal(model->named_parameters()["norm.weight"], before));
}

TEST(Weights, StartANewHeadOnlyWhenAsked) {
  const TempFolder folder;
  const auto source = make_model("vit", kSmall, 1000), target = make_model("vit", kSmall, 10);
  source->initialize(1);
  target->initialize(2);
  save_weights(*source, folder / "w");
  EXPECT_THROW(load_weights(*target, folder / "w"), Error);
  const at::Tensor head = target->named_parameters()["head.weight"].clone();
  const LoadReport report = load_weights(*target, folder / "w", {.reset_head = true});
  EXPECT_EQ(report.kept, (std::vector<std::string>{"head.weight", "head.bias"}));
  EXPECT_TRUE(at::equal(target->named_parameters()["head.weight"], head));
  EXPECT_TRUE(at::equal(target->named_parameters()["norm.weight"],
                        source->named_parameters()["norm.weight"]));
}

// What older files of timm hold beside the weights of windowed attention follows from the shape.
TEST(Weights, TakeFilesThatHoldIndicesAndMasksOfWindows) {
  const TempFolder folder;
  const char* settings =
      "image_size = 16\nembed_dims = [8]\ndepths = [2]\nnum_heads = [2]\n"
      "attention = 'S'\nwindow = 4";
  const auto written = make_model("swin", settings), read = make_model("swin", settings);
  written->initialize(1);
  read->initialize(2);
  NamedTensors tensors = named_tensors(*written);
  tensors.emplace_back("layers.0.blocks.0.attn.relative_position_index",
                       at::zeros({16, 16}, at::kLong));
  tensors.emplace_back("layers.0.blocks.1.attn_mask", at::zeros({4, 16, 16}));
  write_safetensors(folder / "old.safetensors", tensors);
  load_weights(*read, folder / "old.safetensors");
  const at::Tensor images = test::wavy_images(1, 16);
  EXPECT_TRUE(at::equal(test::logits_of(*written, images), test::logits_of(*read, images)));
  tensors.emplace_back("layers.0.blocks.1.attn.other", at::zeros({1}));
  write_safetensors(folder / "other.safetensors", tensors);
  EXPECT_NE(message_of<Error>([&] {
              load_weights(*read, folder / "other.safetensors");
            }).find("unexpected: layers.0.blocks.1.attn.other"),
            std::string::npos);
}

// What lost attention saves without its keys and loads into the structure that its edits make, not
// into another.
TEST(Weights, OfAShrunkModelFillTheReplayedStructureAlone) {
  const TempFolder folder;
  const auto shrink = [](Model& model) {
    Surgeon surgeon(model);
    surgeon.apply(SetGains{1, 2, 0});
    surgeon.apply(RemoveMixer{1});
  };
  const auto trained = test::golden_vit();
  shrink(*trained);
  save_weights(*trained, folder / "w");
  for (const std::string& name : SafetensorsFile(folder / "w").names()) {
    EXPECT_FALSE(name.starts_with("blocks.1.attn") || name.starts_with("blocks.1.norm1")) << name;
  }
  const auto restored = test::golden_vit(), dense = test::golden_vit();
  for (at::Tensor& parameter : restored->parameters()) parameter.detach().zero_();
  shrink(*restored);
  load_weights(*restored, folder / "w");
  EXPECT_TRUE(at::equal(test::logits_of(*restored, test::golden_images()),
                        test::logits_of(*trained, test::golden_images())));
  const std::string message = message_of<Error>([&] { load_weights(*dense, folder / "w"); });
  EXPECT_NE(message.find("missing: blocks.1.norm1.weight"), std::string::npos) << message;
}

// Cubic convolution with a = -0.75, worked out by hand.
TEST(PositionEmbedding, ResizesBicubicallyWithoutAntialias) {
  const at::Tensor grid = at::tensor({9.0, 0.0, 1.0, 2.0, 3.0}, at::kDouble).view({1, 5, 1});
  const at::Tensor resized = resize_position_embedding(grid, 17, PositionResize::Bicubic);
  ASSERT_EQ(resized.size(1), 17);
  EXPECT_EQ(resized[0][0][0].item<double>(), 9.0);
  const at::Tensor expected = at::tensor({-0.31640625, 0.015625, 0.5625, 0.89453125}, at::kDouble);
  EXPECT_TRUE(at::allclose(resized.flatten().narrow(0, 1, 4), expected, 0, 1e-12));
  // Two leading tokens stay, and none is a grid of its own.
  const at::Tensor two = at::cat({at::full({1, 1, 1}, 8.0, at::kDouble), grid}, 1);
  EXPECT_TRUE(at::equal(
      resize_position_embedding(two, 18, PositionResize::Bicubic).narrow(1, 1, 17), resized));
  EXPECT_THROW(resize_position_embedding(grid, 16, PositionResize::Bicubic), Error);
}

// Values x + 2y on a grid of 2 x 2: each axis is a weighted mean of 0 and 1, worked out by hand
// from a = -0.5 with weights that sum to 1 inside the grid, and from the hat function.
TEST(PositionEmbedding, ResizesByTheOtherFilters) {
  const at::Tensor grid = at::tensor({9.0, 0.0, 1.0, 2.0, 3.0}, at::kDouble).view({1, 5, 1});
  const auto first_row = [&](PositionResize how) {
    return resize_position_embedding(grid, 17, how).flatten().narrow(0, 1, 4);
  };
  const double edge = -3.0 / 34, inner = 29.0 / 140;
  const at::Tensor antialiased =
      at::tensor({edge, inner, 1 - inner, 1 - edge}, at::kDouble) + 2 * edge;
  EXPECT_TRUE(at::allclose(first_row(PositionResize::BicubicAntialias), antialiased, 0, 1e-12));
  const at::Tensor bilinear = at::tensor({0.0, 0.25, 0.75, 1.0}, at::kDouble);
  EXPECT_TRUE(at::allclose(first_row(PositionResize::Bilinear), bilinear, 0, 1e-12));
}

TEST(PositionEmbedding, OfAHalfPrecisionFileIsResizedInSinglePrecision) {
  const at::Tensor grid = at::arange(17 * 8, at::kFloat).sin().view({1, 17, 8}).to(at::kHalf);
  for (const PositionResize how :
       {PositionResize::Bicubic, PositionResize::BicubicAntialias, PositionResize::Bilinear}) {
    const at::Tensor resized = resize_position_embedding(grid, 65, how);
    EXPECT_TRUE(at::equal(resized, resize_position_embedding(grid.to(at::kFloat), 65, how)));
  }
}

TEST(PositionEmbedding, IsResizedOnLoadingForAnotherImageSize) {
  const TempFolder folder;
  const auto small = make_model("vit", kSmall);
  const auto large = make_model("vit", "depth = 1\nembed_dim = 8\nnum_heads = 2\nimage_size = 32");
  small->initialize(1);
  large->initialize(2);
  save_weights(*small, folder / "w");
  EXPECT_EQ(load_weights(*large, folder / "w").resized, std::vector<std::string>{"pos_embed"});
  const at::Tensor from = small->named_parameters()["pos_embed"];
  const at::Tensor to = large->named_parameters()["pos_embed"];
  EXPECT_TRUE(at::equal(to.narrow(1, 0, 1), from.narrow(1, 0, 1)));
  EXPECT_TRUE(at::allclose(to, resize_position_embedding(from, 65, PositionResize::Bicubic)));
}

}  // namespace
}  // namespace ablate

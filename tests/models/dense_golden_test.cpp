#include <filesystem>
#include <map>

#include <gtest/gtest.h>

#include "methods/models/weights_io.h"
#include "tests/support/models.h"
#include "tests/support/source_tree.h"

// Small dense models against files that PyTorch wrote (tests/golden/make_dense_golden.py).

namespace ablate {
namespace {

struct DenseGolden {
  const char *file, *model, *settings;
};

constexpr DenseGolden kDenseGoldens[] = {
    {"upernet", "upernet_vit", "auxiliary_channels = 8\n"},
    {"upernet_pyramid", "upernet_vit",
     "auxiliary_channels = 8\nneck = 'pyramid'\nout_indices = [0, 1, 2, 3]\n"},
    {"upernet_multilevel", "upernet_vit",
     "auxiliary_channels = 8\nneck = 'multilevel'\nfinal_norm = true\n"},
    {"segmenter", "segmenter_vit", "decoder_head_dim = 4\n"},
};

class DenseGoldens : public testing::TestWithParam<DenseGolden> {
 protected:
  DenseGoldens()
      : file_(test::source_root() / "tests" / "golden" / cat(GetParam().file, ".safetensors")) {
    const bool upernet = std::string_view(GetParam().model).starts_with("upernet");
    model_ = test::make_model(
        GetParam().model,
        cat("image_size = 24\npatch_size = 4\nembed_dim = 8\nnum_heads = 2\n", "depth = 4\n",
            GetParam().settings,
            upernet ? "channels = 8\npool_scales = [1, 2, 3]\ndropout = 0.0\n" : ""),
        5);
    model_->to(at::kDouble);
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : named_tensors(*model_)) {
      at::Tensor(tensor).copy_(file_.tensor("weight." + name));
    }
  }
  at::Tensor golden(const std::string& name) const { return file_.tensor(name).to(at::kDouble); }

  SafetensorsFile file_;
  std::shared_ptr<Model> model_;
};

TEST_P(DenseGoldens, HasTheParametersOfTheOther) {
  std::size_t weights = 0;
  for (const std::string& name : file_.names()) weights += name.starts_with("weight.") ? 1 : 0;
  EXPECT_EQ(named_tensors(*model_).size(), weights);
}

TEST_P(DenseGoldens, TrainsOnTheSameNumbers) {
  model_->train();
  ForwardState state;
  const at::Tensor logits = model_->forward(golden("images"), state);
  EXPECT_LT(test::largest_difference(logits.detach(), golden("logits")), 1e-9);
  at::Tensor loss = (logits * golden("loss_weight")).sum();
  EXPECT_EQ(state.auxiliary_logits.defined(), file_.has("auxiliary"));
  if (state.auxiliary_logits.defined()) {
    EXPECT_LT(test::largest_difference(state.auxiliary_logits.detach(), golden("auxiliary")), 1e-9);
    loss = loss + 0.4 * (state.auxiliary_logits * golden("auxiliary_weight")).sum();
  }
  loss.backward();
  for (const auto& item : model_->named_parameters()) {
    const at::Tensor truth = golden("grad." + item.key());
    EXPECT_LT(test::largest_difference(item.value().grad(), truth),
              1e-9 * (1.0 + truth.abs().max().item<double>()))
        << item.key();
  }
}

TEST_P(DenseGoldens, EvaluatesImagesOfAnotherSize) {
  model_->eval();
  EXPECT_LT(
      test::largest_difference(test::logits_of(*model_, golden("wide_images")), golden("wide")),
      1e-9);
}

INSTANTIATE_TEST_SUITE_P(All, DenseGoldens, testing::ValuesIn(kDenseGoldens),
                         [](const auto& golden) { return golden.param.file; });

}  // namespace
}  // namespace ablate

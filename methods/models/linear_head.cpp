#include <memory>

#include "methods/models/dense.h"
#include "methods/models/dense_layers.h"
#include "runner/core/params.h"

// A linear classifier of tokens (Strudel et al., "Segmenter", ICCV 2021, the baseline of its
// decoder).

namespace ablate::models::linear_head {
namespace {

class LinearHead final : public DenseHead {
 public:
  LinearHead(std::int64_t channels, std::int64_t classes)
      : head_(register_module("head", std::make_shared<Linear>(channels, classes))) {}

  at::Tensor forward(const std::vector<at::Tensor>& maps, ForwardState& state) override {
    return classify_places(maps.back(), *head_, state);
  }
  void initialize(std::uint64_t seed, const std::string& name) override {
    initialize_dense(*this, seed, name);
  }
  std::vector<std::string> class_modules() const override { return {"head"}; }

 private:
  std::shared_ptr<Linear> head_;
};

DensePlan configure_linear(Params&, Features) {
  return {{.taps = FeatureRequest::Taps::Last, .final_norm = true},
          [](const std::vector<FeatureLevel>& levels, const ModelContext& context) {
            return DenseParts{
                .head = std::make_shared<LinearHead>(levels.back().channels, context.num_classes)};
          }};
}

const RegisterDenseHead added{{
    .name = "linear",
    .summary = "linear classifier of tokens",
    .family = "linear_head",
    .semantics = 1,
    .one_stride_only = true,
    .batch_norm = false,
    .example = "",
    .configure = configure_linear,
}};

}  // namespace
}  // namespace ablate::models::linear_head

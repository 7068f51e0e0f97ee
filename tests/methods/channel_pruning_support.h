#pragma once

#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "methods/method_stack.h"
#include "tests/support/method_context.h"
#include "tests/support/models.h"

namespace ablate::test {

inline constexpr const char* kPrunedVit =
    "image_size = 16\npatch_size = 4\nembed_dim = 32\ndepth = 3\nnum_heads = 4";

inline std::shared_ptr<Model> model_to_prune(const std::string& name, const std::string& settings) {
  auto model = make_model(name, settings, 4);
  model->initialize(1);
  return model;
}

inline std::shared_ptr<Model> vit_to_prune() { return model_to_prune("vit", kPrunedVit); }

inline std::unique_ptr<MethodContext> pruning_context(Model& model, std::int64_t epochs) {
  auto context = std::make_unique<MethodContext>(model);
  context->length = epochs;
  context->per_epoch = 4;
  context->batches = {{wavy_images(16, model.image_size()), at::ones({16})}};
  return context;
}

inline MethodStack pruning_stack(const std::string& settings) {
  return MethodStack({method_component("name = 'channel_pruning'\n" + settings)});
}

/// Applies at once (no epochs) and returns the share of MACs left.
inline double share_after(const std::string& settings,
                          const std::shared_ptr<Model>& model = vit_to_prune()) {
  const auto context = pruning_context(*model, 0);
  const double before = static_cast<double>(context->macs());
  MethodStack stack = pruning_stack(settings);
  stack.apply(*context);
  stack.finalize(context->surgeon());
  EXPECT_TRUE(stack.settled());
  const double after = static_cast<double>(context->macs());
  // What the plan said is what is counted.
  EXPECT_NEAR(context->metrics.at("channel_pruning/cut_macs").back(), after / before, 1e-12)
      << settings;
  return after / before;
}

}  // namespace ablate::test

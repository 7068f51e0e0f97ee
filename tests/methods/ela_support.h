#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "methods/method_stack.h"
#include "methods/models/batch_norm.h"
#include "tests/support/method_context.h"
#include "tests/support/models.h"

namespace ablate::test {

/// The method "ela" on a model, driven through epochs of one pass each, without an optimizer.
class ElaRun {
 public:
  ElaRun(std::shared_ptr<Model> model, const std::string& settings, std::int64_t epochs)
      : model_(std::move(model)), context_(*model_), stack_(component(settings)) {
    start(epochs);
  }
  ElaRun(std::shared_ptr<Model> model, const std::string& settings, std::int64_t epochs,
         Communicator& world)
      : model_(std::move(model)), context_(*model_, world), stack_(component(settings)) {
    start(epochs);
  }

  /// Start of the present epoch.
  void begin_epoch() {
    stack_.on_epoch(context_, EpochEdge::Start);
    stack_.between_steps(context_);
  }
  /// One training pass; the logits.
  at::Tensor pass(const at::Tensor& images, std::int64_t first_position = 0,
                  std::int64_t global_batch = 0) {
    ForwardState state;
    state.step = context_.now;
    state.first_position = first_position;
    state.global_batch = global_batch;
    stack_.before_pass(context_, state);
    const at::Tensor logits = model_->forward(images, state);
    history = state.layer_history;
    stack_.after_pass(context_, state);
    synchronize_running_statistics(*model_, context_.communicator());
    return logits;
  }
  void end_epoch() {
    stack_.on_epoch(context_, EpochEdge::End);
    ++context_.now;
  }
  void epoch(const at::Tensor& images) {
    begin_epoch();
    pass(images);
    end_epoch();
  }

  /// Numbers of the blocks whose retrieval is skipped or gone.
  std::vector<int> skipped() {
    std::vector<int> numbers;
    const auto sites = model_->layer_sites();
    for (std::size_t i = 0; i < sites.size(); ++i) {
      const LayerAttention* attention = sites[i]->layer_attention();
      if (!attention || attention->skip() != SkipMode::None) numbers.push_back(static_cast<int>(i));
    }
    return numbers;
  }
  /// Bodies of the events of the method.
  std::vector<nlohmann::json> events() const {
    std::vector<nlohmann::json> bodies;
    for (const auto& [kind, body] : context_.events) {
      if (kind == "ela_epoch") bodies.push_back(body);
    }
    return bodies;
  }

  Model& model() { return *model_; }
  MethodContext& context() { return context_; }
  MethodStack& stack() { return stack_; }
  std::shared_ptr<LayerHistory> history;  ///< of the last pass

 private:
  static std::vector<Component> component(const std::string& settings) {
    return {method_component("name = 'ela'\n" + settings)};
  }
  void start(std::int64_t epochs) {
    context_.length = epochs;
    stack_.apply(context_);
    model_->train();
  }

  std::shared_ptr<Model> model_;
  MethodContext context_;
  MethodStack stack_;
};

/// Initialised; blocks of 4 images share BatchNorm statistics.
inline std::shared_ptr<Model> small_resnet(const std::string& name = "resnet20") {
  auto model = make_model(name, "image_size = 16", 4, 4);
  model->initialize(1);
  return model;
}

}  // namespace ablate::test

#include "methods/models/parameter_depth.h"

#include <vector>

namespace ablate {
namespace {

/// Blocks in order of execution, whatever kind of model.
std::vector<torch::nn::Module*> block_modules(Model& model) {
  std::vector<torch::nn::Module*> modules;
  for (Block* block : model.blocks()) modules.push_back(block);
  if (!modules.empty()) return modules;
  for (LayerSite* site : model.layer_sites()) modules.push_back(site);
  return modules;
}

}  // namespace

std::map<std::string, std::int64_t> layers_above(Model& model) {
  const std::vector<torch::nn::Module*> blocks = block_modules(model);
  const std::int64_t count = std::ssize(blocks);
  // By tensor, not by name: a model may hold another one under any name.
  std::map<const c10::TensorImpl*, std::int64_t> block_of;
  for (std::int64_t i = 0; i < count; ++i) {
    for (const at::Tensor& parameter : blocks[static_cast<std::size_t>(i)]->parameters()) {
      block_of[parameter.unsafeGetTensorImpl()] = i;
    }
  }
  std::map<std::string, std::int64_t> above;
  std::int64_t passed = -1;  // the last block seen
  for (const auto& item : model.named_parameters()) {
    const auto found = block_of.find(item.value().unsafeGetTensorImpl());
    if (found != block_of.end()) {
      passed = found->second;
      above[item.key()] = count - passed;
    } else {
      const bool stem = passed < 0 && count > 0;
      above[item.key()] = stem ? count + 1 : count - 1 - passed;
    }
  }
  return above;
}

}  // namespace ablate

#pragma once

#include <string>
#include <vector>

#include "methods/method.h"

namespace ablate {

/// Blocks of a model that share a history.
struct LayerGroup {
  int first, count;
};

/// Which blocks layer or channel attention connects.
struct LayerGroups {
  std::vector<std::int64_t> stages;  ///< groups, counted from 0; empty: all
  std::int64_t transformer_group = 4;

  static LayerGroups read(Params& params);
  /// Stages of a residual network, or runs of `transformer_group` blocks of a transformer. Throws
  /// SpecError for a stage that is not there; `where` names the method.
  std::vector<LayerGroup> of(Model& model, const std::string& where) const;
};

/// Connects these blocks by modules of a kind, with parameters drawn from the seed of the run.
void attach_layer_attention(Surgeon& surgeon, const std::vector<LayerGroup>& groups,
                            const std::string& module, const Value& settings, std::uint64_t seed);

/// A method that attaches modules of one kind and does nothing afterwards. Its settings are those
/// of LayerGroups and of the module, which `read` reads.
class LayerMethod final : public Method {
 public:
  LayerMethod(std::string module, Params& params, void (*read)(Params&));

  void check(const RunOutline& run) const override;
  void apply(TrainContext& context) override;

 private:
  std::string where() const { return "methods." + module_; }

  std::string module_;
  LayerGroups groups_;
  Value settings_;
};

}  // namespace ablate

#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "methods/models/dense.h"
#include "methods/models/focused_attention.h"

namespace ablate {

/// ModelInfo::withheld of all families.
constexpr std::string_view kStagedWithheld =
    "its windows, convolutions and stages need the tokens of the whole map";

/// What a hierarchical transformer of any family is made of.
struct StagedShape {
  std::int64_t image_size = 224;
  std::int64_t patch_size = 4;  ///< stride of the first stage; later ones halve the side
  std::vector<std::int64_t> dims, depths, heads;  ///< of each stage
  /// A letter a stage, as the authors of FLatten write it: "L" focused linear attention, "S" the
  /// softmax attention of the family.
  std::string attention;
  double drop_path = 0.0;
  FocusedAttentionOptions focus{};  ///< settings of linear attention; sizes are those of a stage

  std::size_t stages() const { return dims.size(); }
  std::int64_t side(std::size_t stage) const { return image_size / patch_size >> stage; }
  bool linear(std::size_t stage) const { return attention[stage] == 'L'; }
  std::int64_t total_depth() const;
  /// Rate of the block of that number over all stages: from 0 at the first to drop_path.
  double drop_path_of(std::int64_t block) const;
  FocusedAttentionOptions focused(std::size_t stage) const;
};

/// The settings that every staged model has; those of focused linear attention where some stage
/// uses it.
void read_common(Params& params, StagedShape& shape);
/// The settings of a family's free form, whose shape is not given by its name. Refuses lists of
/// unequal lengths, heads that do not divide widths, other letters.
void read_stages(Params& params, StagedShape& shape);

/// The beginning of a stage: images (B, 3, S, S), or the tokens (B, N, C) of the stage before, to
/// tokens (B, N', C') in the type of the residual stream.
class StageEntry : public torch::nn::Module {
 public:
  virtual at::Tensor forward(const at::Tensor& x, ForwardState& state) = 0;
};

/// A hierarchical transformer: stages of blocks on ever smaller and wider maps of tokens. Its
/// blocks are numbered through. Families register children under their own names. A backbone has a
/// norm a stage, children norm0, norm1, ..
class StagedTransformer : public Backbone {
 public:
  at::Tensor forward(const at::Tensor& images, ForwardState& state) override;
  at::Tensor forward_features(const at::Tensor& images, ForwardState& state) override;
  std::vector<at::Tensor> features(const at::Tensor& images, ForwardState& state) override;
  std::vector<FeatureLevel> feature_levels() const override;
  std::vector<std::string> feature_names() const override;
  std::vector<Block*> blocks() override;
  bool one_stream() const override { return false; }
  std::int64_t image_size() const override { return image_size_; }
  void initialize(std::uint64_t seed) override;

 protected:
  struct Stage {
    std::shared_ptr<StageEntry> entry;
    std::vector<std::shared_ptr<Block>> blocks;
    FeatureLevel level;
    std::shared_ptr<LayerNorm> norm;  ///< of a backbone
  };

  StagedTransformer(const StagedShape& shape, const ModelContext& context)
      : image_size_(shape.image_size), is_backbone_(context.features.has_value()) {}
  /// Makes the blocks of a stage as children of `parent`, "0", "1", ..; `prefix` is its qualified
  /// name with a dot, `mixer` makes the attention of a block by its number in the stage.
  void add_stage(const StagedShape& shape, const BlockOptions& common,
                 std::shared_ptr<StageEntry> entry, torch::nn::Module& parent,
                 const std::string& prefix,
                 const std::function<std::shared_ptr<TokenMixer>(std::int64_t)>& mixer);
  /// The input of the head, (B, C), from the stream after the last block.
  virtual at::Tensor pool(const TokenStream& stream, ForwardState& state) = 0;

  std::shared_ptr<Linear> head_;

 private:
  TokenStream run(const Stage& stage, const at::Tensor& x, ForwardState& state) const;

  std::int64_t image_size_;
  bool is_backbone_;
  std::vector<Stage> stages_;
};

}  // namespace ablate

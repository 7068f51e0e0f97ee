#include "methods/models/dense.h"

#include <algorithm>

#include "runner/core/error.h"
#include "runner/core/params.h"

namespace ablate {
namespace {

constexpr const char* kBackbone = "backbone";
constexpr const char* kNeck = "neck";
constexpr const char* kHead = "decode_head";
constexpr const char* kAuxiliary = "auxiliary_head";

/// Sides that data sets of segmentation are cut to, unless the backbone is one for tiny images.
constexpr std::int64_t kCrop = 512, kTiny = 64;

std::int64_t side_of(const ModelInfo& backbone) {
  return backbone.image_size < kTiny ? backbone.image_size : kCrop;
}

/// Everything registered so far, of both kinds, in whatever order the files come.
struct Registered {
  std::vector<ModelInfo> backbones;
  std::vector<DenseHeadInfo> heads;

  static Registered& get() {
    static Registered all;
    return all;
  }
};

std::string composed_name(const DenseHeadInfo& head, const ModelInfo& backbone) {
  return cat(head.name, "_", backbone.name);
}

ModelBuilder configure_composed(std::string_view name, Params& params) {
  for (const DenseHeadInfo& head : Registered::get().heads) {
    for (const ModelInfo& backbone : Registered::get().backbones) {
      if (composed_name(head, backbone) != name) continue;
      params.prefer("image_size", side_of(backbone));
      const ModelBuilder inner = backbone.configure(backbone.name, params);
      const DensePlan plan = head.configure(params, backbone.features);
      return [inner, plan](const ModelContext& context) -> std::shared_ptr<Model> {
        ModelContext of_backbone = context;
        of_backbone.features = plan.features;
        auto body = std::dynamic_pointer_cast<Backbone>(inner(of_backbone));
        ABLATE_CHECK(body, "a backbone that gives feature maps");
        DenseParts parts = plan.build(body->feature_levels(), context);
        return std::make_shared<DenseModel>(std::move(body), std::move(parts));
      };
    }
  }
  check_failed("registered name", std::string(name));
}

/// Text that lives as long as the program.
std::string_view lasting(std::string text) {
  static std::vector<std::unique_ptr<const std::string>> kept;
  return *kept.emplace_back(std::make_unique<const std::string>(std::move(text)));
}

void compose(const DenseHeadInfo& head, const ModelInfo& backbone) {
  if (head.one_stride_only && backbone.features != Features::OneStride) return;
  ModelInfo info = backbone;
  info.name = composed_name(head, backbone);
  info.summary = cat(head.summary, " on ", backbone.name);
  info.family = head.family;
  // Each is below 1000.
  info.semantics = 1000 * head.semantics + backbone.semantics;
  info.image_size = side_of(backbone);
  info.distilled = false;
  info.batch_norm = head.batch_norm || backbone.batch_norm;
  if (!backbone.example.empty()) info.example = lasting(cat(backbone.example, head.example));
  info.dense = true;
  info.features = Features::None;
  info.configure = configure_composed;
  Registry<ModelInfo>::Add{std::move(info)};
}

}  // namespace

void register_backbone(const ModelInfo& info) {
  Registry<ModelInfo>::Add{info};
  if (info.features == Features::None) return;
  for (const DenseHeadInfo& head : Registered::get().heads) compose(head, info);
  Registered::get().backbones.push_back(info);
}

RegisterDenseHead::RegisterDenseHead(const DenseHeadInfo& info) {
  for (const ModelInfo& backbone : Registered::get().backbones) compose(info, backbone);
  Registered::get().heads.push_back(info);
}

DenseModel::DenseModel(std::shared_ptr<Backbone> backbone, DenseParts parts)
    : backbone_(register_module(kBackbone, std::move(backbone))), parts_(std::move(parts)) {
  if (parts_.neck) register_module(kNeck, parts_.neck);
  register_module(kHead, parts_.head);
  if (parts_.auxiliary) register_module(kAuxiliary, parts_.auxiliary);
}

std::vector<at::Tensor> DenseModel::maps(const at::Tensor& images, ForwardState& state) {
  std::vector<at::Tensor> maps = backbone_->features(images, state);
  return parts_.neck ? parts_.neck->forward(maps, state) : maps;
}

at::Tensor DenseModel::forward(const at::Tensor& images, ForwardState& state) {
  const std::vector<at::Tensor> read = maps(images, state);
  const at::Tensor logits = parts_.head->forward(read, state);
  if (parts_.auxiliary && is_training()) {
    state.auxiliary_logits = parts_.auxiliary->forward(read, state);
  }
  return logits;
}

at::Tensor DenseModel::forward_features(const at::Tensor& images, ForwardState& state) {
  return maps(images, state).back().mean({2, 3});
}

std::vector<std::string> DenseModel::head_names() const {
  std::vector<std::string> names;
  const auto add = [&](const char* prefix, const DenseHead* head) {
    if (!head) return;
    for (const std::string& module : head->class_modules())
      names.push_back(cat(prefix, ".", module));
  };
  add(kHead, parts_.head.get());
  add(kAuxiliary, parts_.auxiliary.get());
  return names;
}

/// The backbone gets the values that it has as a classifier of the same seed.
void DenseModel::initialize(std::uint64_t seed) {
  backbone_->initialize(seed);
  if (parts_.neck) parts_.neck->initialize(seed, kNeck);
  parts_.head->initialize(seed, kHead);
  if (parts_.auxiliary) parts_.auxiliary->initialize(seed, kAuxiliary);
}

std::vector<std::string> DenseModel::no_weight_decay() const {
  std::vector<std::string> names;
  for (const std::string& name : backbone_->no_weight_decay()) {
    names.push_back(cat(kBackbone, ".", name));
  }
  return names;
}

}  // namespace ablate

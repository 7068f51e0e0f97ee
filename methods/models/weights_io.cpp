#include "methods/models/weights_io.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "methods/models/dense.h"
#include "runner/core/error.h"

namespace ablate {

namespace {

constexpr std::size_t kShownNames = 8;

void append_names(std::string& message, std::string_view title, std::vector<std::string> names) {
  if (names.empty()) return;
  const std::size_t hidden = names.size() - std::min(names.size(), kShownNames);
  names.resize(names.size() - hidden);
  message += cat("; ", title, ": ", join(names));
  if (hidden > 0) message += cat(" and ", hidden, " more");
}

/// Side of the grid that makes `length` tokens with `prefix` leading ones; 0 when there is none.
std::int64_t grid_side(std::int64_t length, std::int64_t prefix) {
  const auto side = std::llround(std::sqrt(static_cast<double>(length - prefix)));
  return length > prefix && side * side == length - prefix ? side : 0;
}

bool below(const std::string& name, const std::vector<std::string>& modules) {
  return std::any_of(modules.begin(), modules.end(),
                     [&](const std::string& module) { return name.starts_with(module + "."); });
}

/// Buffers of windowed attention in older files of timm, which follow from the shape.
bool follows_from_shape(const std::string& name) {
  return name.ends_with(".relative_position_index") || name.ends_with(".attn_mask");
}

constexpr std::string_view kBackbonePrefix = "backbone.";

bool begins_with(const std::string& name, const std::vector<std::string>& prefixes) {
  return std::ranges::any_of(prefixes, [&](const std::string& p) { return name.starts_with(p); });
}

/// The backbone of a dense model, when the file holds a classifier: names without its prefix.
const Backbone* lone_backbone(const Model& model, const SafetensorsFile& file) {
  const auto* dense = dynamic_cast<const DenseModel*>(&model);
  if (!dense) return nullptr;
  for (const std::string& name : file.names()) {
    if (name.starts_with(kBackbonePrefix)) return nullptr;
  }
  return &dense->backbone();
}

/// Matches a file's tensors with a model's and collects all complaints before anything is written.
class Matching {
 public:
  Matching(Model& model, const SafetensorsFile& file, const LoadOptions& options)
      : model_(model), file_(file), options_(options), backbone_(lone_backbone(model, file)) {}

  LoadReport run() {
    std::set<std::string> known;
    NamedTensors sources;
    const NamedTensors targets = named_tensors(model_);
    for (const auto& [name, target] : targets) {
      known.insert(name_in_file(name));
      sources.emplace_back(name, source(name, target));
    }
    std::vector<std::string> unexpected;
    for (const std::string& name : file_.names()) {
      const bool ignored = follows_from_shape(name) ||
                           (options_.reset_head && below(name, model_.head_names())) ||
                           (backbone_ && begins_with(name, backbone_->classifier_names()));
      if (!known.contains(name) && !ignored) unexpected.push_back(name);
    }
    complain(std::move(unexpected));
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < targets.size(); ++i) {
      at::Tensor target = targets[i].second;
      if (sources[i].second.defined()) target.copy_(sources[i].second);
    }
    return report_;
  }

 private:
  /// Empty for what a file of a classifier does not have.
  std::string name_in_file(const std::string& name) const {
    if (!backbone_) return name;
    if (!name.starts_with(kBackbonePrefix)) return {};
    std::string own = name.substr(kBackbonePrefix.size());
    return begins_with(own, backbone_->feature_names()) ? std::string() : own;
  }

  at::Tensor source(const std::string& name, const at::Tensor& target) {
    const std::string given = name_in_file(name);
    if (given.empty() || (options_.reset_head && below(name, model_.head_names()))) {
      report_.kept.push_back(name);
      return {};
    }
    if (!file_.has(given)) {
      missing_.push_back(given);
      return {};
    }
    at::Tensor found = file_.tensor(given);
    if (is_position_embedding(given) && found.dim() == 3 && found.size(1) != target.size(1) &&
        found.size(2) == target.size(2)) {
      found = resize_positions(found, target.size(1));
      report_.resized.push_back(name);
    }
    if (found.sizes() == target.sizes()) return found;
    misshapen_.push_back(cat(name, " (file: ", join(found.sizes(), "x"),
                             ", model: ", join(target.sizes(), "x"), ")"));
    wrong_head_ = wrong_head_ || below(name, model_.head_names());
    return {};
  }

  /// A backbone has no place for the class token that a stage of its classifier had.
  at::Tensor resize_positions(at::Tensor found, std::int64_t length) const {
    if (backbone_ && grid_side(found.size(1), 1) > 0 && grid_side(length, 1) == 0) {
      found = found.slice(1, 1);
      if (found.size(1) == length) return found;
    }
    return resize_position_embedding(found, length, options_.positions);
  }

  void complain(std::vector<std::string> unexpected) const {
    if (missing_.empty() && unexpected.empty() && misshapen_.empty()) return;
    std::string message = cat(file_.path().string(), ": weights do not fit the model");
    append_names(message, "missing", missing_);
    append_names(message, "unexpected", std::move(unexpected));
    append_names(message, "of another shape", misshapen_);
    if (wrong_head_) message += "; init.reset_head = true starts with a new classifier";
    throw Error(message);
  }

  Model& model_;
  const SafetensorsFile& file_;
  const LoadOptions& options_;
  const Backbone* backbone_;  ///< set: the file holds its classifier
  LoadReport report_;
  std::vector<std::string> missing_, misshapen_;
  bool wrong_head_ = false;
};

}  // namespace

bool is_position_embedding(const std::string& name) {
  const std::string own = name.substr(name.rfind('.') + 1);
  return own.starts_with("pos_embed") || own == "positional_encoding";
}

LoadReport load_weights(Model& model, const std::filesystem::path& file,
                        const LoadOptions& options) {
  const SafetensorsFile opened(file);
  return Matching(model, opened, options).run();
}

NamedTensors named_tensors(const torch::nn::Module& module) {
  NamedTensors result;
  for (const auto& item : module.named_parameters()) result.emplace_back(item.key(), item.value());
  for (const auto& item : module.named_buffers()) result.emplace_back(item.key(), item.value());
  return result;
}

void save_weights(const Model& model, const std::filesystem::path& file,
                  const std::map<std::string, std::string>& metadata) {
  write_safetensors(file, named_tensors(model), metadata);
}

namespace {

at::Tensor resize_grid(const at::Tensor& grid, std::int64_t side, PositionResize how) {
  const std::array<std::int64_t, 2> size{side, side};
  switch (how) {
    case PositionResize::Bicubic:
      return at::upsample_bicubic2d(grid, size, /*align_corners=*/false);
    case PositionResize::BicubicAntialias:
      return at::_upsample_bicubic2d_aa(grid, size, /*align_corners=*/false);
    case PositionResize::Bilinear:
      return at::upsample_bilinear2d(grid, size, /*align_corners=*/false);
  }
  ABLATE_CHECK(false, "unknown way to resize positions");
}

}  // namespace

at::Tensor resize_position_embedding(const at::Tensor& stored, std::int64_t length,
                                     PositionResize how) {
  const at::Tensor embedding = stored.to(at::promote_types(stored.scalar_type(), at::kFloat));
  for (std::int64_t prefix = 0; prefix <= 2; ++prefix) {
    const std::int64_t from = grid_side(embedding.size(1), prefix), to = grid_side(length, prefix);
    if (from == 0 || to == 0) continue;
    const std::int64_t channels = embedding.size(2);
    const at::Tensor grid = embedding.narrow(1, prefix, from * from)
                                .reshape({1, from, from, channels})
                                .permute({0, 3, 1, 2})
                                .contiguous();
    const at::Tensor resized = resize_grid(grid, to, how);
    const at::Tensor tokens = resized.permute({0, 2, 3, 1}).reshape({1, to * to, channels});
    return at::cat({embedding.narrow(1, 0, prefix), tokens}, 1);
  }
  throw Error(cat("cannot resize position embeddings of ", embedding.size(1), " tokens to ", length,
                  ": not the same leading tokens before square grids"));
}

}  // namespace ablate

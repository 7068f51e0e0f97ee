#include <memory>

#include <CLI/CLI.hpp>

#include "methods/models/fold.h"
#include "methods/models/weights_io.h"
#include "runner/core/error.h"
#include "runner/worker/model_options.h"
#include "runner/worker/torch_switches.h"
#include "runner/worker/verb.h"

namespace ablate::worker::forward {
namespace {

namespace fs = std::filesystem;

struct ForwardOptions {
  ModelOptions model;
  std::string dtype = "fp32";
  fs::path structure, weights, input, output;
  std::uint64_t seed = 0;
  std::vector<std::string> taps;
  bool gradients = false, fold = false;
  int threads = 1;

  at::ScalarType scalar_type() const { return dtype == "fp64" ? at::kDouble : at::kFloat; }
};

/// Base model, weights, surgery: the order of a run.
std::shared_ptr<Model> make_model(const ForwardOptions& options) {
  const bool named = options.structure.empty();
  const Structure structure = named ? options.model.base() : read_structure(options.structure, {});
  const std::vector<Component> methods =
      named ? options.model.resolved_methods() : std::vector<Component>{};
  const std::shared_ptr<Model> model = build_model(structure, options.scalar_type(), options.seed);
  if (!options.weights.empty()) load_weights(*model, options.weights);
  if (!methods.empty()) {
    Surgeon surgeon(*model);
    apply_methods(methods, surgeon);
  }
  if (options.fold) fold_doublings(*model);
  return model;
}

at::Tensor read_input(const SafetensorsFile& file, const std::string& name,
                      const std::vector<std::int64_t>& shape) {
  if (!file.has(name)) {
    throw SpecError(
        cat(file.path().string(), ": no tensor \"", name, "\"; it has ", join(file.names())));
  }
  at::Tensor tensor = file.tensor(name);
  bool fits = tensor.dim() == static_cast<std::int64_t>(shape.size());
  for (std::size_t d = 0; fits && d < shape.size(); ++d) {
    fits = shape[d] < 0 || tensor.size(static_cast<std::int64_t>(d)) == shape[d];
  }
  if (!fits) {
    throw SpecError(cat(file.path().string(), ": \"", name, "\" has shape ", tensor.sizes(),
                        "; wanted (", join(shape), "), -1 for any"));
  }
  return tensor;
}

void add_gradients(const Model& model, const at::Tensor& images, NamedTensors& results) {
  results.emplace_back("grad.images", images.grad());
  for (const auto& item : model.named_parameters()) {
    if (item.value().grad().defined()) {
      results.emplace_back("grad." + item.key(), item.value().grad());
    }
  }
}

void add_taps(const ForwardState& state, NamedTensors& results) {
  for (const auto& [name, tensor] : state.taps) {
    if (!tensor.defined()) {
      throw SpecError(cat("--taps: the model has no tensor \"", name,
                          "\"; a transformer has patch_embed, blocks.N, blocks.N.attn, "
                          "blocks.N.mlp and norm"));
    }
    results.emplace_back(name, tensor);
  }
}

int forward(const ForwardOptions& options) {
  if (options.model.model.empty() == options.structure.empty()) {
    throw SpecError("give either --model NAME or --structure FILE");
  }
  set_torch_switches(options.threads);
  const std::shared_ptr<Model> model = make_model(options);
  model->eval();
  const SafetensorsFile file(options.input);
  const std::int64_t side = model->image_size();
  const at::Tensor images = read_input(file, "images", {-1, 3, side, side})
                                .to(options.scalar_type())
                                .set_requires_grad(options.gradients);
  const at::AutoGradMode grad_mode(options.gradients);
  ForwardState state;
  for (const std::string& name : options.taps) state.taps[name];
  const at::Tensor logits = model->forward(images, state);
  NamedTensors results{{"logits", logits}};
  add_taps(state, results);
  if (options.gradients) {
    const at::Tensor loss_weight = read_input(file, "loss_weight", logits.sizes().vec());
    (logits * loss_weight.to(options.scalar_type())).sum().backward();
    add_gradients(*model, images, results);
  }
  write_safetensors(options.output, results);
  return static_cast<int>(ExitCode::Done);
}

void add_options(CLI::App& app, ForwardOptions& options) {
  add_model_options(app, options.model);
  app.add_option("--structure", options.structure,
                 "structure.json of a finished run, instead of --model and --methods")
      ->check(CLI::ExistingFile);
  app.add_option("--weights", options.weights, "Safetensors under timm or torchvision names")
      ->check(CLI::ExistingFile);
  app.add_option("--input", options.input, "Safetensors with images (B, 3, S, S)")
      ->required()
      ->check(CLI::ExistingFile);
  app.add_option("--output", options.output, "Safetensors to write: logits and what is asked for")
      ->required();
  app.add_option("--taps", options.taps, "Intermediate tensors to keep: blocks.3,blocks.5,norm")
      ->delimiter(',');
  app.add_flag("--grad", options.gradients,
               "Gradients of sum(logits * loss_weight), loss_weight (B, classes) in the input");
  app.add_option("--dtype", options.dtype, "fp32 or fp64")
      ->check(CLI::IsMember({"fp32", "fp64"}))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "Draws the weights when no file gives them");
  app.add_option("--threads", options.threads, "Threads of tensor operations")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--fold", options.fold, "Fold doublings of removed attention into the weights");
}

const Registry<Verb>::Add added{{
    .name = "forward",
    .summary = "One forward pass on given tensors: parity checks with other programs",
    .examples =
        "  ablate-train forward --model deit_tiny_patch16_224 --weights deit.safetensors \\\n"
        "    --input x.safetensors --output y.safetensors --taps blocks.3 --dtype fp64\n"
        "  ablate-train forward --model vit --model-params '{ depth = 4 }' --classes 10 \\\n"
        "    --methods '[{ name = \"nose\", layers = [1, 2] }]' --grad \\\n"
        "    --input x.safetensors --output y.safetensors\n",
    .add = [](CLI::App& app) -> std::function<int()> {
      auto options = std::make_shared<ForwardOptions>();
      add_options(app, *options);
      return [options] { return forward(*options); };
    },
}};

}  // namespace
}  // namespace ablate::worker::forward

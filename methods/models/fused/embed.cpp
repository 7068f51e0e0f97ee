#include "methods/kernels/patch_embed.h"
#include "methods/models/fused/common.h"
#include "methods/models/fused/fused_ops.h"
#include "runner/core/error.h"

namespace ablate::fused {
namespace {

struct EmbedSize {
  kernels::TokenShape tokens;
  std::int64_t inputs;  ///< of a patch

  static EmbedSize of(const at::Tensor& images, const at::Tensor& weight,
                      const at::Tensor& position) {
    const std::int64_t patch = weight.size(2),
                       patches = images.size(2) / patch * (images.size(3) / patch);
    return {{.batch = images.size(0),
             .prefix = position.size(1) - patches,
             .patches = patches,
             .width = weight.size(0)},
            3 * patch * patch};
  }
  std::int64_t rows() const { return tokens.batch * tokens.patches; }
};

at::Tensor cut_patches(const at::Tensor& images, const EmbedSize& size, std::int64_t patch) {
  at::Tensor patches = at::empty({size.rows(), size.inputs}, images.options().dtype(at::kBFloat16));
  const auto cut = [&]<typename T>(const T* data) {
    kernels::patchify<T>({.batch = images.size(0),
                          .channels = images.size(1),
                          .height = images.size(2),
                          .width = images.size(3),
                          .patch = patch,
                          .images = data,
                          .patches = half_data(patches)},
                         current_stream());
  };
  if (images.scalar_type() == at::kFloat) {
    cut(images.const_data_ptr<float>());
  } else {
    cut(static_cast<const kernels::bfloat16*>(half_data(images)));
  }
  return patches;
}

class EmbedFunction : public torch::autograd::Function<EmbedFunction> {
 public:
  static at::Tensor forward(AutogradContext* tape, const at::Tensor& images,
                            const at::Tensor& weight, const at::Tensor& bias,
                            const at::Tensor& position, const std::optional<at::Tensor>& first,
                            const std::optional<at::Tensor>& second, std::int64_t number) {
    FusedContext& context = to_context(number);
    const EmbedSize size = EmbedSize::of(images, weight, position);
    const auto& shape = size.tokens;
    const at::Tensor patches = cut_patches(images, size, weight.size(2));
    at::Tensor projected = at::empty({size.rows(), shape.width}, patches.options());
    context.gemm().run(kernels::linear_forward(size.rows(), size.inputs, shape.width),
                       half_data(patches), half_data(context.at(weight).working),
                       projected.data_ptr(), half_data(context.at(bias).working), current_stream());
    at::Tensor tokens =
        at::empty({shape.batch, shape.tokens(), shape.width}, images.options().dtype(at::kFloat));
    const at::Tensor one = optional_tensor(first), two = optional_tensor(second);
    kernels::assemble_tokens<float>({.shape = shape,
                                     .patches = half_data(projected),
                                     .prefix_tokens = {float_data(one), float_data(two)},
                                     .pos_embed = float_data(position),
                                     .tokens = float_data(tokens)},
                                    current_stream());
    tape->save_for_backward({patches, weight, bias, position, one, two});
    tape->saved_data["context"] = number;
    tape->saved_data["batch"] = shape.batch;
    tape->saved_data["patches"] = shape.patches;
    return tokens;
  }

  static variable_list backward(AutogradContext* tape, const variable_list& gradients) {
    FusedContext& context = to_context(tape->saved_data["context"]);
    const auto saved = tape->get_saved_variables();
    const at::Tensor &patches = saved[0], &weight = saved[1], &bias = saved[2],
                     &position = saved[3];
    const at::Tensor d_tokens = gradients[0].contiguous();
    const std::int64_t count = tape->saved_data["patches"].toInt();
    const kernels::TokenShape shape{.batch = tape->saved_data["batch"].toInt(),
                                    .prefix = position.size(1) - count,
                                    .patches = count,
                                    .width = weight.size(0)};
    at::Tensor d_patches = at::empty({patches.size(0), shape.width}, patches.options());
    const at::Tensor scratch =
        workspace(kernels::assemble_tokens_backward_workspace_bytes(shape), patches);
    const auto gradient = [&](const at::Tensor& parameter) {
      return parameter.defined() ? float_data(context.at(parameter).gradient) : nullptr;
    };
    kernels::assemble_tokens_backward<float>(
        {.shape = shape,
         .d_tokens = float_data(d_tokens),
         .d_patches = half_data(d_patches),
         .d_prefix_tokens = {gradient(saved[4]), gradient(saved[5])},
         .d_pos_embed = gradient(position),
         .d_bias = gradient(bias)},
        scratch.data_ptr(), current_stream());
    context.gemm().run(
        kernels::linear_weight_gradient(patches.size(0), patches.size(1), shape.width),
        half_data(d_patches), half_data(patches), context.at(weight).gradient.data_ptr(), nullptr,
        current_stream());
    return {{}, {}, {}, {}, {}, {}, {}};
  }
};

}  // namespace

at::Tensor embed_patches(const at::Tensor& images, const ops::Embedding& embedding,
                         FusedContext& context) {
  const std::size_t prefix = embedding.prefix.size();
  ABLATE_CHECK(prefix <= 2 && images.is_cuda(), "fused embedding of ", prefix, " prefix tokens");
  const auto token = [&](std::size_t i) {
    return i < prefix ? std::optional<at::Tensor>(embedding.prefix[i]) : std::nullopt;
  };
  return EmbedFunction::apply(images.contiguous(), embedding.weight, embedding.bias,
                              embedding.position, token(0), token(1), to_number(context));
}

}  // namespace ablate::fused

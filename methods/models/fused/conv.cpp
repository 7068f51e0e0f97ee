#include "methods/kernels/pack_images.h"
#include "methods/models/fused/common.h"
#include "methods/models/fused/fused_ops.h"
#include "runner/core/error.h"

namespace ablate::fused {
namespace {

constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;

/// A convolution whose kernel is one pixel is a Linear over the channels.
bool is_pointwise(const at::Tensor& weight, std::int64_t stride, std::int64_t padding) {
  return weight.size(2) == 1 && stride == 1 && padding == 0;
}

at::Tensor empty_map(const at::Tensor& like, at::IntArrayRef sizes) {
  return at::empty(sizes, like.options().memory_format(kChannelsLast));
}

std::int64_t pixels(const at::Tensor& map) { return map.numel() / map.size(1); }

struct PointwiseFunction : torch::autograd::Function<PointwiseFunction> {
  static at::Tensor forward(AutogradContext* tape, const at::Tensor& x, const at::Tensor& weight,
                            std::int64_t number) {
    FusedContext& context = to_context(number);
    at::Tensor y = empty_map(x, {x.size(0), weight.size(0), x.size(2), x.size(3)});
    kernels::GemmShape shape = kernels::linear_forward(pixels(x), weight.size(1), weight.size(0));
    shape.bias = false;
    context.gemm().run(shape, half_data(x), half_data(context.at(weight).working), y.data_ptr(),
                       nullptr, current_stream());
    tape->save_for_backward({x, weight});
    tape->saved_data["context"] = number;
    return y;
  }

  static variable_list backward(AutogradContext* tape, const variable_list& gradients) {
    FusedContext& context = to_context(tape->saved_data["context"]);
    const auto saved = tape->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const at::Tensor dy = gradients[0].contiguous(kChannelsLast);
    const std::int64_t rows = pixels(x), in = weight.size(1), out = weight.size(0);
    at::Tensor dx = empty_map(x, x.sizes());
    context.gemm().run(kernels::linear_input_gradient(rows, in, out), half_data(dy),
                       half_data(context.at(weight).working), dx.data_ptr(), nullptr,
                       current_stream());
    context.gemm().run(kernels::linear_weight_gradient(rows, in, out), half_data(dy), half_data(x),
                       context.at(weight).gradient.data_ptr(), nullptr, current_stream());
    return {dx, {}, {}};
  }
};

/// Gradients of x (where it is wanted) and of the weight as the library has it.
std::pair<at::Tensor, at::Tensor> library_gradients(const at::Tensor& dy, const at::Tensor& x,
                                                    const at::Tensor& weight, std::int64_t stride,
                                                    std::int64_t padding, bool wants_dx) {
  const auto [dx, dw, none] = at::convolution_backward(
      dy.contiguous(kChannelsLast), x, weight, at::OptionalIntArrayRef(), {stride, stride},
      {padding, padding}, {1, 1}, false, {0, 0}, 1, {wants_dx, true, false});
  return {dx, dw};
}

struct ConvFunction : torch::autograd::Function<ConvFunction> {
  static at::Tensor forward(AutogradContext* tape, const at::Tensor& x, const at::Tensor& weight,
                            std::int64_t stride, std::int64_t padding, std::int64_t number) {
    const at::Tensor working = to_context(number).at(weight).working.contiguous(kChannelsLast);
    tape->save_for_backward({x, weight, working});
    tape->saved_data["stride"] = stride;
    tape->saved_data["padding"] = padding;
    tape->saved_data["context"] = number;
    return at::conv2d(x, working, {}, stride, padding).contiguous(kChannelsLast);
  }

  static variable_list backward(AutogradContext* tape, const variable_list& gradients) {
    FusedContext& context = to_context(tape->saved_data["context"]);
    const auto saved = tape->get_saved_variables();
    const auto [dx, dw] =
        library_gradients(gradients[0], saved[0], saved[2], tape->saved_data["stride"].toInt(),
                          tape->saved_data["padding"].toInt(), true);
    context.at(saved[1]).gradient.add_(dw);
    return {dx.contiguous(kChannelsLast), {}, {}, {}, {}};
  }
};

/// The first convolution, with its stride taken into the channels (kernels::PackImages): three
/// channels fill no tensor core, and a library would pad them in a pass of its own.
struct ImageConv {
  std::int64_t kernel, stride, padding;
  std::int64_t blocks() const { return (kernel + stride - 1) / stride; }

  /// (out, 3, K, K) -> (out, channels, blocks, blocks).
  at::Tensor pack(const at::Tensor& weight) const {
    const std::int64_t out = weight.size(0), n = blocks(), margin = n * stride - kernel;
    const at::Tensor parts = at::constant_pad_nd(weight, {0, margin, 0, margin})
                                 .view({out, 3, n, stride, n, stride})
                                 .permute({0, 2, 4, 3, 5, 1})
                                 .reshape({out, n, n, 3 * stride * stride});
    const std::int64_t channels = kernels::PackImages<float>::channels(stride);
    return at::constant_pad_nd(parts, {0, channels - parts.size(3)}).permute({0, 3, 1, 2});
  }
  /// The same way back, of a gradient.
  at::Tensor unpack(const at::Tensor& packed) const {
    const std::int64_t out = packed.size(0), n = blocks();
    return packed.permute({0, 2, 3, 1})
        .narrow(3, 0, 3 * stride * stride)
        .reshape({out, n, n, stride, stride, 3})
        .permute({0, 5, 1, 3, 2, 4})
        .reshape({out, 3, n * stride, n * stride})
        .narrow(2, 0, kernel)
        .narrow(3, 0, kernel);
  }
  at::Tensor pack_images(const at::Tensor& images) const {
    const auto side = [&](std::int64_t size) {
      return (size + 2 * padding - kernel) / stride + blocks();
    };
    const std::int64_t height = side(images.size(2)), width = side(images.size(3));
    at::Tensor packed =
        at::empty({images.size(0), kernels::PackImages<float>::channels(stride), height, width},
                  images.options().dtype(at::kBFloat16).memory_format(kChannelsLast));
    const auto call = [&]<typename T>(const T* data) {
      kernels::pack_images<T>({.batch = images.size(0),
                               .height = images.size(2),
                               .width = images.size(3),
                               .block = stride,
                               .pad = padding,
                               .out_height = height,
                               .out_width = width,
                               .images = data,
                               .packed = half_data(packed)},
                              current_stream());
    };
    if (images.scalar_type() == at::kFloat) {
      call(images.const_data_ptr<float>());
    } else {
      call(static_cast<const kernels::bfloat16*>(half_data(images)));
    }
    return packed;
  }
};

struct ImageConvFunction : torch::autograd::Function<ImageConvFunction> {
  static at::Tensor forward(AutogradContext* tape, const at::Tensor& images,
                            const at::Tensor& weight, std::int64_t stride, std::int64_t padding,
                            std::int64_t number) {
    const ImageConv conv{weight.size(2), stride, padding};
    const at::Tensor x = conv.pack_images(images);
    const at::Tensor working = conv.pack(to_context(number).at(weight).working);
    tape->save_for_backward({x, weight, working});
    tape->saved_data["stride"] = stride;
    tape->saved_data["padding"] = padding;
    tape->saved_data["context"] = number;
    return at::conv2d(x, working).contiguous(kChannelsLast);
  }

  static variable_list backward(AutogradContext* tape, const variable_list& gradients) {
    FusedContext& context = to_context(tape->saved_data["context"]);
    const auto saved = tape->get_saved_variables();
    const ImageConv conv{saved[1].size(2), tape->saved_data["stride"].toInt(),
                         tape->saved_data["padding"].toInt()};
    const at::Tensor dw = library_gradients(gradients[0], saved[0], saved[2], 1, 0, false).second;
    context.at(saved[1]).gradient.add_(conv.unpack(dw));
    return {{}, {}, {}, {}, {}};
  }
};

void check_conv(const at::Tensor& x, const Conv2d& conv) {
  ABLATE_CHECK(!conv.bias.defined() && x.is_cuda(),
               "a fused convolution has no bias and lies on a CUDA device");
}

}  // namespace

at::Tensor conv2d(const at::Tensor& x, const Conv2d& conv, FusedContext& context) {
  check_conv(x, conv);
  ABLATE_CHECK(x.scalar_type() == at::kBFloat16, "a fused convolution takes bfloat16 maps");
  const at::Tensor input = x.contiguous(kChannelsLast);
  if (is_pointwise(conv.weight, conv.stride(), conv.padding())) {
    return PointwiseFunction::apply(input, conv.weight, to_number(context));
  }
  return ConvFunction::apply(input, conv.weight, conv.stride(), conv.padding(), to_number(context));
}

at::Tensor conv2d_images(const at::Tensor& images, const Conv2d& conv, FusedContext& context) {
  check_conv(images, conv);
  ABLATE_CHECK(!images.requires_grad(), "images get no gradient from a fused convolution");
  return ImageConvFunction::apply(images.contiguous(), conv.weight, conv.stride(), conv.padding(),
                                  to_number(context));
}

}  // namespace ablate::fused

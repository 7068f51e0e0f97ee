#include "methods/models/padded_heads.h"

namespace ablate::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Places of queries, keys and values in a packed row, and their width in a head.
struct PackedPart {
  std::int64_t offset, width;
};

std::array<PackedPart, 3> parts_of(const AttentionHeads& heads) {
  return {{{0, heads.query_width},
           {heads.queries(), heads.query_width},
           {2 * heads.queries(), heads.value_width}}};
}

/// One part of packed rows, (B, N, H, its width).
at::Tensor part_of_rows(const at::Tensor& rows, const PackedPart& part, std::int64_t heads) {
  return rows.narrow(2, part.offset, heads * part.width).unflatten(2, {heads, part.width});
}

class PadHeads : public torch::autograd::Function<PadHeads> {
 public:
  static at::Tensor forward(AutogradContext* tape, const at::Tensor& qkv, std::int64_t count,
                            std::int64_t query_width, std::int64_t value_width, std::int64_t width,
                            double factor) {
    tape->saved_data["heads"] = std::vector<std::int64_t>{count, query_width, value_width, width};
    tape->saved_data["factor"] = factor;
    const AttentionHeads heads{count, query_width, value_width, 0};
    const at::Tensor padded = at::zeros({qkv.size(0), qkv.size(1), 3, count, width}, qkv.options());
    const auto parts = parts_of(heads);
    for (std::int64_t i = 0; i < 3; ++i) {
      const PackedPart& part = parts[static_cast<std::size_t>(i)];
      at::Tensor target = padded.select(2, i).narrow(3, 0, part.width);
      const at::Tensor source = part_of_rows(qkv, part, count);
      target.copy_(source);
      if (i == 0 && factor != 1.0) target.mul_(factor);
    }
    return padded.flatten(2);
  }

  static variable_list backward(AutogradContext* tape, const variable_list& gradients) {
    const auto sizes = tape->saved_data["heads"].toIntVector();
    const double factor = tape->saved_data["factor"].toDouble();
    const AttentionHeads heads{sizes[0], sizes[1], sizes[2], 0};
    const at::Tensor padded = gradients[0].unflatten(2, {3, heads.count, sizes[3]});
    at::Tensor packed = at::empty(
        {padded.size(0), padded.size(1), 2 * heads.queries() + heads.values()}, padded.options());
    const auto parts = parts_of(heads);
    for (std::int64_t i = 0; i < 3; ++i) {
      const PackedPart& part = parts[static_cast<std::size_t>(i)];
      at::Tensor target = part_of_rows(packed, part, heads.count);
      target.copy_(padded.select(2, i).narrow(3, 0, part.width));
      if (i == 0 && factor != 1.0) target.mul_(factor);
    }
    return {packed, {}, {}, {}, {}, {}};
  }
};

}  // namespace

at::Tensor pad_heads(const at::Tensor& qkv, const AttentionHeads& heads, std::int64_t width,
                     double factor) {
  return PadHeads::apply(qkv, heads.count, heads.query_width, heads.value_width, width, factor);
}

at::Tensor unpad_values(const at::Tensor& mixed, const AttentionHeads& heads, std::int64_t width) {
  return mixed.unflatten(2, {heads.count, width}).narrow(3, 0, heads.value_width).flatten(2);
}

}  // namespace ablate::ops

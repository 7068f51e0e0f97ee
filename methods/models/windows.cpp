#include "methods/models/windows.h"

#include "runner/core/error.h"

namespace ablate {
namespace {

/// The second dimension in another order; the gradient is put back in the same way, and added up
/// nowhere.
class PickTokens : public torch::autograd::Function<PickTokens> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& order, const at::Tensor& inverse) {
    context->save_for_backward({inverse});
    return x.index_select(1, order);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    return {gradients[0].index_select(1, context->get_saved_variables()[0]), {}, {}};
  }
};

constexpr double kMasked = -100.0;

/// Along one axis of the shifted map: tokens of different parts have met by the shift alone.
std::int64_t part_along(std::int64_t place, std::int64_t side, std::int64_t window,
                        std::int64_t shift) {
  if (place < side - window) return 0;
  return place < side - shift ? 1 : 2;
}

at::Tensor mask_between(const at::Tensor& parts) {
  const at::Tensor apart = parts.unsqueeze(1) != parts.unsqueeze(2);
  return apart.to(at::kFloat) * kMasked;
}

std::vector<std::int64_t> with_sizes(const at::Tensor& x, std::int64_t first, std::int64_t second) {
  std::vector<std::int64_t> sizes = x.sizes().vec();
  sizes[0] = first;
  sizes[1] = second;
  return sizes;
}

}  // namespace

Windows::Windows(std::int64_t map_side, std::int64_t height, std::int64_t width, std::int64_t shift)
    : map_side_(map_side), height_(height), width_(width), shift_(shift) {
  ABLATE_CHECK(map_side % height == 0 && map_side % width == 0 && shift >= 0 && shift < map_side,
               "windows of ", height, " x ", width, " shifted by ", shift, " on a map of side ",
               map_side);
  if (width == map_side && shift == 0) return;
  std::vector<std::int64_t> order, inverse(static_cast<std::size_t>(map_side * map_side)), parts;
  for (std::int64_t window = 0; window < count(); ++window) {
    const std::int64_t columns = map_side / width;
    for (std::int64_t token = 0; token < area(); ++token) {
      const std::int64_t y = window / columns * height + token / width,
                         x = window % columns * width + token % width;
      const std::int64_t place = (y + shift) % map_side * map_side + (x + shift) % map_side;
      inverse[static_cast<std::size_t>(place)] = static_cast<std::int64_t>(order.size());
      order.push_back(place);
      parts.push_back(3 * part_along(y, map_side, height, shift) +
                      part_along(x, map_side, width, shift));
    }
  }
  order_ = DeviceConstant(at::tensor(order, at::kLong));
  inverse_ = DeviceConstant(at::tensor(inverse, at::kLong));
  if (shift == 0) return;
  mask_ = DeviceConstant(mask_between(at::tensor(parts, at::kLong).view({count(), area()})));
}

at::Tensor Windows::cut(const at::Tensor& tokens) {
  ABLATE_CHECK(tokens.size(1) == map_side_ * map_side_, tokens.sizes(), " on a map of side ",
               map_side_);
  at::Tensor picked = tokens;
  if (order_.defined()) {
    picked = PickTokens::apply(tokens, order_.on(tokens.device()), inverse_.on(tokens.device()));
  }
  return count() == 1 ? picked : picked.view(with_sizes(picked, tokens.size(0) * count(), area()));
}

at::Tensor Windows::join(const at::Tensor& windows) {
  const std::int64_t batch = windows.size(0) / count();
  const at::Tensor rows =
      count() == 1 ? windows : windows.reshape(with_sizes(windows, batch, map_side_ * map_side_));
  if (!order_.defined()) return rows;
  return PickTokens::apply(rows, inverse_.on(rows.device()), order_.on(rows.device()));
}

at::Tensor Windows::mask(const at::TensorOptions& options) {
  return mask_.defined() ? mask_.on(options) : at::Tensor();
}

}  // namespace ablate

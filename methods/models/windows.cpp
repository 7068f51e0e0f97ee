#include "methods/models/windows.h"

#include <algorithm>
#include <iterator>
#include <vector>

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

std::int64_t filled(std::int64_t length, std::int64_t window) {
  return (length + window - 1) / window * window;
}

/// Tokens (B, N, ..) of a map with zeros below and on the right.
at::Tensor pad_tokens(const at::Tensor& tokens, const MapSize& map, const MapSize& padded) {
  if (map == padded) return tokens;
  std::vector<std::int64_t> margins(static_cast<std::size_t>(2 * (tokens.dim() - 2)), 0);
  for (const std::int64_t margin :
       {std::int64_t{0}, padded.width - map.width, std::int64_t{0}, padded.height - map.height}) {
    margins.push_back(margin);
  }
  return at::constant_pad_nd(tokens.unflatten(1, {map.height, map.width}), margins).flatten(1, 2);
}

at::Tensor crop_tokens(const at::Tensor& tokens, const MapSize& padded, const MapSize& map) {
  if (map == padded) return tokens;
  return tokens.unflatten(1, {padded.height, padded.width})
      .slice(1, 0, map.height)
      .slice(2, 0, map.width)
      .flatten(1, 2);
}

}  // namespace

Windows::Windows(MapSize map, MapSize window, std::int64_t shift)
    : map_(map),
      window_(window),
      padded_{filled(map.height, window.height), filled(map.width, window.width)},
      shift_(shift) {
  ABLATE_CHECK(window.places() > 0 && shift >= 0 && shift < std::min(map.height, map.width),
               "windows of ", window.height, " x ", window.width, " shifted by ", shift,
               " on a map of ", map.height, " x ", map.width);
  if (window.width == padded_.width && shift == 0) return;
  std::vector<std::int64_t> order, inverse(static_cast<std::size_t>(padded_.places())), parts;
  const std::int64_t columns = padded_.width / window.width;
  for (std::int64_t number = 0; number < count(); ++number) {
    for (std::int64_t token = 0; token < area(); ++token) {
      const std::int64_t y = number / columns * window.height + token / window.width,
                         x = number % columns * window.width + token % window.width;
      const std::int64_t place =
          (y + shift) % padded_.height * padded_.width + (x + shift) % padded_.width;
      inverse[static_cast<std::size_t>(place)] = static_cast<std::int64_t>(order.size());
      order.push_back(place);
      parts.push_back(3 * part_along(y, padded_.height, window.height, shift) +
                      part_along(x, padded_.width, window.width, shift));
    }
  }
  order_ = DeviceConstant(at::tensor(order, at::kLong));
  inverse_ = DeviceConstant(at::tensor(inverse, at::kLong));
  if (shift == 0) return;
  mask_ = DeviceConstant(mask_between(at::tensor(parts, at::kLong).view({count(), area()})));
}

at::Tensor Windows::cut(const at::Tensor& tokens) {
  ABLATE_CHECK(tokens.size(1) == map_.places(), tokens.sizes(), " on a map of ", map_.height, " x ",
               map_.width);
  at::Tensor picked = pad_tokens(tokens, map_, padded_);
  if (order_.defined()) {
    picked = PickTokens::apply(picked, order_.on(tokens.device()), inverse_.on(tokens.device()));
  }
  return count() == 1 ? picked : picked.view(with_sizes(picked, tokens.size(0) * count(), area()));
}

at::Tensor Windows::join(const at::Tensor& windows) {
  const std::int64_t batch = windows.size(0) / count();
  at::Tensor rows =
      count() == 1 ? windows : windows.reshape(with_sizes(windows, batch, padded_.places()));
  if (order_.defined()) {
    rows = PickTokens::apply(rows, inverse_.on(rows.device()), order_.on(rows.device()));
  }
  return crop_tokens(rows, padded_, map_);
}

at::Tensor Windows::mask(const at::TensorOptions& options) {
  return mask_.defined() ? mask_.on(options) : at::Tensor();
}

namespace {

/// Evaluation meets images of many sizes, one after another.
constexpr std::size_t kMostSizes = 3;

MapSize with_whole_sides(const MapSize& window, const MapSize& map) {
  return {window.height > 0 ? window.height : map.height,
          window.width > 0 ? window.width : map.width};
}

}  // namespace

AnyWindows::AnyWindows(MapSize born, MapSize window, std::int64_t shift)
    : window_(window), shift_(shift) {
  known_.emplace_back(born, with_whole_sides(window, born), shift);
}

Windows& AnyWindows::of(std::int64_t tokens, std::int64_t height) {
  if (height == 0) return born();
  const MapSize map{height, tokens / height};
  for (Windows& windows : known_) {
    if (windows.map() == map) return windows;
  }
  if (known_.size() == kMostSizes) known_.erase(std::next(known_.begin()));
  // A map smaller than the shift has one window, and nowhere to move.
  const std::int64_t shift = shift_ < std::min(map.height, map.width) ? shift_ : 0;
  return known_.emplace_back(map, with_whole_sides(window_, map), shift);
}

}  // namespace ablate

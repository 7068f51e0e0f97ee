#include "datasets/store/pack_sample.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <nlohmann/json.hpp>

#include "datasets/decode.h"
#include "datasets/resize.h"
#include "datasets/store/encode_jpeg.h"
#include "runner/core/error.h"
#include "runner/core/hash.h"

namespace ablate {
namespace {

constexpr std::array<std::string_view, 3> kKindNames{"verbatim", "jpeg", "raw"};

std::string_view text_of(const StoredImage& stored) {
  return {reinterpret_cast<const char*>(stored.bytes.data()), stored.bytes.size()};
}

/// Shrinks to the shorter side, if that is longer now.
bool shrink(Image& image, int side) {
  const int shorter = std::min(image.width, image.height);
  if (side == 0 || shorter <= side) return false;
  const auto scaled = [&](int length) {
    return std::max(1, static_cast<int>(std::lround(static_cast<double>(length) * side / shorter)));
  };
  image = resize(image, scaled(image.width), scaled(image.height), Filter::Bicubic);
  return true;
}

void encode(const StoredImage& stored, Image& image, const PackForm& form, PreparedSample& sample) {
  const bool shrunk = form.kind != PackForm::Kind::Verbatim && shrink(image, form.side);
  const bool is_file = stored.width == 0;
  if (form.kind == PackForm::Kind::Raw) {
    sample.bytes.assign(image.pixels.begin(), image.pixels.end());
  } else if (form.kind == PackForm::Kind::Jpeg && (shrunk || !is_file || !is_jpeg(stored.bytes))) {
    sample.bytes = encode_jpeg(image, form.quality);
    return;
  } else {
    sample.bytes = text_of(stored);
    if (is_file) return;
  }
  sample.entry.width = static_cast<std::uint32_t>(image.width);
  sample.entry.height = static_cast<std::uint32_t>(image.height);
}

PreparedSample bad_sample(std::string_view kind, const Error& error) {
  PreparedSample sample;
  sample.bad = true;
  sample.findings.add(kind, error.what());
  return sample;
}

}  // namespace

nlohmann::json PackForm::json() const {
  return {{"kind", kind_name(kind)}, {"side", side}, {"quality", quality}};
}

PackForm PackForm::from_json(const nlohmann::json& json) {
  const auto name = json.at("kind").get<std::string>();
  const auto found = std::ranges::find(kKindNames, name);
  if (found == kKindNames.end()) throw Error(cat("unknown form of samples \"", name, "\""));
  return {.kind = static_cast<Kind>(found - kKindNames.begin()),
          .side = json.at("side").get<int>(),
          .quality = json.at("quality").get<int>()};
}

std::string_view kind_name(PackForm::Kind kind) {
  return kKindNames[static_cast<std::size_t>(kind)];
}

PreparedSample prepare_sample(const StoredDataset& source, std::int64_t index,
                              const PackForm& form) {
  thread_local std::string buffer;
  thread_local Image image;
  StoredImage stored;
  try {
    stored = *source.stored(index, buffer);
  } catch (const TransientError&) {
    throw;
  } catch (const Error& error) {
    return bad_sample(kUnreadable, error);
  }
  PreparedSample sample;
  try {
    decode_stored(stored, image);
    encode(stored, image, form, sample);
  } catch (const Error& error) {
    return bad_sample(kUndecodable, error);
  }
  if (has_other_format(stored)) {
    sample.findings.add(kOtherExtension, std::string(stored.name));
  }
  sample.entry.length = sample.bytes.size();
  sample.entry.checksum = hash64(sample.bytes);
  sample.entry.origin = hash64(text_of(stored));
  sample.entry.label = static_cast<std::uint32_t>(source.label(index));
  return sample;
}

}  // namespace ablate

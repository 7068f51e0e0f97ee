#include "datasets/sample_reader.h"

#include <utility>

#include "runner/core/error.h"

namespace ablate {
namespace {

/// Has mapped bytes read from the disk now, so that waiting for it is not taken for decoding.
void touch(std::span<const std::uint8_t> bytes) {
  constexpr std::size_t kPage = 4096;
  const volatile std::uint8_t* data = bytes.data();
  for (std::size_t at = 0; at < bytes.size(); at += kPage) static_cast<void>(data[at]);
}

}  // namespace

/// What cannot be decoded is loaded as a whole once more, as the set's own error says best what to
/// do about it.
template <typename Decode>
auto SampleReader::decode(const Decode& decode_sample) {
  try {
    return decode_sample();
  } catch (const Error&) {
    dataset_->load(index_, whole_);
    throw;
  }
}

Size SampleReader::open(const Dataset& dataset, std::int64_t index, StageTimer& timer) {
  dataset_ = &dataset;
  index_ = index;
  if (const std::optional<StoredImage> stored = dataset.stored(index, buffer_)) {
    touch(stored->bytes);
    timer.was(LoadStage::Read);
    const Size size = decode([&] { return decoder_.open(*stored); });
    timer.was(LoadStage::Decode);
    return size;
  }
  dataset.load(index, whole_);
  timer.was(LoadStage::Decode);
  return decoder_.open(whole_);
}

void SampleReader::read(const Box& box, StageTimer& timer) {
  memory.part.reshape(box.width, box.height);
  read(box, memory.part.pixels.data(), timer);
}

void SampleReader::read(const Box& box, std::uint8_t* rgb, StageTimer& timer) {
  decode([&] { decoder_.read(box, rgb); });
  timer.was(LoadStage::Decode);
}

SampleReaders::Lease::Lease(SampleReaders& owner) : owner_(owner) {
  const std::lock_guard lock(owner_.mutex_);
  if (owner_.free_.empty()) {
    reader_ = std::make_unique<SampleReader>();
  } else {
    reader_ = std::move(owner_.free_.back());
    owner_.free_.pop_back();
  }
}

SampleReaders::Lease::~Lease() {
  const std::lock_guard lock(owner_.mutex_);
  owner_.free_.push_back(std::move(reader_));
}

}  // namespace ablate

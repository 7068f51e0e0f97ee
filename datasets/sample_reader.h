#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "datasets/part_decoder.h"
#include "datasets/stage_clock.h"
#include "datasets/transforms.h"

namespace ablate {

/// Reads samples of a set, of each no more than a part, in memory that it keeps. Of sets that give
/// no stored form the whole image is loaded.
class SampleReader {
 public:
  /// Turns to a sample and returns the size of its image.
  Size open(const Dataset& dataset, std::int64_t index, StageTimer& timer);
  /// memory.part becomes the pixels of `box` of that image; once after each open(), as long as the
  /// set lives.
  void read(const Box& box, StageTimer& timer);
  /// The same into 3 * box.width * box.height bytes.
  void read(const Box& box, std::uint8_t* rgb, StageTimer& timer);

  SampleMemory memory;  ///< for whoever makes something of the samples

 private:
  template <typename Decode>
  auto decode(const Decode& decode_sample);

  std::string buffer_;
  Image whole_;
  PartDecoder decoder_;
  const Dataset* dataset_ = nullptr;  // of the sample
  std::int64_t index_ = 0;
};

/// Readers for as many threads as ask for one at a time.
class SampleReaders {
 public:
  /// A reader for one thread until it is given back by the deleter.
  class Lease {
   public:
    explicit Lease(SampleReaders& owner);
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    SampleReader* operator->() const { return reader_.get(); }
    SampleReader& operator*() const { return *reader_; }

   private:
    SampleReaders& owner_;
    std::unique_ptr<SampleReader> reader_;
  };

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<SampleReader>> free_;
};

}  // namespace ablate

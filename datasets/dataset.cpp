#include "datasets/dataset.h"

#include <algorithm>
#include <vector>

#include "runner/core/error.h"
#include "runner/core/hash.h"
#include "runner/core/random.h"

namespace ablate {
namespace {

/// The samples `indices` of another set, under new numbers.
class Subset final : public Dataset {
 public:
  Subset(std::shared_ptr<const Dataset> whole, std::vector<std::int64_t> indices)
      : whole_(std::move(whole)), indices_(std::move(indices)) {}

  std::int64_t size() const override { return static_cast<std::int64_t>(indices_.size()); }
  std::int64_t label(std::int64_t index) const override { return whole_->label(at(index)); }
  void load(std::int64_t index, Image& image) const override { whole_->load(at(index), image); }
  std::optional<StoredImage> stored(std::int64_t index, std::string& buffer) const override {
    return whole_->stored(at(index), buffer);
  }
  void load_labels(std::int64_t index, LabelMap& labels) const override {
    whole_->load_labels(at(index), labels);
  }
  const DatasetFacts& facts() const override { return whole_->facts(); }

  std::string fingerprint() const override {
    const std::string_view bytes(reinterpret_cast<const char*>(indices_.data()),
                                 indices_.size() * sizeof(indices_[0]));
    return hash128_hex(cat(whole_->fingerprint(), hash128_hex(bytes)));
  }

 private:
  std::int64_t at(std::int64_t index) const { return indices_[static_cast<std::size_t>(index)]; }

  std::shared_ptr<const Dataset> whole_;
  std::vector<std::int64_t> indices_;
};

}  // namespace

void Dataset::load_labels(std::int64_t index, LabelMap& /*labels*/) const {
  throw BugError(cat("pixels of image ", index, " have no labels in this set"));
}

DatasetSplits carve_holdout(DatasetSplits splits, std::int64_t holdout) {
  if (holdout == 0) return splits;
  const std::int64_t size = splits.train->size();
  if (holdout >= size) {
    throw SpecError(cat("dataset.holdout = ", holdout, " leaves nothing of ", size,
                        " training samples; use at most ", size - 1));
  }
  // Not keyed by the run's seed: all runs hold out the same samples, or paired differences would
  // compare different training sets.
  const Permutation order(static_cast<std::uint64_t>(size), 0, Purpose::Holdout);
  std::vector<std::int64_t> held, kept;
  for (std::int64_t i = 0; i < size; ++i) {
    (i < holdout ? held : kept)
        .push_back(static_cast<std::int64_t>(order(static_cast<std::uint64_t>(i))));
  }
  std::ranges::sort(held);
  std::ranges::sort(kept);
  splits.holdout = std::make_shared<Subset>(splits.train, std::move(held));
  splits.train = std::make_shared<Subset>(splits.train, std::move(kept));
  return splits;
}

}  // namespace ablate

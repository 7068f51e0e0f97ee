#include "datasets/loader.h"

#include <atomic>
#include <map>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "datasets/ordered_pool.h"
#include "runner/core/error.h"
#include "tests/core/expect_error.h"
#include "tests/support/datasets.h"

namespace ablate {
namespace {

using test::make_recipe;
using test::message_of;

/// Tiny images that hold their own number; label = number mod 10. Optionally one cannot be read.
class Numbered final : public Dataset {
 public:
  explicit Numbered(std::int64_t size, std::int64_t broken = -1) : size_(size), broken_(broken) {}
  std::int64_t size() const override { return size_; }
  std::int64_t label(std::int64_t index) const override { return index % 10; }
  void load(std::int64_t index, Image& image) const override {
    if (index == broken_) throw Error("number 13 is broken");
    image.reshape(8, 8);
    for (std::size_t i = 0; i < image.pixels.size(); ++i) {
      image.pixels[i] =
          static_cast<std::uint8_t>((index >> (8 * (i % 3))) + 5 * static_cast<int>(i));
    }
  }
  std::string fingerprint() const override { return "numbered"; }
  const DatasetFacts& facts() const override { return facts_; }

 private:
  std::int64_t size_, broken_;
  DatasetFacts facts_{.classes = 10, .image_size = 8, .normalization = {}};
};

/// One training step of all ranks together.
struct Step {
  at::Tensor images, labels, other_labels, mix;
  std::vector<std::int64_t> indices;
};

Step join(const std::vector<Batch>& parts) {
  std::vector<at::Tensor> images, labels, other, mix;
  Step step;
  for (const Batch& part : parts) {
    EXPECT_EQ(part.first_position, static_cast<std::int64_t>(step.indices.size()));
    EXPECT_TRUE((part.weights == 1).all().item<bool>());
    images.push_back(part.images);
    labels.push_back(part.labels);
    if (part.mix.defined()) other.push_back(part.other_labels);
    if (part.mix.defined()) mix.push_back(part.mix);
    step.indices.insert(step.indices.end(), part.indices.begin(), part.indices.end());
  }
  step.images = at::cat(images);
  step.labels = at::cat(labels);
  if (!mix.empty()) step.other_labels = at::cat(other);
  if (!mix.empty()) step.mix = at::cat(mix);
  return step;
}

void expect_equal(const Step& a, const Step& b, const std::string& label) {
  EXPECT_EQ(a.indices, b.indices) << label;
  EXPECT_TRUE(at::equal(a.images, b.images)) << label;
  EXPECT_TRUE(at::equal(a.labels, b.labels)) << label;
  ASSERT_EQ(a.mix.defined(), b.mix.defined()) << label;
  if (!a.mix.defined()) return;
  EXPECT_TRUE(at::equal(a.other_labels, b.other_labels)) << label;
  EXPECT_TRUE(at::equal(a.mix, b.mix)) << label;
}

struct Cut {
  int ranks = 1;
  std::int64_t micro_batch = 0;
  int threads = 0;
};

/// The loaders of all ranks of one run.
class Loaders {
 public:
  Loaders(const AugmentRecipe& recipe, const Cut& cut, std::int64_t samples = 100,
          std::uint64_t seed = 7) {
    for (int rank = 0; rank < cut.ranks; ++rank) {
      loaders_.push_back(std::make_unique<TrainLoader>(std::make_shared<Numbered>(samples), recipe,
                                                       LoaderOptions{.seed = seed,
                                                                     .global_batch = 32,
                                                                     .micro_batch = cut.micro_batch,
                                                                     .mix_group = 4,
                                                                     .shard = {rank, cut.ranks},
                                                                     .threads = cut.threads}));
    }
    seek(0, 0);
  }

  void seek(std::int64_t epoch, std::int64_t step) {
    for (auto& loader : loaders_) loader->seek(epoch, step);
  }
  Step next() {
    std::vector<Batch> parts;
    for (auto& loader : loaders_) {
      for (std::int64_t i = 0; i < loader->micro_batches_per_step(); ++i) {
        parts.push_back(loader->next());
      }
    }
    return join(parts);
  }
  TrainLoader& rank(std::size_t r) { return *loaders_[r]; }

 private:
  std::vector<std::unique_ptr<TrainLoader>> loaders_;
};

AugmentRecipe strong() { return make_recipe("cifar_strong", 8, "pad = 2"); }

TEST(TrainLoader, GivesTheSamePixelsHoweverTheWorkIsCut) {
  Loaders reference(strong(), {});
  std::vector<Step> steps;
  for (int i = 0; i < 7; ++i) steps.push_back(reference.next());  // three epochs
  for (const Cut& cut : {Cut{1, 0, 3}, Cut{1, 8, 0}, Cut{1, 4, 2}, Cut{2, 0, 1}, Cut{2, 4, 2},
                         Cut{4, 0, 0}, Cut{4, 8, 2}}) {
    Loaders run(strong(), cut);
    for (std::size_t i = 0; i < steps.size(); ++i) {
      expect_equal(run.next(), steps[i],
                   cat(cut.ranks, " ranks, micro-batch ", cut.micro_batch, ", ", cut.threads,
                       " threads, step ", i));
    }
  }
}

TEST(TrainLoader, ContinuesInMidEpoch) {
  Loaders reference(strong(), {});
  EXPECT_EQ(reference.rank(0).steps_per_epoch(), 3);
  std::vector<Step> steps;
  for (int i = 0; i < 8; ++i) steps.push_back(reference.next());
  for (const int threads : {0, 2}) {
    Loaders run(strong(), {.ranks = 2, .micro_batch = 8, .threads = threads});
    for (const std::size_t start : {4U, 1U, 6U, 0U}) {
      run.seek(static_cast<std::int64_t>(start) / 3, static_cast<std::int64_t>(start) % 3);
      expect_equal(run.next(), steps[start], cat("start ", start));
      expect_equal(run.next(), steps[start + 1], cat("after start ", start));
    }
  }
}

TEST(TrainLoader, ShufflesEachEpochAnewAndRepeatsNothing) {
  Loaders run(make_recipe("none", 8), {});
  std::vector<std::vector<std::int64_t>> epochs(3);
  for (auto& epoch : epochs) {
    for (int step = 0; step < 3; ++step) {
      const std::vector<std::int64_t> indices = run.next().indices;
      epoch.insert(epoch.end(), indices.begin(), indices.end());
    }
    EXPECT_EQ(std::set(epoch.begin(), epoch.end()).size(), 96U);
    EXPECT_FALSE(std::ranges::is_sorted(epoch));
  }
  EXPECT_NE(epochs[0], epochs[1]);
  Loaders other(make_recipe("none", 8), {}, 100, 8);
  EXPECT_NE(other.next().indices, std::vector(epochs[0].begin(), epochs[0].begin() + 32));
}

TEST(TrainLoader, WithoutAugmentationGivesTheStoredPixels) {
  Loaders run(make_recipe("none", 8), {});
  const Step step = run.next();
  EXPECT_FALSE(step.mix.defined());
  for (std::int64_t row = 0; row < 32; ++row) {
    const std::int64_t index = step.indices[static_cast<std::size_t>(row)];
    const Image image = test::load_image(Numbered(100), index);
    EXPECT_EQ(step.labels[row].item<std::int64_t>(), index % 10);
    EXPECT_FLOAT_EQ(step.images[row][0][0][0].item<float>(), image.pixels[0] / 255.0F);
    EXPECT_FLOAT_EQ(step.images[row][2][7][5].item<float>(), image.row(7)[3 * 5 + 2] / 255.0F);
  }
}

TEST(TrainLoader, MixesWithThePartnerAcrossItsGroup) {
  Loaders plain(make_recipe("cifar", 8, "pad = 2"), {});
  Loaders mixed(make_recipe("cifar", 8, "pad = 2\nmixup = 0.8"), {});
  for (int i = 0; i < 4; ++i) {
    const Step from = plain.next(), step = mixed.next();
    EXPECT_EQ(step.indices, from.indices);
    for (std::int64_t row = 0; row < 32; ++row) {
      const std::int64_t partner = row / 4 * 4 + 3 - row % 4;
      const float own = step.mix[row].item<float>();
      EXPECT_TRUE(at::allclose(step.images[row],
                               own * from.images[row] + (1 - own) * from.images[partner], 0, 1e-6));
      EXPECT_EQ(step.other_labels[row].item<std::int64_t>(),
                step.labels[partner].item<std::int64_t>());
      EXPECT_EQ(own, step.mix[row / 4 * 4].item<float>()) << "one weight a group";
    }
  }
}

TEST(TrainLoader, RepeatsEachDrawInARowWithOtherAugmentation) {
  Loaders run(make_recipe("cifar", 8, "pad = 4\nrepeated = 4"), {.ranks = 2});
  std::set<std::int64_t> seen;
  for (int i = 0; i < 3; ++i) {
    const Step step = run.next();
    for (std::size_t first = 0; first < 32; first += 4) {
      EXPECT_TRUE(seen.insert(step.indices[first]).second) << "one draw an epoch";
      bool varies = false;
      for (std::size_t k = 1; k < 4; ++k) {
        EXPECT_EQ(step.indices[first + k], step.indices[first]);
        varies = varies || !at::equal(step.images[static_cast<std::int64_t>(first + k)],
                                      step.images[static_cast<std::int64_t>(first)]);
      }
      EXPECT_TRUE(varies);
    }
  }
  EXPECT_EQ(seen.size(), 24U);
}

// The set of a step's draws is that of the row of draws; what changes is who is mixed with whom.
TEST(TrainLoader, MixesNoImageWithItsOwnCopy) {
  Loaders run(make_recipe("cifar", 8, "pad = 4\nrepeated = 4\nmixup = 0.8"), {.ranks = 2});
  for (int i = 0; i < 3; ++i) {
    const Step step = run.next();
    std::map<std::int64_t, int> copies;
    for (std::size_t row = 0; row < 32; ++row) {
      const std::size_t partner = row / 4 * 4 + 3 - row % 4;
      EXPECT_NE(step.indices[row], step.indices[partner]) << row;
      ++copies[step.indices[row]];
    }
    EXPECT_EQ(copies.size(), 8U);
    for (const auto& [index, count] : copies) EXPECT_EQ(count, 4) << index;
  }
}

TEST(TrainLoader, RefusesSizesThatDoNotDivideAndNamesTheFix) {
  const auto refusal = [](const LoaderOptions& options) {
    return message_of<SpecError>(
        [&] { TrainLoader(std::make_shared<Numbered>(100), strong(), options); });
  };
  EXPECT_NE(refusal({.global_batch = 32, .mix_group = 4, .shard = {0, 3}}).find("32"),
            std::string::npos);
  EXPECT_NE(refusal({.global_batch = 32, .micro_batch = 12, .mix_group = 4}).find("divisor of 32"),
            std::string::npos);
  EXPECT_NE(refusal({.global_batch = 32, .micro_batch = 8, .mix_group = 16}).find("mix_group = 16"),
            std::string::npos);
  EXPECT_NE(refusal({.global_batch = 128, .mix_group = 4}).find("more than the training set (100)"),
            std::string::npos);
}

TEST(TrainLoader, HandsOutTheErrorOfAWorkerInItsPlace) {
  for (const int threads : {0, 1, 3}) {
    TrainLoader loader(std::make_shared<Numbered>(100, 13), make_recipe("none", 8),
                       {.seed = 7, .global_batch = 10, .threads = threads});
    loader.seek(0, 0);
    int failed = 0;
    for (int step = 0; step < 10; ++step) {
      try {
        const Batch batch = loader.next();
        EXPECT_EQ(std::ranges::count(batch.indices, 13), 0);
      } catch (const Error& error) {
        EXPECT_STREQ(error.what(), "number 13 is broken");
        ++failed;
      }
    }
    EXPECT_EQ(failed, 1) << "all samples are drawn once an epoch";
  }
}

TEST(TrainLoader, MeasuresWaiting) {
  Loaders run(strong(), {});
  run.next();
  EXPECT_GT(run.rank(0).take_wait_seconds(), 0.0);
  EXPECT_EQ(run.rank(0).take_wait_seconds(), 0.0);
}

/// How often each sample came with weight 1 on any rank; checks padding on the way.
std::vector<int> cover(std::int64_t size, int ranks, std::int64_t batch, std::int64_t limit) {
  std::vector<int> seen(static_cast<std::size_t>(size), 0);
  std::int64_t batches = -1;
  for (int rank = 0; rank < ranks; ++rank) {
    EvalLoader loader(std::make_shared<Numbered>(size), make_recipe("none", 8),
                      {.global_batch = batch, .shard = {rank, ranks}, .threads = rank % 3});
    loader.start(limit);
    EXPECT_TRUE(batches < 0 || batches == loader.batches()) << "ranks must take equal turns";
    batches = loader.batches();
    for (std::int64_t i = 0; i < batches; ++i) {
      const Batch part = loader.next();
      EXPECT_EQ(part.images.size(0), batch / ranks);
      for (std::size_t row = 0; row < part.indices.size(); ++row) {
        const auto at_row = static_cast<std::int64_t>(row);
        const bool real = part.indices[row] >= 0;
        EXPECT_EQ(part.weights[at_row].item<float>(), real ? 1.0F : 0.0F);
        if (real) {
          EXPECT_EQ(part.indices[row], part.first_position + at_row);
          EXPECT_EQ(part.labels[at_row].item<std::int64_t>(), part.indices[row] % 10);
          ++seen[static_cast<std::size_t>(part.indices[row])];
        } else {
          EXPECT_TRUE((part.images[at_row] == 0).all().item<bool>());
        }
      }
    }
  }
  return seen;
}

TEST(EvalLoader, CountsEverySampleOnceOnAnyNumberOfRanks) {
  EXPECT_EQ(cover(50'000, 7, 7 * 143, 0), std::vector(50'000, 1));
  EXPECT_EQ(cover(103, 1, 10, 0), std::vector(103, 1));
  EXPECT_EQ(cover(103, 4, 16, 0), std::vector(103, 1));
  EXPECT_EQ(cover(3, 4, 8, 0), std::vector(3, 1));
  EXPECT_EQ(cover(100, 2, 20, 0), std::vector(100, 1));
  std::vector<int> part(103, 0);
  std::fill_n(part.begin(), 45, 1);
  EXPECT_EQ(cover(103, 4, 16, 45), part);
}

TEST(EvalLoader, StartsAgainAlsoAfterAnAbandonedPass) {
  EvalLoader loader(std::make_shared<Numbered>(100), make_recipe("none", 8),
                    {.global_batch = 10, .threads = 2});
  for (const std::int64_t limit : {0, 25, 0, 7}) {
    loader.start(limit);
    EXPECT_EQ(loader.batches(), limit == 0 ? 10 : (limit + 9) / 10);
    EXPECT_EQ(loader.next().indices.front(), 0);
  }
  EXPECT_THROW(loader.next(), BugError);
}

TEST(EvalLoader, RefusesABatchThatDoesNotDivide) {
  const std::string message = message_of<SpecError>([] {
    EvalLoader(std::make_shared<Numbered>(100), make_recipe("none", 8),
               {.global_batch = 10, .shard = {0, 4}});
  });
  EXPECT_NE(message.find("global_batch = 10"), std::string::npos) << message;
}

TEST(OrderedPool, WorksAheadByABoundedNumberAndIsStillWhileSeeking) {
  std::atomic<std::int64_t> handed{0}, farthest{0};
  std::atomic<int> busy{0};
  OrderedPool<Batch> pool(
      [&](std::int64_t number) {
        ++busy;
        const std::int64_t ahead = number - handed.load();
        if (ahead > farthest.load()) farthest = ahead;
        Batch batch;
        batch.first_position = number;
        --busy;
        return batch;
      },
      3, 4);
  for (std::int64_t round = 0; round < 200; ++round) {
    handed = 10 * round;
    pool.seek(10 * round, 10 * round + 10);
    for (std::int64_t i = 0; i < 3; ++i) {
      EXPECT_EQ(pool.next().first_position, 10 * round + i);
      ++handed;
    }
    pool.seek(0, 0);
    EXPECT_EQ(busy.load(), 0);
  }
  EXPECT_LE(farthest.load(), 4);
}

}  // namespace
}  // namespace ablate

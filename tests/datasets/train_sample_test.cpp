#include "datasets/device/train_sample.h"

#include <atomic>
#include <barrier>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/datasets/device_batches.h"

namespace ablate::augment {
namespace {

TEST(CounterStream, GivesTheNumbersOfRandomStream) {
  for (std::uint64_t a = 0; a < 50; ++a) {
    const std::uint64_t key = a * 0x9e3779b97f4a7c15U;
    RandomStream expected(11, Purpose::Test, key, 3);
    CounterStream stream(stream_key(11, Purpose::Test), key, 3);
    for (std::uint32_t i = 1; i < 20; ++i) {
      EXPECT_EQ(stream.next(), expected.next());
      EXPECT_EQ(stream.uniform(), expected.uniform());
      EXPECT_EQ(stream.below(i * 0x0fffffffU), expected.below(i * 0x0fffffffU));
      EXPECT_EQ(stream.uniform(-2.0, 3.0), expected.uniform(-2.0, 3.0));
      EXPECT_EQ(stream.chance(0.4), expected.chance(0.4));
      EXPECT_EQ(stream.normal(), expected.normal());
      EXPECT_EQ(stream.beta(0.8, 0.8), expected.beta(0.8, 0.8));
      EXPECT_EQ(stream.beta(2.0, 0.1), expected.beta(2.0, 0.1));
    }
  }
}

TEST(CounterStream, CanBeEnteredAnywhere) {
  CounterStream whole(stream_key(1, Purpose::Test), 2, 3);
  std::vector<std::uint32_t> words(40);
  for (std::uint32_t& word : words) word = whole.next();
  EXPECT_EQ(whole.position(), 40U);
  for (std::uint32_t at = 0; at + 6 < 40; ++at) {
    CounterStream stream(stream_key(1, Purpose::Test), 2, 3);
    stream.seek(at);
    for (std::uint32_t i = 0; i < 6; ++i) EXPECT_EQ(stream.next(), words[at + i]);
  }
}

TEST(KeyedOrder, IsThePermutation) {
  for (const std::uint64_t count : {1U, 2U, 3U, 16U, 17U, 100U, 4097U, 50000U, 65536U, 65537U}) {
    const KeyedOrder order = keyed_order(count, 9, Purpose::DataOrder);
    for (const std::uint64_t epoch : {0U, 1U, 77U}) {
      const Permutation expected(count, 9, Purpose::DataOrder, epoch);
      for (std::uint64_t i = 0; i < std::min<std::uint64_t>(count, 500); ++i) {
        EXPECT_EQ(order.at(i, epoch), expected(i));
        EXPECT_EQ(order.at(count - 1 - i, epoch), expected(count - 1 - i));
      }
    }
  }
}

// The matrix's elements are rounded to decimals, which the device does without decimal text.
TEST(Rotation, IsThatOfTheHostToTheLastBit) {
  for (const int side : {8, 15, 32, 64}) {
    for (int i = -3000; i <= 3000; ++i) {
      const double degrees = i * 0.0123 + (i % 7) * 1e-9;
      const Affine made = rotation(degrees, side);
      const AffineMatrix expected = rotation_matrix(degrees, side, side);
      EXPECT_EQ((AffineMatrix{made.a, made.b, made.c, made.d, made.e, made.f}), expected)
          << degrees;
    }
  }
  for (const double right : {-180.0, -90.0, -30.0, 0.0, 30.0, 45.0, 60.0, 90.0, 180.0, 270.0}) {
    const Affine made = rotation(right, 32);
    const AffineMatrix expected = rotation_matrix(right, 32, 32);
    EXPECT_EQ((AffineMatrix{made.a, made.b, made.c, made.d, made.e, made.f}), expected) << right;
  }
}

/// Threads that stand for those of a block.
struct ThreadTeam {
  int index, count;
  std::barrier<>* barrier;

  int rank() const { return index; }
  int size() const { return count; }
  void sync() const { barrier->arrive_and_wait(); }
  void add(int* sum, int value) const { std::atomic_ref(*sum).fetch_add(value); }
  bool leads(int role) const { return index == role % count; }
};

/// The batch with several threads to an image.
void make_by_threads(const TrainBatch& batch, int count) {
  std::vector<std::uint8_t> memory(canvas_bytes(batch.recipe.side));
  std::barrier barrier(count);
  SampleDraw draw{};
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      const ThreadTeam team{i, count, &barrier};
      for (std::int64_t row = 0; row < batch.rows; ++row) {
        make_train_sample(team, batch, row, draw, canvas_in(memory.data(), batch.recipe.side));
        team.sync();  // a block has memory of its own
      }
      for (std::int64_t first = 0; first < batch.rows; first += batch.mix_group) {
        const MixPlan plan = draw_plan(batch, (batch.first_position + first) / batch.mix_group);
        for (std::int64_t pair = 0; pair < (batch.mix_group + 1) / 2; ++pair) {
          mix_rows(team, batch, plan, first + pair, first + batch.mix_group - 1 - pair,
                   batch.images);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Also what the thread sanitizer looks at: a barrier left out is a race here.
TEST(TrainSample, IsTheSameForAnyNumberOfThreads) {
  constexpr std::int64_t kRows = 60;
  const test::Varied dataset(kRows, 12);
  const ResidentSet set(dataset, at::kCPU);
  const AugmentRecipe recipe =
      test::make_recipe("cifar_strong", 12, "randaugment = \"rand-m8-mstd1-n6-p1\"\nerasing = 0.8");
  const std::int64_t step = 3;
  TrainBatch batch{.set = set.images(),
                   .recipe = pixel_recipe(recipe, dataset.facts().normalization),
                   .order = keyed_order(kRows, 2, Purpose::DataOrder),
                   .augment = stream_key(2, Purpose::Augment),
                   .mix = stream_key(2, Purpose::Mix),
                   .global_batch = kRows,
                   .steps_per_epoch = 1,
                   .rows = kRows,
                   .mix_group = 5,
                   .step = &step};
  const auto make = [&](const auto& by) {
    const at::Tensor images = at::full({kRows, 3, 12, 12}, -1, at::kFloat);
    const at::Tensor labels = at::full({2, kRows}, -1, at::kLong);
    const at::Tensor mixed = at::full({kRows}, -1, at::kFloat);
    batch.images = images.data_ptr<float>();
    batch.labels = labels.data_ptr<std::int64_t>();
    batch.other_labels = batch.labels + kRows;
    batch.mixed = mixed.data_ptr<float>();
    by();
    return std::vector<at::Tensor>{images, labels, mixed};
  };
  const auto alone = make([&] { host::make_batch(batch); });
  for (const int threads : {2, 3, 5}) {
    const auto together = make([&] { make_by_threads(batch, threads); });
    for (std::size_t i = 0; i < alone.size(); ++i) {
      EXPECT_TRUE(at::equal(alone[i], together[i])) << threads << " threads, part " << i;
    }
  }
}

}  // namespace
}  // namespace ablate::augment

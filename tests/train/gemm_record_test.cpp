#include "runner/train/gemm_record.h"

#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "distributed/communicator.h"
#include "tests/support/run_ranks.h"
#include "tests/support/temp_folder.h"

// Whoever comes first has the word about an algorithm: runs of one folder, ranks of one run, and
// attempts at one run all compute with the same ones.

namespace ablate::test {
namespace {

constexpr const char* kCard = "a card, library 1";

kernels::GemmAlgorithm algorithm(std::uint64_t number) { return {number, 0, 0, 0, 0, 0, 0, ~0ULL}; }

TEST(GemmRecord, TheFirstFindingStays) {
  const TempFolder out;
  const auto self = make_self_communicator();
  GemmRecord first(out.path(), kCard, *self), second(out.path(), kCard, *self);
  EXPECT_TRUE(first.choices().empty());
  first.settle({{"a", algorithm(1)}});
  // Knows of no file when it begins, and of the other run's finding when it settles.
  const auto settled = second.settle({{"a", algorithm(2)}, {"b", algorithm(3)}});
  EXPECT_EQ(settled, (kernels::GemmChoices{{"a", algorithm(1)}, {"b", algorithm(3)}}));
  EXPECT_EQ(GemmRecord(out.path(), kCard, *self).choices(), settled);
}

TEST(GemmRecord, OfAnotherCardIsNotTaken) {
  const TempFolder out;
  const auto self = make_self_communicator();
  GemmRecord here(out.path(), kCard, *self), there(out.path(), "another", *self);
  here.settle({{"a", algorithm(1)}});
  EXPECT_TRUE(there.settle({}).empty());
  there.load(here.save());
  EXPECT_TRUE(there.choices().empty());
}

TEST(GemmRecord, ACheckpointHasThePrecedence) {
  const TempFolder out, other;
  const auto self = make_self_communicator();
  GemmRecord saved(other.path(), kCard, *self), resumed(out.path(), kCard, *self);
  saved.settle({{"a", algorithm(1)}});
  resumed.settle({{"a", algorithm(2)}, {"b", algorithm(3)}});
  resumed.load(nlohmann::json::parse(saved.save().dump()));
  EXPECT_EQ(resumed.choices(), (kernels::GemmChoices{{"a", algorithm(1)}, {"b", algorithm(3)}}));
}

TEST(GemmRecord, ADamagedFileIsReplaced) {
  const TempFolder out;
  const auto self = make_self_communicator();
  GemmRecord(out.path(), kCard, *self).settle({{"a", algorithm(1)}});
  for (const auto& file : std::filesystem::directory_iterator(out / "gemm")) {
    std::ofstream(file.path()) << "{ \"platform\": ";
  }
  GemmRecord again(out.path(), kCard, *self);
  EXPECT_TRUE(again.choices().empty());
  again.settle({{"a", algorithm(2)}});
  EXPECT_EQ(GemmRecord(out.path(), kCard, *self).choices().at("a"), algorithm(2));
}

TEST(GemmRecord, RanksTakeRankZerosFindings) {
  const TempFolder out;
  run_ranks(3, [&](Communicator& world) {
    GemmRecord record(out.path(), kCard, world);
    const auto own = static_cast<std::uint64_t>(world.rank());
    EXPECT_EQ(record.settle({{"a", algorithm(own)}}).at("a"), algorithm(0));
  });
}

}  // namespace
}  // namespace ablate::test

#include "results/item_comparison.h"

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/results/store_fixture.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

using test::make_run;
using test::SpoolBytes;
using test::TempFolder;

/// Bits of `items` items, right where `right` says so.
template <typename Right>
SampleBits bits_of(std::int64_t step, std::int64_t items, const Right& right) {
  SampleBits bits{.kind = "top1", .step = step, .n = items, .bits = {}};
  bits.bits.resize(static_cast<std::size_t>(items + 7) / 8);
  for (std::int64_t i = 0; i < items; ++i) {
    if (right(i)) bits.bits[static_cast<std::size_t>(i / 8)] |= static_cast<char>(1 << (i % 8));
  }
  return bits;
}

class ItemComparisons : public testing::Test {
 protected:
  ItemComparisons() : store_(folder_ / "results.db") {
    RegisteredRun other_data = make_run("elsewhere", "c", 7);
    other_data.split = "other";
    store_.register_runs(std::vector{make_run("first", "a", 1), make_run("second", "b", 1),
                                     make_run("silent", "c", 1), other_data});
  }
  void add(const std::string& run, const std::vector<SampleBits>& records) {
    SpoolBytes spool(run);
    for (const SampleBits& bits : records) spool.add(bits);
    spool.outcome(OutcomeState::Done, 9);
    Ingester(store_).ingest({spool.write(folder_.path())});
  }
  TempFolder folder_;
  ResultStore store_;
};

TEST_F(ItemComparisons, AirwayHyperResponsiveness) {
  // Fagerland, Lydersen & Laake (2013), table 2: 21 children before and after transplantation; 1
  // and 7 discordant, 1 and 12 concordant. Exact p 0.070, mid-p 0.039.
  const auto before = [](std::int64_t i) { return i < 2; };
  const auto after = [](std::int64_t i) { return i == 0 || (i >= 2 && i < 9); };
  add("first", {bits_of(3, 21, after), bits_of(9, 21, before)});  // the last step counts
  add("second", {bits_of(9, 21, after)});
  const auto comparisons = compare_items(store_, "first", "second");
  ASSERT_EQ(comparisons.size(), 1U);
  const ItemComparison& c = comparisons[0];
  EXPECT_EQ(c.kind, "top1");
  EXPECT_EQ(c.items, 21U);
  EXPECT_EQ(c.both_right, 1U);
  EXPECT_EQ(c.mcnemar.b, 1U);
  EXPECT_EQ(c.mcnemar.c, 7U);
  EXPECT_EQ(c.both_wrong, 12U);
  EXPECT_NEAR(c.mcnemar.p, 0.0703, 5e-5);
  EXPECT_NEAR(c.mcnemar.mid_p, 0.0391, 5e-5);
}

TEST_F(ItemComparisons, NeedTheSameItemsOfBoth) {
  const auto all = [](std::int64_t) { return true; };
  add("first", {bits_of(9, 21, all)});
  add("second", {bits_of(9, 20, all)});
  add("elsewhere", {bits_of(9, 21, all)});
  EXPECT_THROW(compare_items(store_, "first", "second"), SpecError) << "another number of items";
  EXPECT_THROW(compare_items(store_, "first", "elsewhere"), SpecError) << "other data";
  EXPECT_THROW(compare_items(store_, "first", "silent"), SpecError) << "no record";
  EXPECT_EQ(compare_items(store_, "first", "first")[0].mcnemar.p, 1);
}

}  // namespace
}  // namespace ablate

#include <algorithm>
#include <set>

#include <gtest/gtest.h>

#include "results/references.h"
#include "results/table_spec.h"
#include "sweeps/expand.h"
#include "tests/support/table_files.h"

// What can be said of the sweep files of sweeps/tables without the training program.

namespace ablate {
namespace {

namespace fs = std::filesystem;

class TableFile : public ::testing::TestWithParam<fs::path> {
 protected:
  const SweepSpec sweep_ = parse_sweep(GetParam());
};

// Sweeps share a database, where a name stands for one of them.
TEST_P(TableFile, IsNamedLikeItsFile) { EXPECT_EQ(sweep_.name, GetParam().stem().string()); }

TEST_P(TableFile, ComparesWithARowOfIts) {
  const TableSpec layout = parse_table_spec(sweep_.table);
  const std::vector<std::string> labels = row_labels(expand(sweep_));
  EXPECT_NE(layout.baseline, "");
  EXPECT_EQ(std::ranges::count(labels, layout.baseline), 1) << layout.baseline;
}

TEST_P(TableFile, NamesPublishedNumbersThatExist) {
  const TableSpec layout = parse_table_spec(sweep_.table);
  const auto known = read_publications({test::source_root() / "results/references"});
  EXPECT_NO_THROW(find_publications(layout.references, known, nullptr));
}

// Without a control a row that was trained on would be compared with one that was not.
TEST_P(TableFile, HasAControlThatSawAsManyImages) {
  std::set<std::string> trained_on;  // variants that something is trained on from
  for (const Variant& variant : sweep_.variants) {
    const Value* epochs = variant.run.find("epochs");
    const bool evaluates = epochs != nullptr && epochs->as_int() == 0;
    if (!variant.from.empty() && !evaluates) trained_on.insert(variant.from);
  }
  for (const std::string& parent : trained_on) {
    const bool controlled = std::ranges::any_of(sweep_.variants, [&](const Variant& variant) {
      return variant.from == parent && variant.run.find("methods") == nullptr;
    });
    EXPECT_TRUE(controlled) << "no row is \"" << parent << "\", trained as long without a method";
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, TableFile, ::testing::ValuesIn(test::table_files()),
                         [](const auto& of) { return test::name_of_table(of.param); });

}  // namespace
}  // namespace ablate

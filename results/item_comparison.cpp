#include "results/item_comparison.h"

#include <span>

#include "results/sqlite.h"
#include "runner/core/error.h"

namespace ablate {
namespace {

std::span<const std::uint8_t> bytes_of(const SQLite::Column& column) {
  return {static_cast<const std::uint8_t*>(column.getBlob()),
          static_cast<std::size_t>(column.getBytes())};
}

ItemComparison compare(SQLite::Statement& row) {
  ItemComparison result;
  result.kind = row.getColumn(0).getString();
  result.items = static_cast<std::size_t>(row.getColumn(1).getInt64());
  const auto first = bytes_of(row.getColumn(2)), second = bytes_of(row.getColumn(3));
  result.mcnemar = mcnemar(first, second, result.items);
  // Against a run that has nothing right, "only the first" is all that the first has right.
  const std::vector<std::uint8_t> nothing(first.size(), 0);
  result.both_right = mcnemar(first, nothing, result.items).b - result.mcnemar.b;
  result.both_wrong = result.items - result.both_right - result.mcnemar.b - result.mcnemar.c;
  return result;
}

}  // namespace

std::vector<ItemComparison> compare_items(ResultStore& store, const std::string& first,
                                          const std::string& second) {
  return with_database_errors(store.file(), [&] {
    // The record of the last step of either run.
    auto rows = prepare(store.database(),
                        "WITH newest AS (SELECT run_uid, s.dataset_id, kind, n, bits "
                        "FROM sample_bits s JOIN run USING(run_id) WHERE step = (SELECT max(step) "
                        "FROM sample_bits t WHERE t.run_id = s.run_id AND t.kind = s.kind)) "
                        "SELECT a.kind, a.n, a.bits, b.bits FROM newest a "
                        "JOIN newest b USING(dataset_id, kind, n) "
                        "WHERE a.run_uid = ? AND b.run_uid = ? ORDER BY a.kind",
                        first, second);
    std::vector<ItemComparison> result;
    while (rows.executeStep()) result.push_back(compare(rows));
    if (result.empty()) {
      throw SpecError(
          cat("runs ", first, " and ", second,
              " cannot be compared item by item: both must be done, on the same data set"));
    }
    return result;
  });
}

}  // namespace ablate

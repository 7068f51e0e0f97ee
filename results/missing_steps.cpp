#include "results/missing_steps.h"

#include "results/projection.h"
#include "runner/core/text.h"

namespace ablate {
namespace {

// Attempts that go on from a checkpoint of an earlier one, each with that one: the last before it
// that began earlier. Left out are attempts whose steps a later one made again, and those for which
// a spool may still come: of the owner, or of an attempt in between that is not known at all.
constexpr const char* kResumptions = R"sql(
WITH resumption AS (
  SELECT r.run_id, r.state, a.n, a.first_step, max(o.n) AS owner
  FROM run r JOIN attempt a USING(run_id)
  JOIN attempt o ON o.run_id = a.run_id AND o.n BETWEEN 1 AND a.n - 1 AND o.first_step < a.first_step
  WHERE r.run_uid = ?1 AND NOT EXISTS(
    SELECT 1 FROM attempt b WHERE b.run_id = a.run_id AND b.n > a.n AND b.first_step < a.first_step)
  GROUP BY a.attempt_id)
SELECT run_id, state, n, first_step, owner FROM resumption e
WHERE EXISTS(SELECT 1 FROM spool WHERE run_uid = ?1 AND attempt_n = owner AND rank = 0)
  AND (SELECT count(*) FROM attempt c WHERE c.run_id = e.run_id AND c.n > owner AND c.n < e.n)
    = e.n - owner - 1
ORDER BY n
)sql";

bool has_point(SQLite::Database& db, std::int64_t run, std::int64_t step) {
  return query_integer(
             db,
             "SELECT EXISTS(SELECT 1 FROM series JOIN sample USING(series_id) WHERE "
             "run_id = ?1 AND rank = -1 AND step = ?2) OR EXISTS(SELECT 1 FROM series JOIN chunk "
             "USING(series_id) WHERE run_id = ?1 AND rank = -1 AND (?2 = step0 OR (stride > 0 AND "
             "?2 "
             "BETWEEN step0 AND step0 + (n - 1) * stride AND (?2 - step0) % stride = 0)))",
             run, step) == 1;
}

}  // namespace

std::vector<std::string> missing_steps(SQLite::Database& db, const std::string& run_uid) {
  std::vector<std::string> gaps;
  auto rows = prepare(db, kResumptions, run_uid);
  while (rows.executeStep() && is_terminal(rows.getColumn(1).getString())) {
    const std::int64_t last = rows.getColumn(3).getInt64() - 1;
    if (has_point(db, rows.getColumn(0).getInt64(), last)) continue;
    gaps.push_back(cat("run ", run_uid, ": no numbers of step ", last, ", which attempt ",
                       rows.getColumn(2).getInt(), " goes on from: the spool of attempt ",
                       rows.getColumn(4).getInt(), " was cut"));
  }
  return gaps;
}

}  // namespace ablate

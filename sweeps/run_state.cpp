#include "sweeps/run_state.h"

#include <chrono>

#include "results/sqlite.h"

namespace ablate {

std::map<std::string, RunState> run_states(ResultStore& store,
                                           const std::vector<std::string>& run_ids) {
  return with_database_errors(store.file(), [&] {
    std::map<std::string, RunState> states;
    auto query = prepare(store.database(),
                         "SELECT r.state, coalesce(a.n, 0), coalesce(a.cause, ''), "
                         "coalesce(a.detail, ''), coalesce(a.start_us, 0) FROM run r "
                         "LEFT JOIN attempt a ON a.run_id = r.run_id AND a.n = "
                         "(SELECT max(n) FROM attempt b WHERE b.run_id = r.run_id) "
                         "WHERE r.run_uid = ?");
    for (const std::string& id : run_ids) {
      rebind(query, id);
      if (!query.executeStep()) continue;
      states[id] = {query.getColumn(0).getString(), query.getColumn(1).getInt(),
                    query.getColumn(2).getString(), query.getColumn(3).getString(),
                    query.getColumn(4).getInt64()};
    }
    return states;
  });
}

std::int64_t now_microseconds() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::microseconds>(now).count();
}

}  // namespace ablate

#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "runner/core/process.h"
#include "tests/support/temp_folder.h"

namespace ablate::test {

using EnvironmentOfRanks = std::vector<std::pair<std::string, std::string>>;

/// Starts one test of this very program as several processes, the ranks of a job that meet in
/// `folder` as rendezvous_of_environment() says.
inline std::vector<ChildProcess> start_ranks(int size, const std::string& test,
                                             const std::filesystem::path& folder,
                                             const EnvironmentOfRanks& environment = {}) {
  std::vector<ChildProcess> ranks;
  for (int rank = 0; rank < size; ++rank) {
    ProcessOptions options;
    options.arguments = {std::filesystem::read_symlink("/proc/self/exe").string(),
                         "--gtest_filter=" + test};
    options.environment = {{"RANK", std::to_string(rank)},
                           {"WORLD_SIZE", std::to_string(size)},
                           {"ABLATE_RENDEZVOUS", folder.string()},
                           {"GTEST_OUTPUT", ""},
                           {"GTEST_TOTAL_SHARDS", "1"},
                           {"GTEST_SHARD_INDEX", "0"}};
    options.environment.insert(options.environment.end(), environment.begin(), environment.end());
    ranks.emplace_back(options);
  }
  return ranks;
}

/// Starts ranks and expects that the test passes in all of them.
inline void expect_pass_as_ranks(int size, const std::string& test,
                                 const EnvironmentOfRanks& environment = {}) {
  const TempFolder folder;
  auto ranks = start_ranks(size, test, folder.path(), environment);
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    const auto status = ranks[rank].wait_for(180);
    ASSERT_TRUE(status) << test << ": rank " << rank << " does not end";
    EXPECT_TRUE(status->success()) << test << ": rank " << rank << ": " << status->str();
  }
}

}  // namespace ablate::test

#include "runner/core/cpu_quota.h"

#include <fstream>

#include <gtest/gtest.h>

#include "runner/core/process.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

/// Control groups as a machine would show them.
class Groups {
 public:
  Groups& file(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((folder_ / path).parent_path());
    std::ofstream(folder_ / path) << text;
    return *this;
  }
  std::optional<double> quota(const std::string& own) {
    file("own", own);
    return cpu_quota(folder_.path(), folder_ / "own");
  }

 private:
  test::TempFolder folder_;
};

TEST(CpuQuota, IsTheLeastOfAGroupAndThoseItLiesIn) {
  Groups groups;
  groups.file("a/cpu.max", "400000 100000\n").file("a/b/cpu.max", "max 100000\n");
  EXPECT_EQ(groups.quota("0::/a/b\n"), 4.0);
  groups.file("a/b/c/cpu.max", "150000 100000\n");
  EXPECT_EQ(groups.quota("0::/a/b/c\n"), 1.5);
  EXPECT_EQ(groups.quota("0::/\n"), std::nullopt);
  groups.file("cpu.max", "200000 100000\n");
  EXPECT_EQ(groups.quota("0::/\n"), 2.0);
}

TEST(CpuQuota, KnowsVersion1) {
  Groups groups;
  groups.file("cpu,cpuacct/job/cpu.cfs_quota_us", "250000\n")
      .file("cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(groups.quota("3:memory:/job\n2:cpu,cpuacct:/job\n0::/\n"), 2.5);
  groups.file("cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(groups.quota("2:cpu,cpuacct:/job\n"), std::nullopt);
}

// Docker shows the host's path, of which the container sees the upper end.
TEST(CpuQuota, FindsAContainersOwnGroupByAForeignPath) {
  Groups groups;
  groups.file("cpu/cpu.cfs_quota_us", "1600000\n").file("cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(groups.quota("1:cpu:/docker/0123abcd\n"), 16.0);
}

TEST(CpuQuota, IsNothingWhereNothingIsSaid) {
  Groups groups;
  EXPECT_EQ(groups.quota(""), std::nullopt);
  EXPECT_EQ(groups.quota("no such line\n0::/gone\n"), std::nullopt);
  EXPECT_EQ(cpu_quota("/nowhere", "/nowhere/own"), std::nullopt);
}

TEST(UsableCpus, AreNoMoreThanThoseOfTheAffinityMask) {
  EXPECT_GE(usable_cpus(), 1);
  EXPECT_LE(usable_cpus(), std::ssize(available_cpus()));
}

}  // namespace
}  // namespace ablate

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "runner/core/files.h"
#include "runner/core/process.h"
#include "tests/support/source_tree.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

namespace fs = std::filesystem;

CapturedRun run_script(const fs::path& script, std::vector<std::string> arguments) {
  ProcessOptions options;
  options.arguments = {"bash", script.string()};
  options.arguments.insert(options.arguments.end(), arguments.begin(), arguments.end());
  return run_and_capture(options, {}, 60);
}

/// A tree of one kernel with the scripts, and a program that stands for a test program.
class GpuEvidence : public ::testing::Test {
 protected:
  GpuEvidence() {
    for (const char* folder : {"scripts", "methods/kernels", "docs/results", "packed"})
      fs::create_directories(folder_ / folder);
    fs::copy_file(test::source_root() / "scripts/gpu-tests", folder_ / "scripts/gpu-tests");
    write_file_atomic(folder_ / "methods/kernels/gelu.cu", "__global__ void gelu_kernel();\n");
    program("ablate-train", "echo 'cuda:0  NVIDIA H200'; echo 'driver 580.1'");
  }

  void program(const std::string& name, const std::string& body) {
    write_file_atomic(folder_ / "packed" / name, "#!/bin/sh\n" + body + "\n");
    fs::permissions(folder_ / "packed" / name, fs::perms::owner_all);
  }
  /// A test program with one suite of two tests; `failure` is put inside the second.
  void test_program(const std::string& failure) {
    program("test_kernels",
            "case $* in *--gtest_list_tests*) printf 'GeluGpu.\\n  A\\n  B\\n'; exit;; esac\n"
            "for a; do case $a in --gtest_output=xml:*) out=${a#*xml:};; esac; done\n"
            "cat >$out <<'X'\n"
            "<testsuite name=\"GeluGpu\" tests=\"2\" failures=\"" +
                std::string(failure.empty() ? "0" : "1") +
                "\" disabled=\"0\" skipped=\"0\" errors=\"0\">\n"
                "<testcase name=\"A\" result=\"completed\" classname=\"GeluGpu\" />\n"
                "<testcase name=\"B\" result=\"completed\" classname=\"GeluGpu\">\n" +
                failure + "</testcase></testsuite>\nX\nexit " + (failure.empty() ? "0" : "1"));
  }
  CapturedRun script(std::vector<std::string> arguments) {
    return run_script(folder_ / "scripts/gpu-tests", std::move(arguments));
  }
  CapturedRun test_and_record() {
    const CapturedRun digests = script({"digests"});
    write_file_atomic(folder_ / "packed/sources.txt", "revision 0123\n" + digests.output);
    script({"run", (folder_ / "packed").string(), result()});
    return script({"record", result()});
  }
  std::string result() { return (folder_ / "result.txt").string(); }
  std::string record() { return read_file(folder_ / "docs/results/gpu_tests.md"); }

  test::TempFolder folder_;
};

TEST_F(GpuEvidence, IsWrittenFromWhatTheProgramsSay) {
  test_program("");
  const CapturedRun recorded = test_and_record();
  ASSERT_TRUE(recorded.status.success()) << recorded.errors;
  EXPECT_NE(record().find("Result: 2 passed, 0 failed, 0 skipped, compute-sanitizer not run"),
            std::string::npos)
      << record();
  EXPECT_NE(record().find("| test_kernels | GeluGpu | 2 | 0 | 0 |"), std::string::npos) << record();
  EXPECT_NE(record().find("NVIDIA H200"), std::string::npos) << record();
  EXPECT_TRUE(script({"check"}).status.success());
}

TEST_F(GpuEvidence, SpeaksOfTheContentsOfTheSources) {
  test_program("");
  test_and_record();
  const fs::path kernel = folder_ / "methods/kernels/gelu.cu";
  fs::last_write_time(kernel, fs::file_time_type::clock::now() + std::chrono::hours(1));
  EXPECT_TRUE(script({"check"}).status.success()) << "dates do not matter";
  write_file_atomic(kernel, "__global__ void gelu_kernel(int);\n");
  const CapturedRun changed = script({"check"});
  EXPECT_FALSE(changed.status.success());
  EXPECT_NE(changed.errors.find("methods/kernels* has changed"), std::string::npos)
      << changed.errors;
  EXPECT_NE(changed.errors.find("run scripts/gpu-tests"), std::string::npos) << changed.errors;
  write_file_atomic(kernel, "__global__ void gelu_kernel();\n");
  EXPECT_TRUE(script({"check"}).status.success());
  write_file_atomic(folder_ / "methods/kernels/tanh.cu", "// new\n");
  EXPECT_FALSE(script({"check"}).status.success()) << "a new file is a change";
}

TEST_F(GpuEvidence, OfFailedTestsIsNone) {
  test_program("<failure message=\"wrong\"/>\n");
  test_and_record();
  EXPECT_NE(record().find("* failed: test_kernels GeluGpu.B"), std::string::npos) << record();
  EXPECT_FALSE(script({"check"}).status.success());
}

TEST_F(GpuEvidence, OfAKnownFailureSaysWhyItFails) {
  test_program("<failure message=\"wrong\"/>\n");
  const fs::path known = folder_ / "tests/gpu_known_failures.txt";
  fs::create_directories(known.parent_path());
  write_file_atomic(known, "# PROGRAM SUITE.TEST reason\ntest_kernels GeluGpu.A no card here\n");
  test_and_record();
  EXPECT_FALSE(script({"check"}).status.success()) << "another test is known to fail";
  write_file_atomic(known, "test_kernels GeluGpu.B rounds up, not down\n");
  test_and_record();
  EXPECT_NE(record().find("1 passed, 0 failed, 1 known to fail, 0 skipped"), std::string::npos)
      << record();
  EXPECT_NE(record().find("* failed, as known: test_kernels GeluGpu.B: rounds up, not down"),
            std::string::npos)
      << record();
  EXPECT_TRUE(script({"check"}).status.success());
}

TEST_F(GpuEvidence, OfACrashIsAFailure) {
  program(
      "test_kernels",
      "case $* in *--gtest_list_tests*) printf 'GeluGpu.\\n  A\\n'; exit;; esac\nkill -SEGV $$");
  test_and_record();
  EXPECT_NE(record().find("0 passed, 1 failed"), std::string::npos) << record();
  EXPECT_FALSE(script({"check"}).status.success());
}

TEST_F(GpuEvidence, IsMissedWhenThereIsNone) {
  const CapturedRun run = script({"check"});
  EXPECT_FALSE(run.status.success());
  EXPECT_NE(run.errors.find("run scripts/gpu-tests where a GPU is"), std::string::npos);
}

// What CI holds against a change of anything that only a GPU can test.
TEST(GpuTests, WereRunWithThePresentSources) {
  const CapturedRun run = run_script(test::source_root() / "scripts/gpu-tests", {"check"});
  EXPECT_TRUE(run.status.success()) << run.errors;
}

}  // namespace
}  // namespace ablate

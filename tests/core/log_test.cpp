#include "runner/core/log.h"

#include <thread>

#include <gtest/gtest.h>

#include "runner/core/build_info.h"

namespace ablate {
namespace {

TEST(Log, LinesGoToStandardErrorWithPrefixAndWithoutColour) {
  configure_log(LogLevel::Info, "100% rank 1");
  testing::internal::CaptureStderr();
  log_debug("dropped");
  log_info("a {} b");
  log_error("c");
  const std::string lines = testing::internal::GetCapturedStderr();
  configure_log(LogLevel::Info, "");
  EXPECT_EQ(lines.find("dropped"), std::string::npos) << lines;
  EXPECT_NE(lines.find("100% rank 1 info: a {} b\n"), std::string::npos) << lines;
  EXPECT_NE(lines.find("100% rank 1 error: c\n"), std::string::npos) << lines;
  EXPECT_EQ(lines.find('\033'), std::string::npos) << lines;
}

TEST(Log, LinesOfAThreadNameTheirPart) {
  testing::internal::CaptureStderr();
  {
    const LogName outer("run a");
    log_info("one");
    {
      const LogName inner("run {b}");
      log_info("two");
    }
    std::thread([] { log_info("three"); }).join();
    log_info("four");
  }
  log_info("five");
  const std::string lines = testing::internal::GetCapturedStderr();
  for (const char* line : {"info: run a: one\n", "info: run {b}: two\n", "info: three\n",
                           "info: run a: four\n", "info: five\n"}) {
    EXPECT_NE(lines.find(line), std::string::npos) << line << lines;
  }
}

TEST(BuildInfo, NamesVersionAndCompiler) {
  const BuildInfo& info = build_info();
  EXPECT_EQ(info.version.find_first_not_of("0123456789."), std::string::npos) << info.version;
  EXPECT_FALSE(info.compiler.empty());
  EXPECT_FALSE(info.build_type.empty());
  // Tests get the default: the generated revision would relink them at every commit.
  EXPECT_EQ(info.version_line(), info.version + " (unknown)");
}

}  // namespace
}  // namespace ablate

#include "runner/core/log.h"

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

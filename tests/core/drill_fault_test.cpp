#include "runner/core/drill_fault.h"

#include <fstream>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

TEST(DrillFault, IsReadAsItWasWritten) {
  const test::TempFolder folder;
  for (int kind = 0; kind <= static_cast<int>(DrillKind::Slow); ++kind) {
    const DrillFault fault{.kind = static_cast<DrillKind>(kind),
                           .run = "0a1b",
                           .attempt = 2,
                           .rank = 3,
                           .step = 1'000'000'000'000};
    write_drill_fault(drill_file(folder.path()), fault);
    EXPECT_EQ(read_drill_fault(drill_file(folder.path())), fault) << drill_kind_name(fault.kind);
  }
}

TEST(DrillFault, WhatIsNoFaultIsRefusedWithItsFile) {
  const test::TempFolder folder;
  const auto file = drill_file(folder.path());
  EXPECT_THROW(read_drill_fault(file), SpecError) << "missing";
  for (const char* text : {"", "[]", R"({"fault": "flood"})", R"({"fault": "kill", "run": 3})"}) {
    std::ofstream(file) << text;
    try {
      read_drill_fault(file);
      ADD_FAILURE() << text;
    } catch (const SpecError& error) {
      EXPECT_NE(std::string(error.what()).find(file.string()), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace ablate

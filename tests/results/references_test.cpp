#include "results/references.h"

#include <fstream>

#include <gtest/gtest.h>

#include "runner/core/error.h"
#include "tests/results/store_fixture.h"
#include "tests/support/source_tree.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

using test::rows_of;
using test::TempFolder;

TEST(References, ReadingAgainReplacesTheRowsOfASource) {
  const TempFolder folder;
  ResultStore store(folder / "results.db");
  const auto write = [&](const std::string& rows) {
    std::ofstream(folder / "a.toml") << "source = \"Doe 2024\"\n" << rows;
  };
  write(
      "[[row]]\nmodel = \"M\"\nmethod = \"none\"\ndataset = \"d\"\nvalues = {top1 = 70, x = 1}\n"
      "[[row]]\nmodel = \"M\"\nmethod = \"cut\"\nsetting = \"r = 2\"\ndataset = \"d\"\n"
      "note = \"n\"\nvalues = {top1 = 69.5}\n");
  EXPECT_EQ(load_references(store, folder.path()), 3);
  EXPECT_EQ(load_references(store, folder / "a.toml"), 3);
  EXPECT_EQ(rows_of(store, "SELECT method, setting, metric, value, note FROM reference"),
            "cut|r = 2|top1|69.5|n|\nnone||top1|70.0||\nnone||x|1.0||\n");
  write("");
  EXPECT_EQ(load_references(store, folder.path()), 0);
  EXPECT_EQ(rows_of(store, "SELECT * FROM reference"), "");
}

TEST(References, MistakesNameTheLineAndChangeNothing) {
  const TempFolder folder;
  ResultStore store(folder / "results.db");
  for (const char* row :
       {"model = \"M\"", "model = \"M\"\nmethod = \"m\"\ndataset = \"d\"",
        "model = \"M\"\nmethod = \"m\"\ndataset = \"d\"\nvalues = {a = \"x\"}",
        "model = 1\nmethod = \"m\"\ndataset = \"d\"\nvalues = {a = 1}",
        "model = \"M\"\nmethod = \"m\"\ndataset = \"d\"\nvalues = {a = 1}\nodd = 1"}) {
    std::ofstream(folder / "bad.toml") << "source = \"s\"\n[[row]]\n" << row << "\n";
    try {
      load_references(store, folder / "bad.toml");
      ADD_FAILURE() << row;
    } catch (const SpecError& error) {
      EXPECT_NE(std::string(error.what()).find("bad.toml:"), std::string::npos) << error.what();
    }
    EXPECT_EQ(rows_of(store, "SELECT count(*) FROM reference"), "0|\n");
  }
}

TEST(References, TheShippedFilesAreWellFormed) {
  const TempFolder folder;
  ResultStore store(folder / "results.db");
  EXPECT_GT(load_references(store, test::source_root() / "results/references"), 0);
}

}  // namespace
}  // namespace ablate

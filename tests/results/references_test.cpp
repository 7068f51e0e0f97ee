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
using Choices = std::vector<ReferenceChoice>;

const std::string kDoe =
    "source = \"Doe 2024\"\nnote = \"table 3\"\n"
    "[[row]]\nmodel = \"M\"\nmethod = \"none\"\ndataset = \"d\"\nvalues = {top1 = 70, x = 1}\n"
    "[[row]]\nmodel = \"M\"\nmethod = \"cut\"\nsetting = \"r = 2\"\ndataset = \"d\"\n"
    "note = \"one GPU\"\nvalues = {top1 = 69.5}\n";

class References : public testing::Test {
 protected:
  std::filesystem::path write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << text;
    return folder_ / name;
  }
  std::string error_of(const Choices& choices, const std::vector<Publication>& known,
                       ResultStore* store = nullptr) {
    try {
      find_publications(choices, known, store);
    } catch (const SpecError& error) {
      return error.what();
    }
    return "no error";
  }
  TempFolder folder_;
};

TEST_F(References, AFileIsRead) {
  const Publication doe = read_publication(write("doe.toml", kDoe));
  EXPECT_EQ(doe.source, "Doe 2024");
  ASSERT_EQ(doe.rows.size(), 2U);
  EXPECT_EQ(doe.rows[0].method, "none");
  EXPECT_EQ(doe.rows[0].note, "table 3");
  EXPECT_EQ(doe.rows[0].values, (std::map<std::string, double>{{"top1", 70}, {"x", 1}}));
  EXPECT_EQ(doe.rows[1].setting, "r = 2");
  EXPECT_EQ(doe.rows[1].note, "one GPU");
}

TEST_F(References, MistakesNameTheLine) {
  const std::string row = "model = \"M\"\nmethod = \"m\"\ndataset = \"d\"\n";
  const std::vector<std::string> mistakes = {
      "[[row]]\nmodel = \"M\"\n",
      "[[row]]\nmodel = 1\nmethod = \"m\"\ndataset = \"d\"\nvalues = {a = 1}\n",
      "[[row]]\n" + row,
      "[[row]]\n" + row + "values = {}\n",
      "[[row]]\n" + row + "values = {a = \"x\"}\n",
      "[[row]]\n" + row + "values = {a = 1}\nodd = 1\n",
      "[[row]]\n" + row + "values = {a = 1}\n[[row]]\n" + row + "values = {b = 1}\n"};
  for (const std::string& rows : mistakes) {
    try {
      read_publication(write("bad.toml", "source = \"s\"\n" + rows));
      ADD_FAILURE() << rows;
    } catch (const SpecError& error) {
      EXPECT_NE(std::string(error.what()).find("bad.toml:"), std::string::npos) << error.what();
    }
  }
}

TEST_F(References, TheFirstFolderCounts) {
  write("own/x.toml", "source = \"Doe 2024\"\n");
  write("shipped/doe.toml", kDoe);
  write("shipped/roe.toml", "source = \"Roe 2023\"\n");
  const auto found = read_publications({folder_ / "missing", folder_ / "own", folder_ / "shipped"});
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].source, "Doe 2024");
  EXPECT_TRUE(found[0].rows.empty()) << "that of the first folder";
  EXPECT_EQ(found[1].source, "Roe 2023");
}

TEST_F(References, WhatIsUnknownOrFitsNothingIsAnError) {
  const std::vector<Publication> known = {read_publication(write("doe.toml", kDoe))};
  const Origin origin{"s.toml", 7, 3};
  const std::string unknown = error_of({{"Do 2024", "", "", "", origin}}, known);
  EXPECT_TRUE(unknown.starts_with("s.toml:7:3: ")) << unknown;
  EXPECT_NE(unknown.find("did you mean \"Doe 2024\""), std::string::npos) << unknown;
  const std::string unfit = error_of({{"Doe 2024", "N", "", "", origin}}, known);
  EXPECT_NE(unfit.find("M / none / d; M / cut / d"), std::string::npos) << unfit;
  EXPECT_EQ(error_of({{"Doe 2024", "M", "cut", "d", origin}}, known), "no error");
}

TEST_F(References, RowsAreChosenAndKeepToTheirColumns) {
  const std::vector<Publication> known = {read_publication(write("doe.toml", kDoe))};
  const auto all = paper_rows({{"Doe 2024", "", "", "", {}}}, known, {"x@p", "top1", "gmacs"});
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].label, "M (Doe 2024, d)");
  EXPECT_EQ(all[1].label, "M cut, r = 2 (Doe 2024, d)");
  EXPECT_EQ(all[0].values[0], 1.0);
  EXPECT_EQ(all[0].values[1], 70.0);
  EXPECT_FALSE(all[1].values[0].has_value());
  EXPECT_FALSE(all[0].values[2].has_value());
  EXPECT_EQ(paper_rows({{"Doe 2024", "", "cut", "", {}}}, known, {"top1"}).size(), 1U);
  EXPECT_EQ(paper_rows({{"Doe 2024", "", "", "", {}}}, known, {"x"}).size(), 1U)
      << "a row without a number in any column says nothing";
}

TEST_F(References, TheDatabaseKeepsThemForWhereTheFilesAreNot) {
  const Publication doe = read_publication(write("doe.toml", kDoe));
  ResultStore store(folder_ / "results.db");
  store_publications(store, {doe});
  store_publications(store, {doe});
  EXPECT_EQ(rows_of(store, "SELECT method, setting, metric, value, note FROM reference"),
            "cut|r = 2|top1|69.5|one GPU|\nnone||top1|70.0|table 3|\nnone||x|1.0|table 3|\n");
  const Choices choices = {{"Doe 2024", "", "", "", {}}};
  const auto stored = find_publications(choices, {}, &store);
  const auto columns = std::vector<std::string>{"top1", "x"};
  for (const PaperRow& row : paper_rows(choices, {doe}, columns)) {
    bool same = false;
    for (const PaperRow& other : paper_rows(choices, stored, columns)) {
      same = same || (row.label == other.label && row.values == other.values &&
                      row.note == other.note && row.source == other.source);
    }
    EXPECT_TRUE(same) << row.label;
  }
  store_publications(store, {{"Doe 2024", {doe.rows[1]}}});
  EXPECT_EQ(rows_of(store, "SELECT count(*) FROM reference"), "1|\n") << "earlier rows go";
  const std::string unknown = error_of({{"Doe 2023", "", "", "", {}}}, {}, &store);
  EXPECT_NE(unknown.find("did you mean \"Doe 2024\""), std::string::npos) << unknown;
}

TEST_F(References, TheShippedNumbersAreThoseOfTheReadmes) {
  const auto shipped = read_publications({test::source_root() / "results/references"});
  const auto value = [&](const std::string& source, const std::string& model,
                         const std::string& setting, const std::string& column) {
    for (const Publication& publication : shipped) {
      if (publication.source != source) continue;
      for (const PublishedRow& row : publication.rows) {
        if (row.model == model && row.setting == setting) return row.values.at(column);
      }
    }
    return 0.0;
  };
  // From the authors' READMEs: one of each kind.
  EXPECT_EQ(value("Lin 2024", "DeiT-B", "", "top1"), 81.8);
  EXPECT_EQ(value("Lin 2024", "DeiT-S", "3/12, PyTorch 1.12.1", "top1"), 80.33);
  EXPECT_EQ(value("Bolya 2023", "DeiT-S", "r = 13, trained", "top1"), 79.36);
  EXPECT_EQ(value("Bolya 2023", "DeiT-S", "r = 13, trained", "images_per_s"), 1550);
  for (const Publication& publication : shipped) {
    for (const PublishedRow& row : publication.rows) {
      EXPECT_FALSE(row.note.empty()) << publication.source << " " << row.model;
    }
  }
}

}  // namespace
}  // namespace ablate

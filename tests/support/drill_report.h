#pragma once

#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace ablate::test {

/// What the report of `ablate drill --json` says about a case.
inline nlohmann::json drill_case(const nlohmann::json& report, const std::string& name) {
  for (const nlohmann::json& one : report.at("cases")) {
    if (one.at("name") == name) return one;
  }
  ADD_FAILURE() << name << " is not in " << report;
  return nlohmann::json::object();
}

/// A text of a case; "" where there is none.
inline std::string drill_text(const nlohmann::json& one, const char* key) {
  return one.value(key, std::string());
}

}  // namespace ablate::test

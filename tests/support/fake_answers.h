#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace ablate::test {

// What the stand-in for ablate-train says when it is asked, not run.

/// `describe`.
inline nlohmann::json fake_description() {
  using nlohmann::json;
  return {{"methods",
           {{{"name", "nose"},
             {"summary", "removes attention"},
             {"paper", "p"},
             {"phase", "AttentionRemoval"},
             {"needs", json::array()},
             {"conflicts", json::array()},
             {"params", json::array()}}}},
          {"pairs",
           {{"nose", {{"prune", ""}, {"tome", "dislike it"}}},
            {"prune", {{"tome", "dislike it"}}},
            {"tome", json::object()}}},
          {"models", {{{"name", "fake"}, {"summary", "no model"}}}},
          {"datasets", json::array()},
          {"build", {{"version", "0"}, {"torch", ""}}}};
}

/// `analyse`.
inline nlohmann::json fake_analysis(const std::vector<std::string>& arguments) {
  using nlohmann::json;
  json report = json::parse(R"({"n": 12, "entropy": [{"attn": -1.5, "mlp": 2, "mixed": 0, "out": 1},
    {"attn": null, "mlp": 3, "mixed": 0, "out": 1}], "spectrum":
    [{"radius": 0, "log_amplitude": 4}, {"radius": 1, "log_amplitude": 2.5}]})");
  if (std::ranges::find(arguments, "--transplant-from") != arguments.end()) {
    report["transplant"] =
        json::parse(R"({"metric": "top1", "unit": "%", "own": 70, "blocks": [60, 65.5]})");
  }
  return report;
}

}  // namespace ablate::test

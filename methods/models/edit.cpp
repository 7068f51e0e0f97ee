#include "methods/models/edit.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "runner/core/error.h"
#include "runner/core/hash.h"

namespace ablate {

namespace {

template <typename... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};

int block_of(const Edit& edit) {
  return std::visit([](const auto& e) { return e.block; }, edit);
}

}  // namespace

nlohmann::json to_json(const Edit& edit) {
  return std::visit(
      Overloaded{
          [](const MarkRetiring& e) {
            return nlohmann::json{{"edit", "mark_retiring"}, {"block", e.block}};
          },
          [](const RemoveMixer& e) {
            return nlohmann::json{{"edit", "remove_mixer"}, {"block", e.block}};
          },
          [](const SetGains& e) {
            return nlohmann::json{
                {"edit", "set_gains"}, {"block", e.block}, {"skip", e.skip}, {"branch", e.branch}};
          },
          [](const InsertReducer& e) {
            return nlohmann::json{{"edit", "insert_reducer"},
                                  {"block", e.block},
                                  {"reducer", e.reducer},
                                  {"params", e.params.to_json()}};
          },
      },
      edit);
}

Edit edit_from_json(const nlohmann::json& json) {
  try {
    const auto kind = json.at("edit").get<std::string>();
    const int block = json.at("block").get<int>();
    if (kind == "mark_retiring") return MarkRetiring{block};
    if (kind == "remove_mixer") return RemoveMixer{block};
    if (kind == "set_gains") {
      return SetGains{block, json.at("skip").get<double>(), json.at("branch").get<double>()};
    }
    if (kind == "insert_reducer") {
      return InsertReducer{block, json.at("reducer").get<std::string>(),
                           Value::from_json(json.at("params"))};
    }
    throw Error(cat("unknown edit \"", kind, "\" in ", json.dump(),
                    "; known: mark_retiring, remove_mixer, set_gains, insert_reducer"));
  } catch (const nlohmann::json::exception& error) {
    throw Error(cat("malformed edit ", json.dump(), ": ", error.what()));
  }
}

std::string describe(const Edit& edit) {
  return std::visit(
      Overloaded{
          [](const MarkRetiring& e) {
            return cat("mark attention of block ", e.block, " retiring");
          },
          [](const RemoveMixer& e) { return cat("remove attention of block ", e.block); },
          [](const SetGains& e) {
            return cat("set gains of block ", e.block, " to skip ", e.skip, ", branch ", e.branch);
          },
          [](const InsertReducer& e) { return cat("insert ", e.reducer, " into block ", e.block); },
      },
      edit);
}

std::string structure_hash(std::string_view model_name, const Value& model_params,
                           const std::vector<Edit>& edits) {
  // Edits of different blocks commute, and so do different kinds on one block: their order is
  // history, not structure.
  std::vector<Edit> ordered = edits;
  std::stable_sort(ordered.begin(), ordered.end(), [](const Edit& a, const Edit& b) {
    return std::pair(block_of(a), a.index()) < std::pair(block_of(b), b.index());
  });
  nlohmann::json structure{{"model", model_name}, {"params", model_params.to_json()}};
  structure["edits"] = nlohmann::json::array();
  for (const Edit& edit : ordered) structure["edits"].push_back(to_json(edit));
  return hash128_hex(structure.dump());
}

}  // namespace ablate

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
          [](const AttachLayerAttention& e) {
            return nlohmann::json{{"edit", "attach_layer_attention"},
                                  {"block", e.block},
                                  {"count", e.count},
                                  {"module", e.module},
                                  {"params", e.params.to_json()}};
          },
          [](const SkipRetrieval& e) {
            return nlohmann::json{
                {"edit", "skip_retrieval"}, {"block", e.block}, {"mode", skip_mode_name(e.mode)}};
          },
          [](const DeleteSkipped& e) {
            return nlohmann::json{{"edit", "delete_skipped"}, {"block", e.block}};
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
    if (kind == "attach_layer_attention") {
      return AttachLayerAttention{block, json.at("count").get<int>(),
                                  json.at("module").get<std::string>(),
                                  Value::from_json(json.at("params"))};
    }
    if (kind == "skip_retrieval") {
      return SkipRetrieval{block, skip_mode_named(json.at("mode").get<std::string>())};
    }
    if (kind == "delete_skipped") return DeleteSkipped{block};
    throw Error(cat("unknown edit \"", kind, "\" in ", json.dump(),
                    "; known: mark_retiring, remove_mixer, set_gains, insert_reducer, "
                    "attach_layer_attention, skip_retrieval, delete_skipped"));
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
          [](const AttachLayerAttention& e) {
            return cat("attach ", e.module, " to blocks ", e.block, " to ", e.block + e.count - 1);
          },
          [](const SkipRetrieval& e) {
            return cat("skip the retrieval of block ", e.block, ": ", skip_mode_name(e.mode));
          },
          [](const DeleteSkipped& e) {
            return cat("delete what block ", e.block, " skips of layer attention");
          },
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

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

/// -1 for edits of the model as a whole.
int block_of(const Edit& edit) {
  return std::visit(
      [](const auto& e) {
        if constexpr (requires { e.block; }) return e.block;
        return -1;
      },
      edit);
}

nlohmann::json json_of(const AttachGates& edit) {
  nlohmann::json seats = nlohmann::json::array();
  for (const ChannelSeat& seat : edit.seats) {
    nlohmann::json places = nlohmann::json::array();
    for (const ChannelPlace& place : seat.places) places.push_back({place.block, place.group});
    seats.push_back({{"places", places}, {"shared", seat.shared}});
  }
  return {{"edit", "attach_gates"}, {"seats", seats}, {"params", edit.params.to_json()}};
}

AttachGates gates_from_json(const nlohmann::json& json) {
  AttachGates edit{{}, Value::from_json(json.at("params"))};
  for (const nlohmann::json& seat : json.at("seats")) {
    ChannelSeat& made = edit.seats.emplace_back();
    made.shared = seat.at("shared").get<bool>();
    for (const nlohmann::json& place : seat.at("places")) {
      made.places.push_back({place.at(0).get<int>(), place.at(1).get<std::string>()});
    }
  }
  return edit;
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
            nlohmann::json json{
                {"edit", "set_gains"}, {"block", e.block}, {"skip", e.skip}, {"branch", e.branch}};
            if (e.mask != GainMask::None) json["mask"] = mask_name(e.mask);
            return json;
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
          [](const AttachGates& e) { return json_of(e); },
          [](const DetachGates&) {
            return nlohmann::json{{"edit", "detach_gates"}};
          },
          [](const AttachReweight& e) {
            return nlohmann::json{{"edit", "attach_reweight"},
                                  {"block", e.block},
                                  {"group", e.group},
                                  {"kind", e.kind},
                                  {"hidden", e.hidden}};
          },
          [](const FoldReweight& e) {
            return nlohmann::json{
                {"edit", "fold_reweight"}, {"block", e.block}, {"group", e.group}};
          },
          [](const KeepChannels& e) {
            return nlohmann::json{{"edit", "keep_channels"},
                                  {"block", e.block},
                                  {"group", e.group},
                                  {"channels", e.channels}};
          },
      },
      edit);
}

Edit edit_from_json(const nlohmann::json& json) {
  try {
    const auto kind = json.at("edit").get<std::string>();
    if (kind == "attach_gates") return gates_from_json(json);
    if (kind == "detach_gates") return DetachGates{};
    const int block = json.at("block").get<int>();
    if (kind == "mark_retiring") return MarkRetiring{block};
    if (kind == "remove_mixer") return RemoveMixer{block};
    if (kind == "set_gains") {
      return SetGains{block, json.at("skip").get<double>(), json.at("branch").get<double>(),
                      mask_named(json.value("mask", "none"))};
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
    if (kind == "attach_reweight") {
      return AttachReweight{block, json.at("group").get<std::string>(),
                            json.at("kind").get<std::string>(),
                            json.at("hidden").get<std::int64_t>()};
    }
    if (kind == "fold_reweight") return FoldReweight{block, json.at("group").get<std::string>()};
    if (kind == "keep_channels") {
      return KeepChannels{block, json.at("group").get<std::string>(),
                          json.at("channels").get<std::vector<std::int64_t>>()};
    }
    throw Error(
        cat("unknown edit \"", kind, "\" in ", json.dump(),
            "; known: mark_retiring, remove_mixer, set_gains, insert_reducer, "
            "attach_layer_attention, skip_retrieval, delete_skipped, attach_gates, detach_gates, "
            "attach_reweight, fold_reweight, keep_channels"));
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
            const std::string mask =
                e.mask == GainMask::None ? "" : cat(" in the mean, drawn by ", mask_name(e.mask));
            return cat("set gains of block ", e.block, " to skip ", e.skip, ", branch ", e.branch,
                       mask);
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
          [](const AttachGates& e) {
            return cat("attach gates to channels, ", e.seats.size(), " seats");
          },
          [](const DetachGates&) { return std::string("detach the gates of channels"); },
          [](const AttachReweight& e) {
            return cat("reweight \"", e.group, "\" of block ", e.block, ", ", e.kind);
          },
          [](const FoldReweight& e) {
            return cat("fold the reweighting of \"", e.group, "\" of block ", e.block);
          },
          [](const KeepChannels& e) {
            return cat("keep ", e.channels.size(), " channels of \"", e.group, "\" in block ",
                       e.block);
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

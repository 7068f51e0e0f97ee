#include "sweeps/gpus.h"

#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>

#include "runner/core/error.h"

namespace ablate {
namespace {

using nlohmann::json;

constexpr double kAnswerSeconds = 120;  // a first start on a cold machine loads gigabytes

/// Saves the question where no driver is loaded.
bool may_have_gpus() {
  const auto exists = [](const char* file) { return std::filesystem::exists(file); };
  return exists("/dev/nvidiactl") || exists("/dev/dxg");
}

json ask(const Workspace& workspace) {
  ProcessOptions options;
  options.arguments = {workspace.require_train_program().string(), "devices", "--json",
                       "--no-free"};
  options.die_with_parent = true;
  const CapturedRun answer = run_and_capture(options, {}, kAnswerSeconds);
  json devices = json::parse(answer.output, nullptr, /*allow_exceptions=*/false);
  if (answer.timed_out || !answer.status.success() || !devices.is_object()) {
    throw Error(cat(options.arguments[0], " devices: ",
                    answer.timed_out ? "no answer" : answer.status.str(), "\n", answer.errors));
  }
  return devices;
}

}  // namespace

GpuList list_gpus(const Workspace& workspace) {
  const json answer = ask(workspace);
  GpuList list{.gpus = {}, .why_none = answer.value("why_none", "")};
  for (const json& found : answer.at("devices")) {
    list.gpus.push_back({found.at("uuid").get<std::string>(),
                         found.at("total_bytes").get<std::uint64_t>(),
                         found.value("name", "CUDA device")});
  }
  return list;
}

std::vector<Gpu> find_gpus(const std::string& device, const Workspace& workspace) {
  if (device == "cpu" || (device == "auto" && !may_have_gpus())) return {};
  GpuList list = list_gpus(workspace);
  if (list.gpus.empty() && device == "cuda") {
    throw SpecError(cat("launch.device = \"cuda\", but ablate-train finds no CUDA device: ",
                        list.why_none, "; accepted here: \"auto\", \"cpu\""));
  }
  return std::move(list.gpus);
}

std::vector<Place> gpu_places(const std::vector<Gpu>& gpus, int ranks) {
  const auto group = static_cast<std::size_t>(ranks);
  std::vector<Place> places;
  for (std::size_t first = 0; first + group <= gpus.size(); first += group) {
    std::vector<std::string> names;
    Place place{.gpu_bytes = gpus[first].bytes};
    for (std::size_t i = first; i < first + group; ++i) {
      names.push_back(gpus[i].uuid);
      place.gpu_bytes = std::min(place.gpu_bytes, gpus[i].bytes);
    }
    place.gpus = join(names, ",");
    places.push_back(std::move(place));
  }
  return places;
}

}  // namespace ablate

#include "runner/worker/bench_evidence.h"

#include <iostream>
#include <string_view>

#include <nlohmann/json.hpp>

#include "runner/core/error.h"
#include "runner/measure/cuda_devices.h"
#include "runner/measure/device_peak.h"
#include "runner/measure/memory.h"
#include "runner/train/outcome.h"
#include "runner/train/step_profile.h"
#include "runner/worker/bench_device.h"
#include "runner/worker/bench_subject.h"

namespace ablate {
namespace {

using nlohmann::json;

constexpr std::int64_t kProfiled = 5;

#if ABLATE_HAS_CUDA

/// Kernels' own buffers report a full device in CUDA's words.
bool is_out_of_memory(const std::exception& error) {
  return outcome_of(error).cause == "oom" ||
         std::string_view(error.what()).find("out of memory") != std::string_view::npos;
}

/// Peak bytes of a trial; nothing when the device cannot hold it.
std::optional<std::int64_t> try_batch(const Structure& structure, const Protocol& protocol) {
  reset_device_peak();
  const std::int64_t held = device_held_bytes();
  std::optional<std::int64_t> peak;
  try {
    DeviceBenchSubject subject(structure, protocol);
    subject.repeat(1);
    peak = device_peak_bytes();
  } catch (const std::exception& error) {
    if (!is_out_of_memory(error)) throw;
  }
  reset_device_peak();
  if (device_held_bytes() > held) {
    throw Error(cat("a trial of ", protocol.batch, " images kept ", device_held_bytes() - held,
                    " bytes of the device: later trials would mean nothing"));
  }
  return peak;
}

#endif

}  // namespace

void add_utilisation(json& row, const Protocol& protocol) {
  if (protocol.device == "cpu") return;
  const auto utilisation = model_flops_utilisation(
      row.at("macs").get<double>(), protocol.kind, row.at("images_per_s").get<double>(),
      find_cuda_device(protocol.device).name, protocol.dtype);
  if (utilisation) row["mfu"] = *utilisation;
}

void add_largest_batch([[maybe_unused]] json& row, const Structure& structure,
                       const Protocol& protocol) {
#if ABLATE_HAS_CUDA
  constexpr std::int64_t kLimit = 65'536;
  std::int64_t peak = 0;
  const FittingBatch found = find_fitting_batch(
      [&](std::int64_t batch) {
        Protocol trial = protocol;
        trial.batch = batch;
        const auto bytes = try_batch(structure, trial);
        std::cerr << "batch " << batch << (bytes ? " fits\n" : " is too large\n");
        if (bytes) peak = *bytes;
        return bytes.has_value();
      },
      std::min(protocol.batch, kLimit), kLimit);
  row["max_batch"] = found.fits;
  row["max_batch_peak_bytes"] = peak;
  if (found.too_large > 0) row["too_large_batch"] = found.too_large;
#else
  throw SpecError(cat("the largest batch of ", structure.model.name, " under ", protocol.name(),
                      ": this program was built without CUDA"));
#endif
}

json profile_structure(const Structure& structure, const Protocol& protocol,
                       const std::filesystem::path& file) {
  const auto record = [&](auto& subject, auto repeat) {
    repeat(subject);
    DeviceTrace trace;
    for (std::int64_t i = 0; i < kProfiled; ++i) repeat(subject);
    return DeviceBreakdown::of(trace.stop(file), kProfiled);
  };
  DeviceBreakdown breakdown;
  if (protocol.device == "cpu") {
    BenchSubject subject(structure, protocol);
    breakdown = record(subject, [](BenchSubject& s) { s.repeat(); });
  } else {
#if ABLATE_HAS_CUDA
    DeviceBenchSubject subject(structure, protocol);
    breakdown = record(subject, [](DeviceBenchSubject& s) { s.repeat(1); });
#endif
  }
  std::cerr << profile_text(breakdown, protocol.device != "cpu", kProfiled, file);
  json result = to_json(breakdown);
  result["trace"] = file.string();
  result["repetitions"] = kProfiled;
  return result;
}

}  // namespace ablate

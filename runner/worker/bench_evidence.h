#pragma once

#include <filesystem>

#include <nlohmann/json_fwd.hpp>

#include "runner/measure/protocol.h"
#include "runner/train/finals.h"

namespace ablate {

/// Adds "mfu" to a row of the bench table, from its images_per_s and macs; nothing where the peak
/// of the device is not known.
void add_utilisation(nlohmann::json& row, const Protocol& protocol);

/// Adds "max_batch", "max_batch_peak_bytes" and, when something larger failed, "too_large_batch":
/// the largest batch that the device's memory holds, found by trying from the protocol's own.
/// Throws Error when a trial does not give its memory back.
void add_largest_batch(nlohmann::json& row, const Structure& structure, const Protocol& protocol);

/// Records a few repetitions after warm-up: a Chrome trace in `file`; prints where the device's
/// time went and returns it ("ms" of a repetition by class of kernel, "busy_ms", "span_ms",
/// "kernels").
nlohmann::json profile_structure(const Structure& structure, const Protocol& protocol,
                                 const std::filesystem::path& file);

}  // namespace ablate

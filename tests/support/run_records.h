#pragma once

#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/small_run.h"

// Comparing what runs left behind, and reading single kinds of records.

namespace ablate::test {

/// Algorithms of matrix products are chosen by timing: runs in the folder `to` take those of
/// `from`.
inline void keep_gemm_choices(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (!std::filesystem::exists(from / "gemm")) return;
  std::filesystem::create_directories(to);
  std::filesystem::copy(from / "gemm", to / "gemm", std::filesystem::copy_options::recursive);
}

/// All tensors of a safetensors file by name.
inline std::map<std::string, at::Tensor> read_tensors(const std::filesystem::path& file) {
  std::map<std::string, at::Tensor> tensors;
  const SafetensorsFile opened(file);
  for (const std::string& name : opened.names()) tensors[name] = opened.tensor(name);
  return tensors;
}

/// ||a - b|| / ||a|| over all tensors but key biases: their true gradient is zero, so an optimizer
/// that divides by its magnitude moves them by rounding errors. Infinite where shapes differ.
inline double weight_distance(const std::map<std::string, at::Tensor>& a,
                              const std::map<std::string, at::Tensor>& b) {
  double difference = 0, norm = 0;
  EXPECT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) {
    if (!b.contains(name)) ADD_FAILURE() << name << " is on one side only";
    at::Tensor first = tensor.to(at::kDouble), second = b.at(name).to(at::kDouble);
    if (first.sizes() != second.sizes()) return std::numeric_limits<double>::infinity();
    if (name.ends_with("attn.qkv.bias")) {
      // Queries, keys, values; channels may have been cut.
      const std::string proj = name.substr(0, name.size() - 8) + "proj.weight";
      const std::int64_t values = a.at(proj).size(1), keys = (tensor.size(0) - values) / 2;
      const auto without_keys = [&](const at::Tensor& bias) {
        return at::cat({bias.narrow(0, 0, keys), bias.narrow(0, 2 * keys, values)});
      };
      first = without_keys(first);
      second = without_keys(second);
    }
    difference += (first - second).square().sum().item<double>();
    norm += first.square().sum().item<double>();
  }
  return std::sqrt(difference / norm);
}

inline void expect_same_tensors(const std::map<std::string, at::Tensor>& a,
                                const std::map<std::string, at::Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) {
    ASSERT_TRUE(b.contains(name)) << name;
    EXPECT_TRUE(at::equal(tensor, b.at(name))) << name;
  }
}

/// Every deterministic number, the structure and the weights of two runs, bit for bit.
inline void expect_same_bits(const RunRecord& a, const RunRecord& b) {
  EXPECT_EQ(a.structure, b.structure);
  EXPECT_EQ(a.series, b.series);
  EXPECT_EQ(a.finals, b.finals);
  expect_same_tensors(a.weights, b.weights);
}

/// The records of one kind in a spool, in order.
template <typename Wanted>
std::vector<Wanted> records_of(const std::filesystem::path& spool) {
  std::vector<Wanted> found;
  SpoolReader reader(spool);
  while (const auto frame = reader.next()) {
    if (const auto* record = std::get_if<Wanted>(&frame->record)) found.push_back(*record);
  }
  return found;
}

/// How one rank's attempt ended, by its spool.
inline Outcome spooled_outcome(const std::filesystem::path& spool) {
  const auto outcomes = records_of<Outcome>(spool);
  EXPECT_EQ(outcomes.size(), 1U) << spool;
  return outcomes.empty() ? Outcome{} : outcomes.front();
}

/// The bodies of the events of one kind, parsed.
inline std::vector<nlohmann::json> events_of(const std::filesystem::path& spool,
                                             const std::string& kind) {
  std::vector<nlohmann::json> bodies;
  for (const Event& event : records_of<Event>(spool)) {
    if (event.kind != kind) continue;
    bodies.push_back(nlohmann::json::parse(event.body));
    bodies.back()["at_step"] = event.step;
  }
  return bodies;
}

}  // namespace ablate::test

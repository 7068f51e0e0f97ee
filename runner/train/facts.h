#pragma once

#include <filesystem>
#include <string>

#include <nlohmann/json_fwd.hpp>

namespace ablate {

class Communicator;

/// Software of this process: revision, LibTorch, MPI, compiler; on a CUDA device ("cuda", "cuda:1")
/// driver, cuDNN and NCCL too. Keys are columns of `toolchain`.
nlohmann::json toolchain_facts(const std::string& device = "cpu");

/// Hardware of this rank and the file system that holds `out`. Keys are columns of `machine`.
nlohmann::json machine_facts(const std::filesystem::path& out, const std::string& device = "cpu");

}  // namespace ablate

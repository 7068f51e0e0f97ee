#pragma once

#include <filesystem>

#include <nlohmann/json_fwd.hpp>

namespace ablate {

class Communicator;

/// Software of this process: revision, LibTorch, MPI, compiler. Keys are columns of `toolchain`.
nlohmann::json toolchain_facts();

/// Hardware of this rank and the file system that holds `out`. Keys are columns of `machine`.
nlohmann::json machine_facts(const std::filesystem::path& out);

}  // namespace ablate

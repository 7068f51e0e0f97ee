#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace ablate {

/// A part of the verb `bench` with options of its own.
struct BenchPart {
  CLI::App* app;
  std::function<int()> run;
};

BenchPart add_bench_input(CLI::App& bench);
BenchPart add_bench_loader(CLI::App& bench);
BenchPart add_bench_comm(CLI::App& bench);

}  // namespace ablate

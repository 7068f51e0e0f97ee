#include <algorithm>
#include <cstring>
#include <limits>
#include <source_location>
#include <vector>

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include "methods/kernels/cuda_check.h"
#include "methods/kernels/gemm.h"
#include "runner/core/error.h"

namespace ablate::kernels {
namespace {

void check(cublasStatus_t status, std::string_view what,
           std::source_location where = std::source_location::current()) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(cat("cublasLt: ", what, ": ", cublasLtGetStatusString(status), " (",
                  where.file_name(), ":", where.line(), ")"));
}

/// The shortest of `rounds` counts, each of so many calls.
struct Trial {
  int rounds, repeats;
};
constexpr int kCandidates = 32;
constexpr std::size_t kFinalists = 4;
constexpr Trial kScreening{.rounds = 2, .repeats = 3};
constexpr Trial kFinal{.rounds = 5, .repeats = 8};

/// Device memory for the time of a choice.
class Scratch {
 public:
  explicit Scratch(std::size_t bytes) { check_cuda(cudaMalloc(&data_, bytes)); }
  ~Scratch() { cudaFree(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};

class Event {
 public:
  Event() { check_cuda(cudaEventCreate(&event_)); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace

struct Gemm::Library {
  explicit Library(std::size_t bytes) : workspace_bytes(bytes) {
    check_cuda(cudaMalloc(&workspace, bytes));
    check(cublasLtCreate(&handle), "create");
  }
  ~Library() {
    cublasLtDestroy(handle);
    cudaFree(workspace);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  std::size_t workspace_bytes;
  void* workspace = nullptr;
  cublasLtHandle_t handle = nullptr;
};

/// Row-major C = A B is column-major C^T = B^T A^T: the library's first operand is our B.
struct Gemm::Plan {
  Plan(const GemmShape& shape);
  ~Plan();
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  void set(cublasLtMatmulDescAttributes_t attribute, const void* value, std::size_t size) {
    check(cublasLtMatmulDescSetAttribute(operation, attribute, value, size), "attribute");
  }
  cublasStatus_t enqueue(const Library& library, const cublasLtMatmulAlgo_t& algorithm,
                         const bfloat16* a, const bfloat16* b, void* c, Stream stream) const;

  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t first = nullptr, second = nullptr, output = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
  bool accumulate;
};

Gemm::Plan::Plan(const GemmShape& shape) : accumulate(shape.accumulate) {
  check(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "descriptor");
  const cublasOperation_t op_first = shape.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t op_second = shape.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
  set(CUBLASLT_MATMUL_DESC_TRANSA, &op_first, sizeof op_first);
  set(CUBLASLT_MATMUL_DESC_TRANSB, &op_second, sizeof op_second);
  if (shape.bias) {
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
  }
  const auto layout = [](cublasLtMatrixLayout_t& made, cudaDataType_t type, std::int64_t rows,
                         std::int64_t columns) {
    check(cublasLtMatrixLayoutCreate(&made, type, static_cast<std::uint64_t>(rows),
                                     static_cast<std::uint64_t>(columns), rows),
          "layout");
  };
  layout(first, CUDA_R_16BF, shape.transpose_b ? shape.k : shape.n,
         shape.transpose_b ? shape.n : shape.k);
  layout(second, CUDA_R_16BF, shape.transpose_a ? shape.m : shape.k,
         shape.transpose_a ? shape.k : shape.m);
  layout(output, shape.float_output ? CUDA_R_32F : CUDA_R_16BF, shape.n, shape.m);
}

Gemm::Plan::~Plan() {
  cublasLtMatrixLayoutDestroy(output);
  cublasLtMatrixLayoutDestroy(second);
  cublasLtMatrixLayoutDestroy(first);
  cublasLtMatmulDescDestroy(operation);
}

cublasStatus_t Gemm::Plan::enqueue(const Library& library, const cublasLtMatmulAlgo_t& chosen,
                                   const bfloat16* a, const bfloat16* b, void* c,
                                   Stream stream) const {
  const float one = 1.0F;
  const float beta = accumulate ? 1.0F : 0.0F;
  return cublasLtMatmul(library.handle, operation, &one, b, first, a, second, &beta, c, output, c,
                        output, &chosen, library.workspace, library.workspace_bytes, stream);
}

Gemm::Gemm(std::size_t workspace_bytes) : library_(std::make_unique<Library>(workspace_bytes)) {}

Gemm::~Gemm() = default;

void Gemm::set_choices(GemmChoices choices) {
  choices_ = std::move(choices);
  plans_.clear();
}

std::string Gemm::platform(int device) {
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, device));
  return cat(properties.name, ", cublasLt ", cublasLtGetVersion());
}

namespace {

/// What the library offers for a product, its best guess first.
std::vector<cublasLtMatmulAlgo_t> candidates(cublasLtHandle_t handle, const GemmShape& shape,
                                             cublasLtMatmulDesc_t operation,
                                             cublasLtMatrixLayout_t first,
                                             cublasLtMatrixLayout_t second,
                                             cublasLtMatrixLayout_t output,
                                             std::size_t workspace_bytes) {
  cublasLtMatmulPreference_t preference = nullptr;
  check(cublasLtMatmulPreferenceCreate(&preference), "preference");
  check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &workspace_bytes, sizeof workspace_bytes),
        "preference");
  std::vector<cublasLtMatmulHeuristicResult_t> found(kCandidates);
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle, operation, first, second, output, output, preference,
                                     kCandidates, found.data(), &count);
  cublasLtMatmulPreferenceDestroy(preference);
  check(status, cat("no algorithm for ", shape.str()));
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  for (int i = 0; i < count; ++i) {
    if (found[i].state == CUBLAS_STATUS_SUCCESS) algorithms.push_back(found[i].algo);
  }
  if (algorithms.empty()) throw Error(cat("cublasLt: no algorithm for ", shape.str()));
  return algorithms;
}

/// Milliseconds for all repeats; infinite when `call` fails.
template <typename Call>
float shortest_time(const Call& call, const Trial& trial, Stream stream) {
  const Event begin, end;
  float shortest = std::numeric_limits<float>::infinity();
  if (call() != CUBLAS_STATUS_SUCCESS) return shortest;
  for (int round = 0; round < trial.rounds; ++round) {
    check_cuda(cudaEventRecord(begin.get(), stream));
    for (int i = 0; i < trial.repeats; ++i) call();
    check_cuda(cudaEventRecord(end.get(), stream));
    check_cuda(cudaEventSynchronize(end.get()));
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, begin.get(), end.get()));
    shortest = std::min(shortest, milliseconds);
  }
  return shortest;
}

}  // namespace

void Gemm::choose(Plan& plan, const GemmShape& shape, const bfloat16* a, const bfloat16* b,
                  Stream stream) const {
  const auto algorithms = candidates(library_->handle, shape, plan.operation, plan.first,
                                     plan.second, plan.output, library_->workspace_bytes);
  plan.algorithm = algorithms.front();
  if (!timing_ || algorithms.size() == 1) return;
  const std::size_t element = shape.float_output ? sizeof(float) : sizeof(bfloat16);
  const Scratch scratch(static_cast<std::size_t>(shape.m * shape.n) * element);
  const auto fastest_first = [&](std::vector<cublasLtMatmulAlgo_t> tried, const Trial& trial) {
    std::vector<std::pair<float, std::size_t>> times;
    for (std::size_t i = 0; i < tried.size(); ++i) {
      times.emplace_back(
          shortest_time(
              [&] { return plan.enqueue(*library_, tried[i], a, b, scratch.data(), stream); },
              trial, stream),
          i);
    }
    std::ranges::sort(times);
    std::vector<cublasLtMatmulAlgo_t> sorted;
    for (const auto& [time, i] : times) sorted.push_back(tried[i]);
    return sorted;
  };
  auto finalists = fastest_first(algorithms, kScreening);
  finalists.resize(std::min(finalists.size(), kFinalists));
  plan.algorithm = fastest_first(std::move(finalists), kFinal).front();
}

Gemm::Plan& Gemm::plan(const GemmShape& shape, const bfloat16* a, const bfloat16* b,
                       const bfloat16* bias, Stream stream) {
  const auto known = plans_.find(shape);
  if (known != plans_.end()) return *known->second;
  auto plan = std::make_unique<Plan>(shape);
  if (shape.bias) plan->set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);

  const auto recorded = choices_.find(shape.str());
  if (recorded != choices_.end()) {
    static_assert(sizeof plan->algorithm == sizeof recorded->second);
    std::memcpy(&plan->algorithm, recorded->second.data(), sizeof plan->algorithm);
  } else {
    choose(*plan, shape, a, b, stream);
    std::memcpy(choices_[shape.str()].data(), &plan->algorithm, sizeof plan->algorithm);
  }
  return *plans_.emplace(shape, std::move(plan)).first->second;
}

void Gemm::run(const GemmShape& shape, const bfloat16* a, const bfloat16* b, void* c,
               const bfloat16* bias, Stream stream) {
  Plan& made = plan(shape, a, b, bias, stream);
  if (shape.bias) made.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
  check(made.enqueue(*library_, made.algorithm, a, b, c, stream), shape.str());
}

}  // namespace ablate::kernels

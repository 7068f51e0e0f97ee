#include "runner/measure/kernel_class.h"

#include <algorithm>
#include <cctype>
#include <string>
#include <vector>

#include "runner/core/error.h"

namespace ablate {
namespace {

struct Rule {
  std::string_view part;  ///< of the name, in lower case
  KernelClass kernel_class;
};

// In both tables the first rule that fits decides.

/// Our kernels, by the name of the function alone.
constexpr Rule kOwn[] = {
    {"attention", KernelClass::Attention},
    {"delta_kernel", KernelClass::Attention},
    {"keys_kernel", KernelClass::Attention},
    {"queries_kernel", KernelClass::Attention},
    {"focus", KernelClass::Attention},
    {"gelu", KernelClass::Activation},
    {"patchify", KernelClass::Convolution},
    {"tokens_kernel", KernelClass::Convolution},
    {"tokens_backward", KernelClass::Convolution},
    {"norm", KernelClass::Norm},
    {"join", KernelClass::Norm},
    {"drop_path", KernelClass::Norm},
    {"pool", KernelClass::Norm},
    {"statistics", KernelClass::Norm},
    {"running_kernel", KernelClass::Norm},
    {"evaluation_kernel", KernelClass::Norm},
    {"apply_kernel", KernelClass::Norm},
    {"reduce_kernel", KernelClass::Norm},
    {"input_gradient", KernelClass::Norm},
    {"pack_kernel", KernelClass::Convolution},
    {"depthwise", KernelClass::Convolution},
    {"kernel_gradient", KernelClass::Convolution},
    {"share_kernel", KernelClass::Convolution},
    {"train_kernel", KernelClass::Data},
    {"mix_kernel", KernelClass::Data},
    {"eval_kernel", KernelClass::Data},
    {"taps_kernel", KernelClass::Data},
    {"rows_kernel", KernelClass::Data},
    {"columns_kernel", KernelClass::Data},
    {"augment_kernel", KernelClass::Data},
    {"plan_kernel", KernelClass::Data},
    {"mix_crops", KernelClass::Data},
    {"round_kernel", KernelClass::Data},
    {"column_sum", KernelClass::Gemm},
    {"finish_kernel", KernelClass::Gemm},
    {"match_kernel", KernelClass::TokenMerging},
    {"merge_kernel", KernelClass::TokenMerging},
    {"group_kernel", KernelClass::TokenMerging},
    {"chain_kernel", KernelClass::TokenMerging},
    {"gather_kernel", KernelClass::TokenMerging},
    {"add_up_kernel", KernelClass::TokenMerging},
    {"update_kernel", KernelClass::Optimizer},
    {"status_kernel", KernelClass::Optimizer},
    {"sum_of_squares", KernelClass::Optimizer},
    // Of layer attention.
    {"sum_kernel", KernelClass::Attention},
    {"gradient_kernel", KernelClass::Attention},
    {"loss", KernelClass::Other},
    {"cross_entropy", KernelClass::Other},
};

/// Kernels of libraries, by their whole name. Those of convolutions are called GEMMs too, and
/// cuDNN's attention has a "fprop" like its convolutions.
constexpr Rule kLibraries[] = {
    {"nccl", KernelClass::Communication},
    {"sdpa", KernelClass::Attention},
    {"flash", KernelClass::Attention},
    {"fmha", KernelClass::Attention},
    {"attention", KernelClass::Attention},
    {"softmax_warp", KernelClass::Attention},
    {"fprop", KernelClass::Convolution},
    {"dgrad", KernelClass::Convolution},
    {"wgrad", KernelClass::Convolution},
    {"conv", KernelClass::Convolution},
    {"implicit_gemm", KernelClass::Convolution},
    {"nchwtonhwc", KernelClass::Convolution},
    {"nhwctonchw", KernelClass::Convolution},
    {"batch_norm", KernelClass::Norm},
    {"batchnorm", KernelClass::Norm},
    {"layer_norm", KernelClass::Norm},
    {"layernorm", KernelClass::Norm},
    {"gammabeta", KernelClass::Norm},
    {"bn_fw", KernelClass::Norm},
    {"bn_bw", KernelClass::Norm},
    {"gelu", KernelClass::Activation},
    {"relu", KernelClass::Activation},
    {"threshold", KernelClass::Activation},
    {"multi_tensor_apply", KernelClass::Optimizer},
    {"adam", KernelClass::Optimizer},
    {"sgd", KernelClass::Optimizer},
    {"gemm", KernelClass::Gemm},
    {"gemv", KernelClass::Gemm},
    {"nvjet", KernelClass::Gemm},
    {"cutlass", KernelClass::Gemm},
    {"cublas", KernelClass::Gemm},
    {"splitkreduce", KernelClass::Gemm},
    {"memcpy htod", KernelClass::Data},
    {"at::native::", KernelClass::Elementwise},
    {"memcpy", KernelClass::Elementwise},
    {"memset", KernelClass::Elementwise},
};

std::string lower(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

/// "merge_kernel" of "void ablate::kernels::(anonymous namespace)::merge_kernel<float>(...)"; empty
/// for kernels that are not ours.
std::string own_function(std::string name) {
  constexpr std::string_view kAnonymous = "(anonymous namespace)::";
  for (std::size_t at; (at = name.find(kAnonymous)) != std::string::npos;) {
    name.erase(at, kAnonymous.size());
  }
  const std::size_t end = std::min(name.find_first_of("<("), name.size());
  const std::size_t start = name.find("ablate::");
  if (start == std::string::npos || start > end) return {};
  const std::size_t last = name.rfind("::", end);
  return name.substr(last + 2, end - last - 2);
}

template <std::size_t N>
KernelClass first_match(const Rule (&rules)[N], const std::string& name) {
  const auto found = std::ranges::find_if(
      rules, [&](const Rule& rule) { return name.find(rule.part) != std::string::npos; });
  return found == std::end(rules) ? KernelClass::Other : found->kernel_class;
}

}  // namespace

std::string_view name_of(KernelClass kernel_class) {
  switch (kernel_class) {
    case KernelClass::Gemm:
      return "gemm";
    case KernelClass::Attention:
      return "attention";
    case KernelClass::Norm:
      return "norm";
    case KernelClass::Activation:
      return "activation";
    case KernelClass::Convolution:
      return "convolution";
    case KernelClass::TokenMerging:
      return "token_merging";
    case KernelClass::Communication:
      return "communication";
    case KernelClass::Optimizer:
      return "optimizer";
    case KernelClass::Data:
      return "data";
    case KernelClass::Elementwise:
      return "elementwise";
    case KernelClass::Other:
      return "other";
  }
  check_failed("known KernelClass", "");
}

KernelClass classify_kernel(std::string_view name) {
  const std::string text = lower(name);
  const std::string own = own_function(text);
  return own.empty() ? first_match(kLibraries, text) : first_match(kOwn, own);
}

}  // namespace ablate

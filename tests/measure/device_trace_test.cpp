#include "runner/measure/device_trace.h"

#include <regex>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "runner/core/files.h"
#include "runner/torch/torch.h"
#include "tests/support/source_tree.h"
#include "tests/support/temp_folder.h"

namespace ablate {
namespace {

std::string class_of(std::string_view name) { return std::string(name_of(classify_kernel(name))); }

TEST(KernelClass, KnowsTheKernelsOfLibraries) {
  const std::vector<std::pair<std::string, std::string>> known = {
      {"nvjet_sm90_tst_128x256_64x4_2x1_v_bz_coopA_TNT", "gemm"},
      {"void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_16x16_128x2_tn>(T)",
       "gemm"},
      {"sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x128x64_cublas", "gemm"},
      {"void cublasLt::splitKreduce_kernel<32, 16, int, float>(cublasLt::args)", "gemm"},
      {"void gemv2T_kernel_val<int, int, float, float>(cublasGemvParams)", "gemm"},
      {"cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_3_64x64x64", "attention"},
      {"void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128>>(params)",
       "attention"},
      {"fmha_cutlassF_bf16_aligned_64x64_rf_sm80(PyTorchMemEffAttention::Params)", "attention"},
      {"void (anonymous namespace)::softmax_warp_forward<float, float, 8, false>(float*)",
       "attention"},
      {"sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_cudnn", "convolution"},
      {"void wgrad_alg0_engine<float, 128, 5, 5, 3>(int, int)", "convolution"},
      {"void cudnn::ops::nchwToNhwcKernel<float>(cudnn::ops::params)", "convolution"},
      {"void at::native::batch_norm_collect_statistics_channels_last_kernel<float>(int)", "norm"},
      {"void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float>(int)", "norm"},
      {"void cudnn::bn_fw_tr_1C11_singleread<float, 512>(cudnnTensorStruct)", "norm"},
      {"void at::native::vectorized_elementwise_kernel<8, at::native::GeluCUDAKernelImpl(x)>(int)",
       "activation"},
      {"ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
       "communication"},
      {"void at::native::(anonymous namespace)::multi_tensor_apply_kernel<A, FusedAdam>(A)",
       "optimizer"},
      {"Memcpy HtoD (Pinned -> Device)", "data"},
      {"void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>>(int)",
       "elementwise"},
      {"void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float>>(R)", "elementwise"},
      {"Memset (Device)", "elementwise"},
      {"a_kernel_that_nobody_knows", "other"},
  };
  for (const auto& [name, wanted] : known) EXPECT_EQ(class_of(name), wanted) << name;
}

TEST(KernelClass, LooksAtTheFunctionOfOurKernelsNotAtTheirArguments) {
  EXPECT_EQ(class_of("void ablate::kernels::(anonymous namespace)::update_kernel<ablate::kernels::"
                     "(anonymous namespace)::AdamWStep>(ablate::kernels::AttentionLike)"),
            "optimizer");
  EXPECT_EQ(class_of("ablate::kernels::(anonymous namespace)::finish_kernel("
                     "ablate::kernels::(anonymous namespace)::ColumnPartials)"),
            "gemm");
  EXPECT_EQ(class_of("void ablate::kernels::attention_resident_kernel<13, 64>(int)"), "attention");
}

/// Kernels of methods/kernels: the identifier before the parameters behind __global__.
std::vector<std::pair<std::string, std::string>> own_kernels() {
  static const std::regex global(
      R"(__global__\s+void\s+(?:__launch_bounds__\s*\((?:[^()]|\([^()]*\))*\)\s*)?(\w+)\s*\()");
  std::vector<std::pair<std::string, std::string>> found;
  for (const test::SourceFile& file : test::cpp_sources()) {
    if (!file.path.starts_with("methods/kernels/") && !file.path.starts_with("datasets/")) continue;
    std::string text;
    for (const std::string& line : file.lines) text += line + "\n";
    for (std::sregex_iterator it(text.begin(), text.end(), global), end; it != end; ++it) {
      found.emplace_back((*it)[1], file.path);
    }
  }
  return found;
}

TEST(KernelClass, HasAPlaceForEveryKernelOfOurs) {
  const auto kernels = own_kernels();
  EXPECT_GT(kernels.size(), 20U);
  for (const auto& [name, file] : kernels) {
    const bool a_loss =
        name.find("loss") != std::string::npos || name.find("cross_entropy") != std::string::npos;
    if (a_loss) continue;  // of no class
    EXPECT_NE(class_of("void ablate::kernels::" + name + "(int)"), "other")
        << file << ": add it to runner/measure/kernel_class.cpp";
  }
}

TEST(DeviceBreakdown, DividesTheTimeByClassAndRepetition) {
  const std::vector<DeviceActivity> activities = {
      {"nvjet_sm90", 1'000, 3'000},         // 2 us
      {"ncclDevKernel", 2'000, 6'000},      // 4 us, half a microsecond of them beside the product
      {"void at::native::x", 8'000, 9'000}  // 1 us
  };
  const DeviceBreakdown breakdown = DeviceBreakdown::of(activities, 2);
  const auto seconds = [&](KernelClass kernel_class) {
    return breakdown.shares[static_cast<std::size_t>(kernel_class)].seconds;
  };
  EXPECT_DOUBLE_EQ(seconds(KernelClass::Gemm), 1e-6);
  EXPECT_DOUBLE_EQ(seconds(KernelClass::Communication), 2e-6);
  EXPECT_DOUBLE_EQ(seconds(KernelClass::Elementwise), 0.5e-6);
  EXPECT_DOUBLE_EQ(seconds(KernelClass::Attention), 0);
  EXPECT_DOUBLE_EQ(breakdown.sum, 3.5e-6);
  EXPECT_DOUBLE_EQ(breakdown.busy, 3e-6) << "1 to 6 and 8 to 9, twice";
  EXPECT_DOUBLE_EQ(breakdown.span, 4e-6);
  EXPECT_NE(breakdown.table().find("communication"), std::string::npos);
  EXPECT_EQ(breakdown.table().find("attention"), std::string::npos) << "nothing ran there";
}

TEST(DeviceTrace, NamesTheOperationsOfTheHost) {
  const test::TempFolder folder;
  const at::Tensor a = at::ones({8, 8});
  DeviceTrace trace;
  at::mm(a, a);
  trace.stop(folder / "deep/trace.json");
  const auto text = nlohmann::json::parse(read_file(folder / "deep/trace.json"));
  const auto& events = text.at("traceEvents");
  const auto is_product = [](const nlohmann::json& event) {
    return event.value("name", "") == "aten::mm";
  };
  EXPECT_TRUE(std::any_of(events.begin(), events.end(), is_product));
}

TEST(DeviceTraceGpu, SeesEveryReplayOfACapturedGraph) {
#if ABLATE_HAS_CUDA
  if (c10::cuda::device_count() == 0) GTEST_SKIP() << "no CUDA device";
  constexpr int kReplays = 3;
  const at::Tensor a = at::ones({512, 512}, at::TensorOptions().device(at::kCUDA));
  const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());
  at::Tensor product = at::mm(a, a);
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  product = at::mm(a, a);
  graph.capture_end();
  const test::TempFolder folder;
  DeviceTrace trace;
  for (int i = 0; i < kReplays; ++i) graph.replay();
  const auto activities = trace.stop(folder / "trace.json");
  const auto products = std::ranges::count_if(activities, [](const DeviceActivity& activity) {
    return classify_kernel(activity.name) == KernelClass::Gemm;
  });
  EXPECT_GE(products, kReplays);
  graph.reset();
#else
  GTEST_SKIP() << "built without CUDA";
#endif
}

}  // namespace
}  // namespace ablate

#include "runner/measure/mac_counter.h"

#include <vector>

#include <gtest/gtest.h>

#include "methods/models/edit.h"
#include "methods/models/uncounted.h"
#include "tests/support/models.h"

namespace ablate {
namespace {

/// With weights of 0: what is counted depends on shapes alone.
std::shared_ptr<Model> zero_model(std::string_view name, std::int64_t classes) {
  auto model = test::make_model(name, "", classes);
  const at::NoGradGuard no_grad;
  for (at::Tensor& parameter : model->parameters()) parameter.zero_();
  return model;
}

struct Vit {
  std::int64_t dim, depth, patches, patch_size, classes;
};

/// P C 3 p^2 + sum over blocks (4 N C^2 + 2 N^2 C + 8 N C^2) + C classes, as the tables of token
/// merging and pruning papers count; a block in `removed` has no attention.
std::int64_t closed_form(const Vit& v, const std::vector<int>& removed = {}) {
  const std::int64_t n = v.patches + 1, c = v.dim;
  std::int64_t macs = v.patches * c * 3 * v.patch_size * v.patch_size + c * v.classes;
  for (int i = 0; i < v.depth; ++i) {
    const bool without = std::find(removed.begin(), removed.end(), i) != removed.end();
    macs += (without ? 0 : 4 * n * c * c + 2 * n * n * c) + 8 * n * c * c;
  }
  return macs;
}

TEST(MacCounter, EqualsTheClosedFormForSmallAndRealTransformers) {
  const auto cifar = zero_model("vit_tiny_patch4_32", 100);
  const ModelCost small = measure_cost(*cifar);
  EXPECT_EQ(small.macs, closed_form({192, 12, 64, 4, 100}));
  EXPECT_EQ(small.parameters, test::parameter_count(*cifar));
  EXPECT_EQ(small.final_tokens, 65);
  EXPECT_TRUE(cifar->is_training());

  const auto tiny = zero_model("deit_tiny_patch16_224", 1000);
  const std::int64_t macs = measure_cost(*tiny).macs;
  EXPECT_EQ(macs, closed_form({192, 12, 196, 16, 1000}));
  EXPECT_NEAR(static_cast<double>(macs), 1.254e9, 0.0005e9);
}

// The closed form itself reproduces the sums known for DeiT, whole and with attention removed.
TEST(MacCounter, ClosedFormGivesThePublishedTable) {
  const auto giga = [](const Vit& v, const std::vector<int>& removed) {
    return static_cast<double>(closed_form(v, removed)) / 1e9;
  };
  EXPECT_NEAR(giga({768, 12, 196, 16, 1000}, {}), 17.564, 0.0005);
  EXPECT_NEAR(giga({768, 12, 196, 16, 1000}, {0, 1, 3, 4, 6}), 14.942, 0.0005);
  EXPECT_NEAR(giga({768, 12, 196, 16, 1000}, {0, 1, 3, 4, 6, 9}), 14.417, 0.0005);
  EXPECT_NEAR(giga({384, 12, 196, 16, 1000}, {}), 4.599, 0.0005);
  EXPECT_NEAR(giga({384, 12, 196, 16, 1000}, {0, 2, 4}), 4.161, 0.0005);
  EXPECT_NEAR(giga({192, 12, 196, 16, 1000}, {0, 2, 4, 6}), 1.078, 0.0005);
}

TEST(MacCounter, SeesRemovedAttention) {
  const auto model = zero_model("vit_small_patch4_32", 10);
  Surgeon surgeon(*model);
  for (const int block : {0, 2, 4}) surgeon.apply(RemoveMixer{block});
  EXPECT_EQ(measure_cost(*model).macs, closed_form({384, 12, 64, 4, 10}, {0, 2, 4}));
}

// Convolutions and linear layers of the public models.
TEST(MacCounter, GivesThePublishedSumsOfResidualNetworks) {
  const auto mega = [](const char* name, std::int64_t classes) {
    const auto model = zero_model(name, classes);
    return static_cast<double>(measure_cost(*model).macs) / 1e6;
  };
  EXPECT_NEAR(mega("resnet50", 1000), 4089.2, 0.05);
  EXPECT_NEAR(mega("resnet20", 10), 33.74, 0.005);
  EXPECT_NEAR(mega("resnet56", 10), 87.21, 0.005);
  EXPECT_NEAR(mega("resnet110", 10), 167.43, 0.005);
}

template <typename Work>
std::int64_t macs_of(const Work& work) {
  const at::NoGradGuard no_grad;
  const MacCounter counter;
  work();
  return counter.macs();
}

TEST(MacCounter, CountsEachOperationOnce) {
  const at::Tensor a = at::rand({2, 3, 4}), b = at::rand({2, 4, 5}), m = at::rand({4, 5});
  const at::Tensor v = at::rand({4}), w = at::rand({6, 4}), q = at::rand({2, 3, 7, 4});
  EXPECT_EQ(macs_of([&] { at::matmul(a, b); }), 2 * 3 * 4 * 5);
  EXPECT_EQ(macs_of([&] { at::bmm(a, b); }), 2 * 3 * 4 * 5);
  EXPECT_EQ(macs_of([&] { at::baddbmm(at::zeros({2, 3, 5}), a, b); }), 2 * 3 * 4 * 5);
  EXPECT_EQ(macs_of([&] { at::matmul(a, m); }), 2 * 3 * 4 * 5);
  EXPECT_EQ(macs_of([&] { at::addmm(at::zeros({5}), a[0], m); }), 3 * 4 * 5);
  EXPECT_EQ(macs_of([&] { at::matmul(a[0], v); }), 3 * 4);
  EXPECT_EQ(macs_of([&] { at::dot(v, v); }), 4);
  EXPECT_EQ(macs_of([&] { at::einsum("bik,bkj->bij", {a, b}); }), 2 * 3 * 4 * 5);
  EXPECT_EQ(macs_of([&] { at::linear(a, w, at::zeros({6})); }), 2 * 3 * 4 * 6);
  EXPECT_EQ(macs_of([&] { at::linear(a.transpose(0, 1), w); }), 2 * 3 * 4 * 6);
  EXPECT_EQ(macs_of([&] { at::scaled_dot_product_attention(q, q, q); }), 2 * 2 * 3 * 7 * 7 * 4);
  EXPECT_EQ(macs_of([&] { at::softmax(a, -1).add(1).relu().sum(); }), 0);
}

TEST(MacCounter, CountsConvolutionsByTheirOutputs) {
  const at::Tensor x = at::rand({2, 8, 9, 11});
  const at::Tensor weight = at::rand({6, 8, 3, 3}), depthwise = at::rand({8, 1, 3, 3});
  EXPECT_EQ(macs_of([&] { at::conv2d(x, weight, {}, 2, 1); }), 2 * 5 * 6 * 6 * 8 * 9);
  EXPECT_EQ(macs_of([&] { at::conv2d(x, weight, {}, 1, 1, 2); }), 2 * 7 * 9 * 6 * 8 * 9);
  EXPECT_EQ(macs_of([&] { at::conv2d(x, depthwise, {}, 1, 1, 1, 8); }), 2 * 9 * 11 * 8 * 9);
  EXPECT_EQ(macs_of([&] {
              at::conv_transpose2d(x, at::rand({8, 3, 2, 2}), {}, 2);
            }),
            2 * 9 * 11 * 8 * 3 * 4);
  EXPECT_EQ(macs_of([&] { at::conv1d(at::rand({1, 2, 10}), at::rand({4, 2, 3})); }), 8 * 4 * 2 * 3);
}

TEST(MacCounter, NestsAndLeavesOutWhatIsUncounted) {
  const at::Tensor m = at::rand({4, 4});
  const at::NoGradGuard no_grad;
  const MacCounter outer;
  at::mm(m, m);
  {
    const MacCounter inner;
    at::mm(m, m);
    {
      const UncountedScope uncounted;
      at::mm(m, m);
    }
    EXPECT_EQ(inner.macs(), 64);
  }
  at::mm(m, m);
  EXPECT_EQ(outer.macs(), 3 * 64);
}

}  // namespace
}  // namespace ablate

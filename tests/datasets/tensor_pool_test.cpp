#include "datasets/tensor_pool.h"

#include <gtest/gtest.h>

namespace ablate {
namespace {

TEST(TensorPool, GivesMemoryAgainOnlyWhenNobodyHoldsIt) {
  TensorPool pool;
  at::Tensor first = pool.take({2, 3}, at::kFloat);
  const void* memory = first.data_ptr();
  EXPECT_EQ(first.sizes(), (at::IntArrayRef{2, 3}));
  const at::Tensor second = pool.take({2, 3}, at::kFloat);
  EXPECT_NE(second.data_ptr(), memory);
  at::Tensor view = first.narrow(0, 1, 1);
  first.reset();
  EXPECT_NE(pool.take({2, 3}, at::kFloat).data_ptr(), memory);  // a view holds it still
  view.reset();
  bool again = false;
  std::vector<at::Tensor> held;
  for (int i = 0; i < 4; ++i) {
    held.push_back(pool.take({2, 3}, at::kFloat));
    again = again || held.back().data_ptr() == memory;
    EXPECT_NE(held.back().data_ptr(), second.data_ptr());
  }
  EXPECT_TRUE(again);
}

TEST(TensorPool, BytesAreAtLeastAsManyAsAskedFor) {
  TensorPool pool;
  at::Tensor large = pool.take_bytes(1000);
  const void* memory = large.data_ptr();
  EXPECT_GE(large.numel(), 1000);
  EXPECT_GE(pool.take_bytes(10).numel(), 10);
  large.reset();
  EXPECT_GE(pool.take_bytes(2000).numel(), 2000);
  const at::Tensor kinds = pool.take({10}, at::kFloat);
  EXPECT_EQ(kinds.scalar_type(), at::kFloat);
  EXPECT_NE(kinds.data_ptr(), memory);
}

}  // namespace
}  // namespace ablate

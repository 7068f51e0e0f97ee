#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "distributed/communicator.h"
#include "runner/core/error.h"
#include "runner/torch/torch.h"

/// What every communicator must do, as formulas in rank and size. Each function is called by all
/// ranks; tensors are made on `device`.
namespace ablate::test::contract {

/// values[i] = (rank + 1) (i + 1) on every rank; exact in all tested types.
inline at::Tensor ramp(const Communicator& comm, std::int64_t count, at::ScalarType type,
                       at::Device device) {
  return ((at::arange(count, at::kLong) + 1) * (comm.rank() + 1)).to(device, type);
}

inline void reduces_every_type(Communicator& comm, at::Device device) {
  const std::int64_t size = comm.size();
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kLong, at::kByte}) {
    const at::Tensor factor = (at::arange(20, at::kLong) + 1).to(device, type);
    at::Tensor sum = ramp(comm, 20, type, device);
    comm.all_reduce(sum);
    EXPECT_TRUE(at::equal(sum, factor * (size * (size + 1) / 2))) << at::toString(type);
    at::Tensor low = ramp(comm, 20, type, device);
    comm.all_reduce(low, ReduceOp::Min);
    EXPECT_TRUE(at::equal(low, factor)) << at::toString(type);
    at::Tensor high = ramp(comm, 20, type, device);
    comm.all_reduce(high, ReduceOp::Max);
    EXPECT_TRUE(at::equal(high, factor * size)) << at::toString(type);
  }
}

/// Sizes on both sides of the thresholds at which libraries change their algorithm.
inline void results_are_bitwise_equal(Communicator& comm, at::Device device) {
  for (const std::int64_t count : {1, 7, 4096, 300007}) {
    const at::Tensor index = at::arange(count, at::kDouble) + 1;
    const at::Tensor mine =
        at::sin(index * (comm.rank() + 1)).div_(comm.rank() + 3).to(device, at::kFloat);
    at::Tensor first = mine.clone();
    comm.all_reduce(first);
    at::Tensor again = mine.clone();
    comm.all_reduce(again);
    EXPECT_TRUE(at::equal(first, again)) << "from call to call, " << count;
    at::Tensor all = at::empty({comm.size(), count}, first.options());
    comm.all_gather(first, all);
    for (int r = 0; r < comm.size(); ++r) {
      EXPECT_TRUE(at::equal(all[r], first)) << "rank " << r << ", " << count;
    }
    at::Tensor exact = at::zeros({count}, at::kDouble);
    for (int r = 0; r < comm.size(); ++r) exact += at::sin(index * (r + 1)) / (r + 3);
    EXPECT_LT((first.cpu().to(at::kDouble) - exact).abs().max().item<double>(), 1e-6);
  }
}

/// Several reductions under way at once. On the host, waiting for the last means that all are done.
inline void works_overlap_and_finish_in_order(Communicator& comm, at::Device device) {
  std::vector<at::Tensor> tensors;
  std::vector<std::unique_ptr<Work>> works;
  for (std::int64_t k = 0; k < 8; ++k) {
    tensors.push_back(at::full({k == 0 ? 200000 : 1000 - k}, double(comm.rank() + k),
                               at::TensorOptions(device).dtype(at::kDouble)));
    works.push_back(comm.start_all_reduce(tensors.back()));
  }
  works.back()->wait();
  const std::int64_t size = comm.size();
  for (std::int64_t k = 0; k < 8; ++k) {
    const double expected = double(size * (size - 1) / 2 + size * k);
    if (device.is_cpu()) {
      EXPECT_TRUE((tensors[k] == expected).all().item<bool>()) << "before its own wait, " << k;
    }
    works[k]->wait();
    EXPECT_TRUE((tensors[k] == expected).all().item<bool>()) << k;
  }
}

inline void broadcasts_from_every_root(Communicator& comm, at::Device device) {
  for (int root = 0; root < comm.size(); ++root) {
    for (const at::ScalarType type : {at::kFloat, at::kLong, at::kByte, at::kBool}) {
      at::Tensor tensor = (at::arange(33, at::kLong) % (comm.rank() + 2)).to(device, type);
      const at::Tensor expected = (at::arange(33, at::kLong) % (root + 2)).to(device, type);
      comm.broadcast(tensor, root);
      EXPECT_TRUE(at::equal(tensor, expected)) << "root " << root << " " << at::toString(type);
    }
    const std::string text = std::string("from\0", 5) + std::string(std::size_t(root) * 100, 'x');
    const auto mine = comm.rank() == root ? text : "something of another length";
    EXPECT_EQ(comm.broadcast(mine, root), text);
  }
}

inline void gathers_in_rank_order(Communicator& comm, at::Device device) {
  const at::Tensor mine = ramp(comm, 6, at::kFloat, device).view({2, 3});
  at::Tensor all = at::empty({comm.size(), 2, 3}, mine.options());
  comm.all_gather(mine, all);
  for (int r = 0; r < comm.size(); ++r) {
    EXPECT_TRUE(at::equal(all[r], mine / (comm.rank() + 1) * (r + 1))) << r;
  }
  const auto texts = comm.all_gather(std::string(std::size_t(comm.rank()) * 3, 'a'));
  ASSERT_EQ(texts.size(), std::size_t(comm.size()));
  for (std::size_t r = 0; r < texts.size(); ++r) EXPECT_EQ(texts[r], std::string(r * 3, 'a'));
}

inline void reduces_host_values(Communicator& comm) {
  const std::int64_t size = comm.size();
  const std::int64_t big = std::int64_t{1} << 60;  // not a double: must not pass through one
  EXPECT_EQ(comm.all_reduce(big + comm.rank(), ReduceOp::Max), big + size - 1);
  EXPECT_EQ(comm.all_reduce(std::int64_t{comm.rank()}), size * (size - 1) / 2);
  EXPECT_EQ(comm.all_reduce(0.5 + comm.rank(), ReduceOp::Min), 0.5);
  EXPECT_EQ(comm.all_reduce(0.25), 0.25 * double(size));
  comm.barrier();
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(comm.missing_after(std::chrono::seconds(30)).empty());
  }
}

/// Even and odd ranks apart, in reverse order.
inline void splits_by_color_and_key(Communicator& comm, at::Device device) {
  const int color = comm.rank() % 2 == 0 ? -7 : 3;
  const auto part = comm.split(color, -comm.rank());
  const int members = (comm.size() + (color == -7 ? 1 : 0)) / 2;
  ASSERT_EQ(part->size(), members);
  EXPECT_EQ(part->rank(), members - 1 - comm.rank() / 2);
  at::Tensor sum = at::full({3}, double(comm.rank()), at::TensorOptions(device));
  part->all_reduce(sum);
  double expected = 0;
  for (int r = comm.rank() % 2; r < comm.size(); r += 2) expected += r;
  EXPECT_EQ(sum.sum().item<double>(), 3 * expected);
  // Parts work apart from each other and from the whole.
  const auto alone = part->split(part->rank(), 0);
  EXPECT_EQ(alone->size(), 1);
  EXPECT_EQ(alone->all_reduce(2.0), 2.0);
  EXPECT_EQ(comm.all_reduce(1.0), double(comm.size()));
}

inline void refuses_what_it_cannot_move(Communicator& comm, at::Device device) {
  at::Tensor narrow = at::zeros({4}, at::TensorOptions(device).dtype(at::kShort));
  EXPECT_THROW(comm.all_reduce(narrow), BugError);
  at::Tensor strided = at::zeros({4, 4}, at::TensorOptions(device)).t();
  EXPECT_THROW(comm.all_reduce(strided), BugError);
  at::Tensor tensor = at::zeros({4}, at::TensorOptions(device));
  EXPECT_THROW(comm.broadcast(tensor, comm.size()), BugError);
  at::Tensor too_small = at::zeros({comm.size(), 3}, at::TensorOptions(device));
  EXPECT_THROW(comm.all_gather(tensor, too_small), BugError);
  comm.barrier();
}

inline void holds(Communicator& comm, at::Device device = at::kCPU) {
  ASSERT_GE(comm.rank(), 0);
  ASSERT_LT(comm.rank(), comm.size());
  reduces_every_type(comm, device);
  results_are_bitwise_equal(comm, device);
  works_overlap_and_finish_in_order(comm, device);
  broadcasts_from_every_root(comm, device);
  gathers_in_rank_order(comm, device);
  reduces_host_values(comm);
  splits_by_color_and_key(comm, device);
  refuses_what_it_cannot_move(comm, device);
}

}  // namespace ablate::test::contract

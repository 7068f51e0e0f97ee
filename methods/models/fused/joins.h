#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "methods/kernels/drop_path.h"
#include "methods/models/block.h"

namespace ablate {

class Model;

/// Factors of a model's residual joins in device memory: drop-path scales and gains that methods
/// move, so that a captured step needs no host. Belongs to one structure and batch.
class DeviceJoins {
 public:
  /// `batch` images of one pass in training mode, the first at `first_position` of the global
  /// batch.
  DeviceJoins(Model& model, std::int64_t batch, std::int64_t first_position, std::uint64_t seed,
              at::Device device);

  /// Bytes of the block that the host writes before each step, and a device tensor of that size to
  /// copy it to.
  std::vector<std::byte> host_block(std::int64_t step) const;
  const at::Tensor& device_block() const { return block_; }
  /// Where the step's number stands in it.
  const std::int64_t* device_step() const {
    return static_cast<const std::int64_t*>(block_.const_data_ptr());
  }

  /// Computes all scales from the block, on the current stream; can be captured.
  void enqueue();
  /// For ForwardState; joins whose factors are 1 are not among them.
  const std::map<std::string, JoinNumbers>& numbers() const { return numbers_; }

 private:
  /// One join of a block: its branch is scaled, the identity beside it amplified. Of layer
  /// attention: no block, for it has no gains.
  struct Join {
    Block* block;
    bool attention;
    std::string name;
    double drop_path;
  };
  /// Where the parts of the block begin: step, joins, skips.
  std::size_t joins_offset() const { return sizeof(std::int64_t); }
  std::size_t skips_offset() const {
    return joins_offset() + joins_.size() * sizeof(kernels::DropPathJoin);
  }

  std::int64_t batch_, first_position_;
  std::uint64_t seed_;
  std::vector<Join> joins_;
  at::Tensor block_, scales_;
  std::map<std::string, JoinNumbers> numbers_;
};

}  // namespace ablate

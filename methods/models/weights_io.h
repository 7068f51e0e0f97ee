#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "methods/models/model.h"
#include "methods/models/safetensors.h"

namespace ablate {

/// How position embeddings are brought to another grid: bicubic (a = -0.75) as DeiT and
/// mmsegmentation do it, bicubic with antialiasing (a = -0.5) as recent timm, bilinear as
/// Segmenter.
enum class PositionResize { Bicubic, BicubicAntialias, Bilinear };

struct LoadOptions {
  /// Leaves the classifier as it is and ignores the file's: needed for another number of classes.
  bool reset_head = false;
  PositionResize positions = PositionResize::Bicubic;
};

/// What was not taken over as it stands in the file.
struct LoadReport {
  std::vector<std::string> resized;
  std::vector<std::string> kept;  ///< tensors of heads left as initialised
};

/// Fills parameters and buffers by name from a safetensors file of any floating-point type; timm's
/// and torchvision's files fit unchanged. Position embeddings of another grid are interpolated. A
/// classifier's file fits the backbone of a dense model, whose neck and heads stay as they are.
/// Throws Error naming all missing, unexpected and misshapen tensors; the model is then untouched.
LoadReport load_weights(Model& model, const std::filesystem::path& file,
                        const LoadOptions& options = {});

/// All parameters and buffers by name, in the model's order; they share memory with the model.
NamedTensors named_tensors(const torch::nn::Module& module);

/// Writes parameters and buffers under their names, atomically.
void save_weights(const Model& model, const std::filesystem::path& file,
                  const std::map<std::string, std::string>& metadata = {});

/// Learnt positions of a map of tokens, whose number may change: "pos_embed", "pos_embed3", ..
bool is_position_embedding(const std::string& name);

/// Position embeddings (1, p + g^2, C) for `length` = p + h^2 tokens, where p is 0, 1 or 2 leading
/// tokens that stay. In single precision or better.
/// Throws Error when the lengths are not of this form.
at::Tensor resize_position_embedding(const at::Tensor& embedding, std::int64_t length,
                                     PositionResize how);

}  // namespace ablate

#pragma once

namespace ablate {

/// Settings of the model "vit" in examples of methods (MethodExample::model_params): three blocks
/// on 16 tokens and the class token.
inline constexpr const char* kExampleVit = R"(image_size = 16
patch_size = 4
embed_dim = 16
depth = 3
num_heads = 2)";

}  // namespace ablate

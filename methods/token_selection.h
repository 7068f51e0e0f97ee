#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "methods/models/model.h"
#include "methods/models/slots.h"
#include "methods/models/token_rows.h"
#include "runner/core/params.h"

namespace ablate {

/// The numbers of all tokens (B, N), those in front first, the others by falling score: `scores`
/// (B, N - protected_tokens). Equal ones keep their order.
at::Tensor by_score(const at::Tensor& scores, std::int64_t protected_tokens);

/// Token sources of the pass after tokens have gone to `positions` (B, N), where somebody follows
/// them.
void move_sources(const at::Tensor& positions, ForwardState& state);

/// The tokens with these numbers, and what `state` says of them. `positions`: where each token
/// goes, when those that are left out live on in others. Undefined: they are dropped for good,
/// which throws Error when somebody follows the sources of tokens.
TokenStream keep_tokens(const at::Tensor& numbers, const TokenStream& stream, ForwardState& state,
                        const at::Tensor& positions = {});

/// For methods that drop tokens: whom they cannot be combined with, and why.
inline const std::vector<std::string_view> kFollowTokens{"dla_base", "dla_light", "ela",
                                                         "mrla_base", "mrla_light"};
inline constexpr std::string_view kDroppedTokens =
    "layer attention needs the grid of all tokens, and dropped ones leave holes";
/// The same where somebody follows them, layer attention or a dense head.
inline constexpr std::string_view kFollowedTokens =
    "layer attention and dense models need the grid of all tokens, and dropped ones leave holes; "
    "use a method that merges";

/// ceil(keep * tokens), as published code rounds.
std::int64_t kept_tokens(double keep, std::int64_t tokens);

/// Blocks at which tokens are reduced.
struct TokenStages {
  std::vector<std::int64_t> blocks;  ///< empty: at each quarter of the depth, 3, 6 and 9 of 12

  /// Reads `blocks`. Throws SpecError on one that comes twice.
  static TokenStages read(Params& params);
  /// By block number, rising. Throws SpecError, naming `method`, when the model is not that deep.
  std::vector<int> of(std::int64_t depth, std::string_view method) const;
};

/// The stages of a method that ranks tokens by the attention of the class token: one that falls on
/// a block whose attention is gone, or going, moves to the next block that has some. Throws
/// SpecError, naming `method`, when there is none left.
std::vector<int> class_attention_stages(const std::vector<Block*>& blocks,
                                        const std::vector<int>& stages, std::string_view method);

/// Throws SpecError when no token has gone at the end of the model: the row of a table would claim
/// what did not happen.
void check_shortened(Model& model, std::string_view method);
/// Tokens in front of the first block.
std::int64_t initial_tokens(Model& model);

}  // namespace ablate

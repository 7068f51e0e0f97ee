#include "methods/models/slots.h"
#include "runner/core/error.h"
#include "runner/core/params.h"

namespace ablate::methods::class_token {
namespace {

/// Lets class and distillation token through, and nobody else. In the last block of a model whose
/// heads read nothing but them this is exact, and spares the block's MLP; anywhere else it would
/// change the model.
class ClassTokenReducer final : public TokenReducer {
 public:
  void begin(ForwardState&) override {}

  TokenStream forward(TokenStream stream, ForwardState& state) override {
    const std::int64_t kept = state.protected_tokens;
    ABLATE_CHECK(kept > 0, "a model without class token");
    for (at::Tensor* of_tokens : {&state.token_sizes, &state.log_sizes, &state.carried_keys}) {
      if (of_tokens->defined()) *of_tokens = of_tokens->narrow(1, 0, kept);
    }
    if (!state.fused) return {stream.value().narrow(1, 0, kept)};
    stream.first = kept;
    return stream;
  }

  KeyNeed key_need() const override { return KeyNeed::None; }
};

const Registry<TokenReducerInfo>::Add added{
    {.name = "class_token", .make = [](Params&) -> std::shared_ptr<TokenReducer> {
       return std::make_shared<ClassTokenReducer>();
     }}};

}  // namespace
}  // namespace ablate::methods::class_token

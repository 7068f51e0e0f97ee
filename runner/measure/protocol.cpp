#include "runner/measure/protocol.h"

#include "runner/core/text.h"

namespace ablate {

std::string Protocol::name() const {
  return cat(kind == BenchKind::Train ? "train" : "infer", "-", dtype, "-b", batch,
             wire == "fp32" ? "" : "-wire-" + wire);
}

}  // namespace ablate

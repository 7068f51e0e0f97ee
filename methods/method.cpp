#include "methods/method.h"

#include <nlohmann/json.hpp>

namespace ablate {

void TrainContext::apply_neutral(const std::vector<Edit>& edits) {
  const double change = surgeon().apply_neutral(edits);
  nlohmann::json body{{"max_logit_change", change}, {"edits", nlohmann::json::array()}};
  for (const Edit& edit : edits) body["edits"].push_back(to_json(edit));
  event("neutral_edit", body);
}

nlohmann::json Method::save() const { return nlohmann::json::object(); }

void Method::load(const nlohmann::json&) {}

}  // namespace ablate

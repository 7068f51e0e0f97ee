#include "runner/train/spec_part.h"

namespace ablate {

std::string NamedPart::place_of(std::string_view key) const {
  const Value* found = settings.find(key);
  return found ? found->origin().str() : where;
}

NamedPart named_part(const Value* raw, std::string_view key, std::string_view default_name) {
  if (!raw) return {std::string(default_name), Value(), std::string(key)};
  if (raw->is_string()) return {raw->as_string(), Value(), raw->origin().str()};
  if (!raw->is_table()) {
    throw SpecError(cat(raw->origin().str(), ": ", key, ": found ", raw->canonical(),
                        ", accepted: a name, or a table { name = \"...\", ... }"));
  }
  const Value* name = raw->find("name");
  if (!name && default_name.empty()) {
    throw SpecError(
        cat(raw->origin().str(), ": ", key, " needs a name: ", key, " = { name = \"...\", ... }"));
  }
  NamedPart part{name ? name->as_string() : std::string(default_name), *raw,
                 (name ? name : raw)->origin().str()};
  part.settings.as_table().erase("name");
  return part;
}

}  // namespace ablate

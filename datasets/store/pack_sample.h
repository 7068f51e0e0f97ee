#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

#include "datasets/store/findings.h"
#include "datasets/store/stored_dataset.h"

namespace ablate {

/// How samples are packed.
struct PackForm {
  enum class Kind {
    Verbatim,  ///< the bytes of the source
    Jpeg,      ///< JPEG, shrunk; sources that need no shrinking and are JPEG keep their bytes
    Raw,       ///< RGB pixels, shrunk
  };

  Kind kind = Kind::Verbatim;
  int side = 0;  ///< shorter side of images that are larger (bicubic); 0 leaves the size
  int quality = 90;

  nlohmann::json json() const;
  /// Throws nlohmann's exceptions and Error.
  static PackForm from_json(const nlohmann::json& json);
};

/// "verbatim", "jpeg", "raw".
std::string_view kind_name(PackForm::Kind kind);

/// A sample ready to be written; a function of the source's bytes and the form alone.
struct PreparedSample {
  std::string bytes;  ///< empty when the sample is bad
  SampleEntry entry;  ///< without its place
  Findings findings;
  bool bad = false;  ///< cannot be read or decoded: `findings` says why
};

/// Reads, decodes (so that nothing damaged is packed) and encodes one sample. Throws TransientError
/// when the machine is at fault.
PreparedSample prepare_sample(const StoredDataset& source, std::int64_t index,
                              const PackForm& form);

}  // namespace ablate

#pragma once

namespace ablate {

/// SQL of schema version 1: tables with their indices, and views.
extern const char* const kSchemaV1Tables;
extern const char* const kSchemaV1Views;

}  // namespace ablate

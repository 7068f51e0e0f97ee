# Target ablate_revision: an object with the git revision, for the programs. As a script (cmake -P), run
# by every build: writes the source anew only when the revision or its dirty flag has changed.

if(CMAKE_SCRIPT_MODE_FILE)
  execute_process(COMMAND git -C ${ABLATE_SOURCE_DIR} describe --always --dirty --abbrev=12
    --match= OUTPUT_VARIABLE revision OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(NOT revision)
    set(revision unknown)
  endif()
  file(CONFIGURE OUTPUT ${ABLATE_REVISION_FILE} @ONLY CONTENT [=[
#include "runner/core/build_revision.h"

const char* ablate::build_revision() { return "@revision@"; }
]=])
  return()
endif()

set(ablate_revision_file ${CMAKE_BINARY_DIR}/generated/build_revision.cpp)
add_custom_target(ablate_revision_text
  COMMAND ${CMAKE_COMMAND} -DABLATE_SOURCE_DIR=${PROJECT_SOURCE_DIR}
    -DABLATE_REVISION_FILE=${ablate_revision_file} -P ${CMAKE_CURRENT_LIST_FILE}
  BYPRODUCTS ${ablate_revision_file} COMMENT "")
add_library(ablate_revision OBJECT ${ablate_revision_file})
add_dependencies(ablate_revision ablate_revision_text)
target_include_directories(ablate_revision PRIVATE ${PROJECT_SOURCE_DIR})

# Finds NCCL: nccl.h of the system or of the wheel's nvidia/nccl folder, and libnccl.so.2 of the wheel first,
# so that torch and we share one library. The wheel has no libnccl.so, hence the full name.
#
# Target: NCCL::nccl. Needs LibTorch_ROOT_DIR.

set(_wheel "${LibTorch_ROOT_DIR}/../nvidia/nccl")
find_path(NCCL_INCLUDE_DIR nccl.h HINTS "${_wheel}/include")
find_library(NCCL_LIBRARY NAMES libnccl.so.2 nccl HINTS "${_wheel}/lib")

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(NCCL REQUIRED_VARS NCCL_LIBRARY NCCL_INCLUDE_DIR)

if(NCCL_FOUND AND NOT TARGET NCCL::nccl)
  add_library(NCCL::nccl SHARED IMPORTED)
  set_target_properties(NCCL::nccl PROPERTIES
    IMPORTED_LOCATION "${NCCL_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${NCCL_INCLUDE_DIR}")
endif()

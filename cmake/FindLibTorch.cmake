# Finds LibTorch 2.11 without the wheel's own CMake files, which insist on a CUDA toolkit.
#
# Looked for in this order: TORCH_DIR (CMake or environment variable; a LibTorch tree or the `torch` folder
# of a wheel), .venv of this repository, the torch that `python3` imports.
#
# Targets: LibTorch::cpu, and LibTorch::cuda when ABLATE_HAS_CUDA is on.
# Sets LibTorch_ROOT_DIR, LibTorch_VERSION.

set(_candidates "")
if(TORCH_DIR)
  list(APPEND _candidates "${TORCH_DIR}")
elseif(DEFINED ENV{TORCH_DIR})
  list(APPEND _candidates "$ENV{TORCH_DIR}")
else()
  file(GLOB _in_venv "${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch")
  list(APPEND _candidates ${_in_venv})
  if(NOT _in_venv)
    execute_process(
      COMMAND python3 -c
        "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0])"
      OUTPUT_VARIABLE _imported OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(_imported)
      list(APPEND _candidates "${_imported}")
    endif()
  endif()
endif()

find_path(LibTorch_INCLUDE_DIR torch/headeronly/version.h
  PATHS ${_candidates} PATH_SUFFIXES include NO_DEFAULT_PATH)
if(LibTorch_INCLUDE_DIR)
  get_filename_component(LibTorch_ROOT_DIR "${LibTorch_INCLUDE_DIR}" DIRECTORY)
  file(STRINGS "${LibTorch_INCLUDE_DIR}/torch/headeronly/version.h" _version_lines
    REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
  list(TRANSFORM _version_lines REPLACE ".* ([0-9]+)$" "\\1")
  list(JOIN _version_lines "." LibTorch_VERSION)
endif()

set(_names torch_cpu c10)
if(ABLATE_HAS_CUDA)
  list(APPEND _names torch torch_cuda c10_cuda)
endif()
set(_variables "")
foreach(_name IN LISTS _names)
  find_library(LibTorch_${_name}_LIBRARY ${_name}
    PATHS "${LibTorch_ROOT_DIR}/lib" NO_DEFAULT_PATH)
  list(APPEND _variables LibTorch_${_name}_LIBRARY)
endforeach()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LibTorch_INCLUDE_DIR ${_variables}
  VERSION_VAR LibTorch_VERSION
  HANDLE_VERSION_RANGE
  REASON_FAILURE_MESSAGE "run scripts/setup, or set TORCH_DIR to a LibTorch 2.11")

if(LibTorch_FOUND AND NOT TARGET LibTorch::cpu)
  foreach(_name IN LISTS _names)
    add_library(LibTorch::${_name} SHARED IMPORTED)
    set_target_properties(LibTorch::${_name} PROPERTIES
      IMPORTED_LOCATION "${LibTorch_${_name}_LIBRARY}"
      INTERFACE_INCLUDE_DIRECTORIES
        "${LibTorch_INCLUDE_DIR};${LibTorch_INCLUDE_DIR}/torch/csrc/api/include"
      INTERFACE_COMPILE_DEFINITIONS "_GLIBCXX_USE_CXX11_ABI=1")
  endforeach()
  add_library(LibTorch::cpu INTERFACE IMPORTED)
  target_link_libraries(LibTorch::cpu INTERFACE LibTorch::torch_cpu LibTorch::c10)
  # The wheel's libraries find theirs (cudart, cupti) by their own RPATH, which a linker does not follow.
  target_link_options(LibTorch::cpu INTERFACE LINKER:--allow-shlib-undefined)
  if(ABLATE_HAS_CUDA)
    add_library(LibTorch::cuda INTERFACE IMPORTED)
    # Nothing refers to torch_cuda by symbol: it registers its kernels when loaded, so it must be kept.
    target_link_libraries(LibTorch::cuda INTERFACE LibTorch::cpu
      -Wl,--no-as-needed LibTorch::torch_cuda LibTorch::c10_cuda -Wl,--as-needed)
  endif()
endif()

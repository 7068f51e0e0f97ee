# Helpers that every folder's CMakeLists.txt uses.
#
# Kinds of library:
#   STATIC  ordinary code.
#   OBJECT  code with self-registering files (methods, models, data sets, commands ...): a linker drops
#           unreferenced members of a static library, and the registration with them. CMake hands the
#           objects of an OBJECT library only to targets that name it, therefore executables made by
#           ablate_add_executable name every OBJECT library they depend on, however deep.
# A folder without sources yet becomes an INTERFACE library, so that configuration always works.

# Warnings, and unity or precompiled header. All torch targets share one set of flags: GCC accepts a
# precompiled header only from a compilation with equal flags.
function(ablate_configure_target target is_torch)
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow>)
  if(NOT is_torch)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wconversion>)
    if(ABLATE_WERROR)
      target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
    endif()
  endif()
  if(ABLATE_UNITY)
    set_target_properties(${target} PROPERTIES
      UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE ${ABLATE_UNITY_BATCH})
  elseif(ABLATE_PCH AND is_torch AND NOT target STREQUAL "ablate_torch")
    target_precompile_headers(${target} REUSE_FROM ablate_torch)
  endif()
endfunction()

# For code where compile time matters more than speed, in the builds that optimise.
function(ablate_compile_lightly target)
  if(ABLATE_UNITY)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-O1>)
  endif()
endfunction()

# ablate_add_library(<name> STATIC|OBJECT [TORCH]
#   [SOURCES <glob>...] [EXCLUDE <regex>...] [PUBLIC <target>...] [PRIVATE <target>...])
# Sources default to *.cpp of the current folder; EXCLUDE matches file names.
function(ablate_add_library name kind)
  cmake_parse_arguments(PARSE_ARGV 2 arg "TORCH" "" "SOURCES;EXCLUDE;PUBLIC;PRIVATE")
  if(NOT arg_SOURCES)
    set(arg_SOURCES *.cpp)
  endif()
  list(TRANSFORM arg_SOURCES PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  file(GLOB sources CONFIGURE_DEPENDS ${arg_SOURCES})
  foreach(pattern IN LISTS arg_EXCLUDE)
    list(FILTER sources EXCLUDE REGEX "/${pattern}$")
  endforeach()

  set_property(GLOBAL PROPERTY ABLATE_DEPENDS_${name} ${arg_PUBLIC} ${arg_PRIVATE})
  if(NOT sources)
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE ${arg_PUBLIC})
    return()
  endif()
  add_library(${name} ${kind} ${sources})
  set_property(GLOBAL PROPERTY ABLATE_KIND_${name} ${kind})
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PUBLIC ${arg_PUBLIC} PRIVATE ${arg_PRIVATE})
  ablate_configure_target(${name} ${arg_TORCH})
endfunction()

# All OBJECT libraries reachable from the given targets.
function(ablate_object_closure out)
  set(open ${ARGN})
  set(seen "")
  set(objects "")
  while(open)
    list(POP_FRONT open target)
    if(target IN_LIST seen)
      continue()
    endif()
    list(APPEND seen ${target})
    get_property(kind GLOBAL PROPERTY ABLATE_KIND_${target})
    if(kind STREQUAL "OBJECT")
      list(APPEND objects ${target})
    endif()
    get_property(depends GLOBAL PROPERTY ABLATE_DEPENDS_${target})
    list(APPEND open ${depends})
  endwhile()
  set(${out} ${objects} PARENT_SCOPE)
endfunction()

# ablate_add_executable(<name> [TORCH] SOURCES <file>... DEPENDS <target>...)
function(ablate_add_executable name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "TORCH" "" "SOURCES;DEPENDS")
  add_executable(${name} ${arg_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  ablate_object_closure(objects ${arg_DEPENDS})
  target_link_libraries(${name} PRIVATE ${objects} ${arg_DEPENDS})
  ablate_configure_target(${name} ${arg_TORCH})
endfunction()

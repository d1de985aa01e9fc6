# cmake --install, the files by which others find ebb (installed, or in this build tree), and the Debian package.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(EBB_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/ebb)
install(TARGETS ebb EXPORT ebb-targets)
foreach(folder graph ops autograd models)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${folder} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/ebb
          FILES_MATCHING PATTERN "*.h" PATTERN models/ebb.h EXCLUDE)
endforeach()
install(FILES ${PROJECT_SOURCE_DIR}/models/ebb.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/ebb)

# The configuration names nothing but its own folder, so that one file serves in both places.
configure_file(${CMAKE_CURRENT_LIST_DIR}/ebb-config.cmake.in ${PROJECT_BINARY_DIR}/ebb-config.cmake @ONLY)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/ebb-config-version.cmake COMPATIBILITY SameMinorVersion)
export(EXPORT ebb-targets NAMESPACE ebb:: FILE ${PROJECT_BINARY_DIR}/ebb-targets.cmake)
install(EXPORT ebb-targets NAMESPACE ebb:: DESTINATION ${EBB_CMAKE_DIR})
install(FILES ${PROJECT_BINARY_DIR}/ebb-config.cmake ${PROJECT_BINARY_DIR}/ebb-config-version.cmake
        DESTINATION ${EBB_CMAKE_DIR})

# A static library is of no use without what it is made of, so plain --libs names that too.
set(dependencies " -lopenblas -lfmt -lz -pthread")
if(EBB_HDF5)
  list(JOIN HDF5_C_LIBRARIES " " hdf5)
  string(APPEND dependencies " ${hdf5}")
endif()
if(BUILD_SHARED_LIBS)
  set(EBB_PC_PRIVATE ${dependencies})
else()
  set(EBB_PC_LIBS ${dependencies})
endif()
# Relative, so that cmake --install --prefix may choose another place
file(RELATIVE_PATH EBB_PC_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" EBB_PC_PREFIX ${EBB_PC_PREFIX})
configure_file(${CMAKE_CURRENT_LIST_DIR}/ebb.pc.in ${PROJECT_BINARY_DIR}/ebb.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/ebb.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# The programs, and of those with sub-commands a man page and a bash completion from their own tables of options
foreach(program mnist bench gradcheck)
  if(NOT TARGET ${program})
    continue()
  endif()
  install(TARGETS ${program})
  if(BUILD_SHARED_LIBS)
    set_target_properties(${program} PROPERTIES INSTALL_RPATH $ORIGIN/../${CMAKE_INSTALL_LIBDIR})
  endif()
  if(CMAKE_CROSSCOMPILING OR program STREQUAL "gradcheck")  # has no sub-commands
    continue()
  endif()
  set(manual ${PROJECT_BINARY_DIR}/manual)
  add_custom_command(OUTPUT ${manual}/${program}.1 ${manual}/${program}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${manual}
    COMMAND ${program} --man > ${manual}/${program}.1
    COMMAND ${program} --bash-completion > ${manual}/${program}
    DEPENDS ${program} VERBATIM)
  add_custom_target(${program}_manual ALL DEPENDS ${manual}/${program}.1)
  install(FILES ${manual}/${program}.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  install(FILES ${manual}/${program} DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
endforeach()
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright)

include(${CMAKE_CURRENT_LIST_DIR}/package.cmake)

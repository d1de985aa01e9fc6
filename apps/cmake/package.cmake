# cpack -G DEB: one Debian package with the shared library, its headers and the programs. tests/package makes and tries it.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME ebb)
set(CPACK_PACKAGE_CONTACT "The ebb authors <root@localhost>" CACHE STRING "Maintainer of the package")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION "Values flow forward through a dynamic graph of primitive operations and
gradients flow back. With layers, optimizers and training, a checker of
gradients, and a program that trains classifiers of handwritten digits.")
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)  # from what the files are linked with
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "g++, libboost-graph-dev, graphviz")
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${CMAKE_CURRENT_LIST_DIR}/triggers)
set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_CURRENT_LIST_DIR}/package_files.cmake)
include(CPack)

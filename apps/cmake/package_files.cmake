# Run by cpack on what is to be packed: compressed man pages and a changelog, as Debian's policy asks.
set(root ${CPACK_TEMPORARY_INSTALL_DIRECTORY}${CPACK_PACKAGING_INSTALL_PREFIX})
set(doc ${root}/share/doc/ebb)
string(TIMESTAMP now "%a, %d %b %Y %H:%M:%S +0000" UTC)
file(WRITE ${doc}/changelog
  "ebb (${CPACK_PACKAGE_VERSION}) unstable; urgency=medium\n\n  * Built from the sources.\n\n -- ${CPACK_PACKAGE_CONTACT}  ${now}\n")
file(GLOB pages ${root}/share/man/man1/*.1 ${doc}/changelog)
execute_process(COMMAND gzip --best --no-name ${pages} COMMAND_ERROR_IS_FATAL ANY)

# What doxygen gets to read instead of a header: a comment in front of a line is not the end of the one behind the line above,
# and a comment on `double a = 0, b = 0;` is one on a and on b.
# A link of a page to another file has no page to lead to here: its text stays.
FILENAME ~ /[.]md$/ {
  line = $0
  while (match(line, /\[[^]\[]*\]\([A-Za-z0-9_\/.-]+[.](md|cpp|h|py|svg)\)/)) {
    link = substr(line, RSTART + 1, RLENGTH - 2)
    sub(/\].*/, "", link)
    line = substr(line, 1, RSTART - 1) link substr(line, RSTART + RLENGTH)
  }
  print line
  next
}
{
  line = $0
  if (line ~ /^ *\/\/\/ / && before ~ /\/\/\/</) sub(/\/\/\//, "/**/ ///", line)
  before = $0
  if ($0 ~ /^ *\/\/\/ /) {
    text = $0
    sub(/^ *\/\/\/ /, "", text)
    doc = doc " " text
  } else {
    if (match($0, /^ *(inline |static |constexpr |const )*[A-Za-z_:0-9<>]+ [A-Za-z_0-9]+( = [^,;(){}]+)?(, [A-Za-z_0-9]+( = [^,;(){}]+)?)+;/)) {
      names = substr($0, RSTART, RLENGTH)
      behind = substr($0, RSTART + RLENGTH)
      if (sub(/^ *\/\/\/< /, "", behind)) doc = behind
      match(names, /^ *(inline |static |constexpr |const )*[A-Za-z_:0-9<>]+ /)
      type = substr(names, RSTART, RLENGTH)
      count = split(substr(names, RSTART + RLENGTH, length(names) - RLENGTH - 1), name, /, /)
      line = ""
      for (i = 1; i <= count; ++i) line = line (doc == "" ? "" : "/** " doc " */ ") type name[i] ";"
    }
    doc = ""
  }
  print line
}

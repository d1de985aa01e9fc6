// The man page and the bash completion of a program, from what its commands tell parse() of themselves.
#include <fmt/core.h>

#include <algorithm>
#include <cctype>

#include <ebb/models/files/version.h>

#include "program.h"

namespace app {
namespace {

Synopsis synopsis_of(const Command& command) {
  try {
    command.run({describe});
  } catch (Synopsis& s) {
    return std::move(s);
  }
  throw std::logic_error(fmt::format("{} does not call parse() first", command.name));
}

bool takes_value(const po::option_description& option) { return option.semantic()->max_tokens() > 0; }

/// Text as roff shows it: no macro at the start of a line, no hyphen for a minus.
std::string roff(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if ((c == '.' || c == '\'') && (out.empty() || out.back() == '\n')) out += "\\&";
    if (c == '\\') out += "\\e";
    else if (c == '-') out += "\\-";
    else out += c;
  }
  return out;
}

std::string roff(const po::option_description& option) {
  std::string name = option.format_name();  // "--seed", or "-h [ --help ]"
  if (const std::size_t bracket = name.find(" [ "); bracket != std::string::npos)
    name = name.substr(0, bracket) + ", " + name.substr(bracket + 3, name.size() - bracket - 5);
  std::string value, text = option.description();
  std::ranges::replace(text, '\n', ' ');  // those fit the columns of --help
  if (takes_value(option)) {
    const std::string parameter = option.format_parameter();  // "arg", or "arg (=512)"
    value = " \\fIvalue\\fR";
    if (const std::size_t begin = parameter.find("(="); begin != std::string::npos) {
      const std::string standard = parameter.substr(begin + 2, parameter.rfind(')') - begin - 2);
      text += fmt::format(". Default: {}", standard.empty() ? "empty" : standard);
    }
  }
  return fmt::format(".TP\n\\fB{}\\fR{}\n{}\n", roff(name), value, roff(text));
}

std::string capital(std::string text) {
  text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
  return text;
}

std::string example(const std::string& text) { return text.empty() ? "" : ".PP\n.nf\n" + roff(text) + ".fi\n"; }

}  // namespace

std::string man_page(const std::string& name, const std::string& about, std::span<const Command> commands,
                     const std::string& examples) {
  std::string title = name;
  std::ranges::transform(title, title.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  std::string out = fmt::format(
      ".TH {0} 1 \"\" \"ebb {1}\" \"User Commands\"\n.SH NAME\n{2} \\- {3}\n.SH SYNOPSIS\n\\fB{2}\\fR \\fICOMMAND\\fR "
      "[\\fIOPTIONS\\fR]\n.SH COMMANDS\n",
      roff(title), ebb::version(), roff(name), roff(about));
  for (const Command& command : commands) {
    const Synopsis s = synopsis_of(command);
    out += fmt::format(".SS {}\n{}.\n", roff(s.usage), roff(capital(command.about)));
    for (const auto& option : s.options.options()) out += roff(*option);
    out += example(s.examples);
  }
  return out + ".SH EXAMPLES AND EXIT CODES\n.nf\n" + roff(examples) + ".fi\n";
}

std::string bash_completion(const std::string& name, std::span<const Command> commands) {
  std::string names, cases;
  for (const Command& command : commands) {
    const Synopsis s = synopsis_of(command);
    std::string options, valued = "none";
    for (const auto& option : s.options.options()) {
      options += fmt::format("--{} ", option->long_name());
      if (takes_value(*option)) valued += fmt::format("|--{}", option->long_name());
    }
    names += fmt::format("{} ", command.name);
    cases += fmt::format("    {}) options='{}' valued='^({})$' file='{}' ;;\n", command.name, options, valued,
                         s.takes_file ? "yes" : "");
  }
  return fmt::format(R"(# bash completion for {0}: commands, then options; file names for their values and for models
_{0}() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} options='' valued='' file=''
  COMPREPLY=()
  if [ "$COMP_CWORD" = 1 ]; then
    mapfile -t COMPREPLY < <(compgen -W '{1}--help --version' -- "$word")
    return
  fi
  case ${{COMP_WORDS[1]}} in
{2}  esac
  if [[ $word == -* || ( -z $word && -z $file && ! $before =~ $valued ) ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
  fi
}}
complete -o default -F _{0} {0}
)",
                     name, names, cases);
}

}  // namespace app

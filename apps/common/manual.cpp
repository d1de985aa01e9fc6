// The man page, the bash completion and the table of defaults of a program, from its table of commands.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include <ebb/models/files/version.h>

#include "program.h"

namespace app {
namespace {

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
    value = " \\fIvalue\\fR";
    if (const std::string standard = default_of(option); !standard.empty())
      text += fmt::format(". Default: {}", standard);
  }
  return fmt::format(".TP\n\\fB{}\\fR{}\n{}\n", roff(name), value, roff(text));
}

std::string page_of(const Command& c) {
  std::string out = roff(text_of(c));
  const po::options_description options = options_of(c);
  for (const auto& option : options.options()) out += roff(*option);
  return out + (*c.examples ? ".PP\nExamples:\n.nf\n" + roff(c.examples) + ".fi\n" : std::string());
}

}  // namespace

std::string man_page(const Program& p) {
  std::string title = p.name;
  std::ranges::transform(title, title.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  std::string out = fmt::format(".TH {} 1 \"\" \"ebb {}\" \"User Commands\"\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n",
                                roff(title), ebb::version(), roff(p.name), roff(p.about));
  if (p.is_one_command()) {
    out += fmt::format("\\fB{}\\fR [\\fIOPTIONS\\fR]\n.SH DESCRIPTION\n{}", roff(p.name), page_of(p.commands[0]));
  } else {
    out += fmt::format("\\fB{}\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR]\n.SH COMMANDS\n", roff(p.name));
    for (const Command& c : p.commands) out += fmt::format(".SS {}\n{}", roff(usage_of(p, c)), page_of(c));
    out += ".SH EXAMPLES\n.nf\n" + roff(p.examples) + ".fi\n";
  }
  return out + ".SH EXIT STATUS\n" + roff(p.exit_codes);
}

std::string bash_completion(const Program& p) {
  std::string names, cases;
  for (const Command& command : p.commands) {
    std::string options, valued = "none", choices;
    const po::options_description all = options_of(command);
    for (const auto& option : all.options()) {
      options += fmt::format("--{} ", option->long_name());
      if (takes_value(*option)) valued += fmt::format("|--{}", option->long_name());
      if (const Rule* rule = rule_of(*option); rule && !rule->choices.empty())
        choices += fmt::format("      --{}) choices='{}' ;;\n", option->long_name(), fmt::join(rule->choices, " "));
    }
    names += fmt::format("{} ", command.name);
    cases += fmt::format("    {}) options='{}' valued='^({})$' file='{}'\n", command.name, options, valued,
                         command.files > 0 ? "yes" : "");
    if (!choices.empty()) cases += fmt::format("      case $before in\n{}      esac\n", choices);
    cases += "      ;;\n";
  }
  return fmt::format(R"(# bash completion for {0}: commands, then options; names that an option takes, and file names
_{0}() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} options='' valued='' file='' choices=''
  local command={3}
  COMPREPLY=()
  if [ "$COMP_CWORD" = 1 ] && [ "$command" != {0} ]; then
    mapfile -t COMPREPLY < <(compgen -W '{1}help --help --version' -- "$word")
    return
  fi
  case $command in
    help) mapfile -t COMPREPLY < <(compgen -W '{1}' -- "$word"); return ;;
{2}  esac
  if [ -n "$choices" ]; then
    mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$word")
  elif [[ $word == -* || ( -z $word && -z $file && ! $before =~ $valued ) ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
  fi
}}
complete -o default -F _{0} {0}
)",
                     p.name, names, cases, p.is_one_command() ? p.name : "${COMP_WORDS[1]}");
}

std::string table_of_defaults(const Program& p) {
  std::string out;
  for (const Command& c : p.commands) {
    const po::options_description options = options_of(c);
    for (const auto& option : options.options()) {
      const Rule* rule = rule_of(*option);
      out += fmt::format("{} {} --{}", p.name, c.name, option->long_name());
      if (takes_value(*option))
        out += fmt::format(" {}: {}", default_of(*option).empty() ? "(none)" : default_of(*option),
                           rule ? rule->rule : "text");
      out += '\n';
    }
  }
  return out;
}

}  // namespace app

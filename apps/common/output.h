// What a program says, and how it ends: results, notes, errors, exit code.
#pragma once
#include <fmt/core.h>

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace app {

namespace detail {
void print(std::string_view text);
void note(std::string_view text);
}  // namespace detail

/// Results, on standard output. What cannot be written is an error, but one that end_program() reports: the work goes
/// on, and what it saves is safe by then.
template <class... T>
void print(fmt::format_string<T...> text, T&&... values) {
  detail::print(fmt::format(text, std::forward<T>(values)...));
}
/// Shows them now, to who reads them line by line.
void flush_results();

/// Progress, notes and warnings, on standard error. What cannot be written is lost.
template <class... T>
void note(fmt::format_string<T...> text, T&&... values) {
  detail::note(fmt::format(text, std::forward<T>(values)...));
}

/// To be called with the name of a file before it is written: if it is standard output (/dev/stdout, of a pipe or a
/// file), results go to standard error from here on. They would end up in the file.
void keep_results_apart(const std::string& file);

/// First of all in main(): standard streams that are closed are taken, so that no file that is opened later becomes one
/// of them and gets what is written there; a reader that went away and a file at its limit are errors like any other,
/// not signals; and an exception that nobody can catch any more ends the program like one that is caught, by
/// failed_program().
void begin_program(const char* name);
/// The exit code of a program that did what it was asked for: `code`, but 1 with a line on standard error where results
/// could not be written.
int end_program(const char* name, int code);
/// The exit code after an exception, to be called where it was caught: says in one line what is wrong, also when there
/// is no memory. After a UsageError it says to try `help`, such as "mnist train --help".
int failed_program(const char* name, std::initializer_list<std::string_view> help);

}  // namespace app

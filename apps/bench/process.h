// Programs run beside this one, a line at a time.
#pragma once
#include <sys/types.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace bench {

/// A child with pipes on its standard input and output; its errors go where ours go. Killed if still there at the end.
class Child {
 public:
  /// `environment` is added to ours. Throws std::runtime_error when it cannot be started.
  Child(std::vector<std::string> command, const std::map<std::string, std::string>& environment = {});
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void say(const std::string& line);
  /// Its next line; throws std::runtime_error, naming the command, when it ends instead or says nothing for ten
  /// minutes.
  std::string line();
  /// No more lines for it.
  void hang_up();
  /// Waits for its end and throws std::runtime_error unless it exits with 0.
  void finish();

 private:
  int wait();
  std::string shown_, pending_;
  pid_t pid_ = 0;
  int in_ = -1, out_ = -1;
};

/// Runs a program to its end, its output on our standard error. Throws std::runtime_error unless it exits with 0.
void run_to_end(std::vector<std::string> command);
/// Where this program is.
std::filesystem::path this_program();

}  // namespace bench

// The sub-commands of bench, and what they share.
#pragma once
#include <string>
#include <vector>

#include "program.h"
#include "workloads.h"

namespace bench {

int train(const std::vector<std::string>& args);
int infer(const std::vector<std::string>& args);
int step(const std::vector<std::string>& args);
int ops(const std::vector<std::string>& args);  // where Google Benchmark was found (EBB_BENCH_OPS)
int roofline(const std::vector<std::string>& args);
int compare(const std::vector<std::string>& args);

/// --model, or --arch, --optimizer and --batch; --seed.
app::po::options_description workload_options(const std::string& default_model);
/// The workload of a table's name, changed by what else was given. Throws app::UsageError.
Workload workload_from(const app::po::variables_map& values);

/// "1,2" as numbers of threads. Throws app::UsageError.
std::vector<int> thread_list(const std::string& text);

/// Random pixels and classes, for what needs no real digits.
ebb::Dataset random_digits(std::int64_t n);
/// Seconds of an epoch over `data`, from about so many seconds of training after a short warm-up.
double epoch_seconds(const Workload& w, const ebb::Dataset& data, double seconds);

/// An option's value; throws app::UsageError when it is out of range.
template <class T>
T number(const app::po::variables_map& v, const char* name, T low, T high) {
  const T n = v[name].as<T>();
  if (!(n >= low && n <= high))
    throw app::UsageError("--" + std::string(name) + " must be " + std::to_string(low) + " to " + std::to_string(high) +
                          ", got " + std::to_string(n));
  return n;
}

}  // namespace bench

// The sub-commands of bench, and what they share.
#pragma once
#include <string>
#include <vector>

#include <ebb/models/data/dataset.h>

#include "program.h"
#include "workloads.h"

namespace bench {

// ops_command where Google Benchmark was found (EBB_BENCH_OPS)
extern const app::Command train_command, infer_command, step_command, ops_command, roofline_command, compare_command;

/// --model, or --arch, --optimizer and --batch; --seed.
app::po::options_description workload_options();
/// The workload of a table's name, changed by what else was given. Throws app::UsageError.
Workload workload_from(const app::po::variables_map& values);

/// "1,2" as numbers of threads. Throws app::UsageError.
std::vector<int> thread_list(const std::string& text);

/// Random pixels and classes, for what needs no real digits.
ebb::Dataset random_digits(std::int64_t n);
/// Seconds of an epoch over `data`, from about so many seconds of training after a short warm-up.
double epoch_seconds(const Workload& w, const ebb::Dataset& data, double seconds);

}  // namespace bench

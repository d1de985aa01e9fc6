// mnist reproduce: the runs of the notebooks (notebooks.h), trained again and compared.
#include <fmt/core.h>

#include <fcntl.h>
#include <sys/file.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <stdexcept>

#include <ebb/graph/names.h>
#include <ebb/models/data/mnist.h>
#include <ebb/models/files/atomic_file.h>
#include <ebb/models/files/version.h>
#include <ebb/models/train.h>
#include <ebb/models/train/finite.h>
#include <ebb/models/train/progress.h>
#include <ebb/ops/kernels/threads.h>

#include "command.h"
#include "notebooks.h"
#include "reproduce_table.h"
#include "signals.h"

namespace mnist {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

po::options_description reproduce_options() {
  return joined(
      {app::option_group(
           "Runs",
           {
               {"run", text(), "only these runs, such as N2-2 or N4-1,N4-2"},
               {"seeds", number(5, 1, 1000), "repeat each run with the seeds 1 to N (the 100-epoch runs: only with 1)"},
               {"as-written", "where a notebook does not do what it says: only what it does"},
               {"as-meant", "the same: only what it says"},
               {"quick", "two epochs of 2,000 digits: tries everything, compares nothing"},
               {"list", "list the runs and what is published of them"},
           }),
       data_options(),
       app::option_group("Output", {
                                       {"out", text("reproduced"),
                                        "folder of results.json and results.csv; runs that it holds are not repeated"},
                                       {"force", "forget what the folder holds"},
                                       {"markdown", "print the table as Markdown"},
                                       {"json", "print results.json instead of the table"},
                                       {"quiet", "no progress on standard error"},
                                   })});
}

/// The runs that the options ask for, in the order of the table.
std::vector<Experiment> chosen(const po::variables_map& v) {
  std::vector<std::string> wanted, ids, notebooks{"all"};
  for (const Experiment& e : experiments()) {
    ids.push_back(e.id);
    if (const std::string n = e.id.substr(0, 2); n != notebooks.back()) notebooks.push_back(n);
  }
  const auto expect = [](const std::string& name, const std::vector<std::string>& known, const char* what) {
    if (std::ranges::find(known, name) != known.end()) return;
    const std::string guess = ebb::detail::nearest(name, known);
    throw UsageError(fmt::format("unknown {} \"{}\"; {}", what, name,
                                 guess.empty() ? "--list shows them" : fmt::format("did you mean {}?", guess)));
  };
  const std::vector<std::string> books = words(file_of(v).empty() ? "all" : file_of(v));
  for (const std::string& b : books) expect(b, notebooks, "notebook");
  if (v.count("run")) {
    wanted = words(v["run"].as<std::string>());
    for (const std::string& id : wanted) expect(id, ids, "run");
  }
  const bool written = v.count("as-written") > 0, meant = v.count("as-meant") > 0;
  if (written && meant) throw UsageError("give either --as-written or --as-meant; without them both are run");
  const auto in = [](const std::string& name, const std::vector<std::string>& list) {
    return std::ranges::find(list, name) != list.end();
  };
  std::vector<Experiment> out;
  for (const Experiment& e : experiments()) {
    if (!in("all", books) && !in(e.id.substr(0, 2), books)) continue;
    if (!wanted.empty() && !in(e.id, wanted)) continue;
    if ((written && e.reading == Reading::as_meant) || (meant && e.reading == Reading::as_written)) continue;
    out.push_back(e);
  }
  if (out.empty()) throw UsageError("no run is both in these notebooks and of this reading; --list shows them all");
  return out;
}

/// The digits in the three forms that the notebooks use.
class Data {
 public:
  Data(const ebb::Mnist& digits, bool quick) : digits_(digits), quick_(quick) {}
  /// Training and test data; no test data for the whole table.
  std::pair<ebb::Dataset, std::optional<ebb::Dataset>> of(const Experiment& e) {
    const double scale = e.scaled ? 1.0 / 255 : 1.0;
    if (e.source == Source::split)
      return {cut(digits_.train.scaled(scale), 2000), cut(digits_.test.scaled(scale), 1000)};
    if (e.source == Source::table) {
      if (!table_) table_ = digits_.all();
      return {cut(table_->scaled(scale), 2000), std::nullopt};
    }
    if (!seventh_) seventh_ = digits_.split_anew({.test_size = 1.0 / 7, .seed = 0});
    return {cut(seventh_->train.scaled(scale), 2000), cut(seventh_->test.scaled(scale), 1000)};
  }

 private:
  ebb::Dataset cut(const ebb::Dataset& d, std::int64_t n) const {
    return quick_ ? d.slice(0, std::min(n, d.size())) : d;
  }
  const ebb::Mnist& digits_;
  bool quick_;
  std::optional<ebb::Digits> table_;
  std::optional<ebb::Mnist> seventh_;
};

/// A network after its run, for the run that continues it.
struct Trained {
  std::string id;
  ebb::Sequential net;
  std::shared_ptr<ebb::Optimizer> optimizer;
};

std::shared_ptr<ebb::Optimizer> optimizer_of(const Experiment& e) {
  if (e.optimizer == "adam") return std::make_shared<ebb::Adam>();
  if (e.optimizer == "sgd") return std::make_shared<ebb::SGD>();
  // All notebooks are older than Keras 3, whose epsilon moved into the root.
  return std::make_shared<ebb::RMSprop>(ebb::RMSpropOptions{.epsilon_inside_sqrt = false});
}

struct Settings {
  bool quick, quiet;
  int epochs(const Experiment& e) const { return quick ? std::min(2, e.epochs) : e.epochs; }
};

const Experiment& experiment(const std::string& id) { return *std::ranges::find(experiments(), id, &Experiment::id); }

/// One run with one seed. `last` is what the seed's previous run left; the record is empty when a signal
/// came.
Json train_once(const Experiment& e, int seed, Data& data, const Settings& settings, std::optional<Trained>& last) {
  const auto digits = data.of(e);
  const ebb::Dataset& train = digits.first;
  const std::optional<ebb::Dataset>& test = digits.second;
  std::uint64_t fit_seed = static_cast<std::uint64_t>(seed);
  Trained now{e.id, {}, optimizer_of(e)};
  if (e.continues.empty()) {
    ebb::manual_seed(static_cast<std::uint64_t>(seed));
    now.net = build_network(e.architecture);
  } else {
    if (!last || last->id != e.continues) {  // its record is there from before, its weights are not
      if (!settings.quiet) app::note("{} seed {}: {} again, which it continues\n", e.id, seed, e.continues);
      if (train_once(experiment(e.continues), seed, data, settings, last).is_null()) return {};
    }
    now.net = last->net;
    if (e.keeps_optimizer) now.optimizer = last->optimizer;
    for (const Experiment* from = &e; !from->continues.empty(); from = &experiment(from->continues))
      fit_seed += 1000;  // another order
  }
  ebb::FitOptions o{.epochs = settings.epochs(e),
                    .batch = e.batch,
                    .validation_split = e.validation_split,
                    .seed = fit_seed,
                    .verbose = ebb::Verbose::silent,
                    .interrupted = [] { return caught_signal() != 0; }};
  if (e.validation_split == 0) o.validation = test;
  if (e.patience >= 0) o.callbacks.emplace_back(ebb::EarlyStopping({.patience = e.patience}));
  if (!settings.quiet)
    o.callbacks.emplace_back([&](ebb::TrainingState& s) {
      app::note("{} seed {}: epoch {}/{}, loss {}, accuracy {:.4f}, val_loss {}, val_accuracy {:.4f}\n", e.id, seed,
                s.epoch + 1, s.epochs, ebb::format_metric(s.logs["loss"]), s.logs["accuracy"],
                ebb::format_metric(s.logs["val_loss"]), s.logs["val_accuracy"]);
    });
  const ebb::History h = ebb::fit(now.net, *now.optimizer, train, o);
  if (h.interrupted) return {};
  std::string bad = ebb::not_finite(now.net);
  for (const auto& [name, values] : h.values)  // JSON has no such numbers
    if (bad.empty() && !std::isfinite(values.back())) bad = fmt::format("the {} became {}", name, values.back());
  if (!bad.empty()) throw std::runtime_error(fmt::format("{} seed {}: {}", e.id, seed, bad));
  Json record{{"run", e.id},
              {"seed", seed},
              {"quick", settings.quick},
              {"epochs", h.epochs()},
              {"samples", train.size()},
              {"seconds_per_epoch", std::accumulate(h.seconds.begin(), h.seconds.end(), 0.0) / std::max(1, h.epochs())},
              {"threads", ebb::threads()},
              {"parameters", ebb::parameter_count(now.net)},
              {"train", {{"loss", h["loss"].back()}, {"accuracy", h["accuracy"].back()}}},
              {"validation", {{"loss", h["val_loss"].back()}, {"accuracy", h["val_accuracy"].back()}}}};
  if (test) {
    const ebb::Metrics m = ebb::evaluate(now.net, *test);
    record["test"] = {{"loss", m.loss}, {"accuracy", m.accuracy}};
  }
  record["history"] = h.values;
  last = std::move(now);
  return record;
}

/// The records of a folder, read and written as a whole.
class Results {
 public:
  Results(fs::path folder, bool fresh) : folder_(std::move(folder)) {
    std::error_code error;
    fs::create_directories(folder_, error);
    if (error) throw ebb::IoError(fmt::format("{}: cannot create the folder: {}", folder_.string(), error.message()));
    // Two programs that write the same records would lose some of each other's.
    lock_ = ::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock_ >= 0 && ::flock(lock_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
      throw ebb::IoError(
          fmt::format("{}: another mnist reproduce is writing to this folder; wait for it, or give another --out",
                      folder_.string()));
    check_output(file(), true);
    check_output(csv(), fresh || fs::exists(file(), error));
    std::ifstream in(file());
    if (!in || fresh) return;
    const Json all = Json::parse(in, nullptr, false);
    const bool ours = all.is_object() && all.contains("runs") && all["runs"].is_array();
    if (!ours)
      throw ebb::DataError(fmt::format(
          "{}: not written by mnist reproduce: expected JSON with a list \"runs\", found {}; {}", file().string(),
          all.is_discarded() ? "no JSON, or a part of it"
          : all.is_object()  ? "an object without one"
                             : all.type_name(),
          two_ways));
    records_ = all["runs"];
    for (const Json& r : records_) check(r);
  }
  fs::path file() const { return folder_ / "results.json"; }
  fs::path csv() const { return folder_ / "results.csv"; }
  const Json* find(const std::string& run, int seed, bool quick) const {
    for (const Json& r : records_)
      if (matches(r, run, seed, quick)) return &r;
    return nullptr;
  }
  void add(Json record) {
    records_.push_back(std::move(record));
    ebb::write_atomically(file(), text());
    std::string table =
        "run,seed,quick,epochs,seconds_per_epoch,train_loss,train_accuracy,val_loss,val_accuracy,test_loss,"
        "test_accuracy\n";
    for (const Json& r : records_) {
      table += fmt::format("{},{},{},{},{}", r["run"].get<std::string>(), r["seed"].get<int>(), r["quick"].get<bool>(),
                           r["epochs"].get<int>(), r["seconds_per_epoch"].get<double>());
      for (const char* part : {"train", "validation", "test"})
        table += r.contains(part)
                     ? fmt::format(",{},{}", r[part]["loss"].get<double>(), r[part]["accuracy"].get<double>())
                     : ",,";
      table += '\n';
    }
    ebb::write_atomically(csv(), table);
  }
  std::string text() const { return Json{{"version", ebb::version()}, {"runs", records_}}.dump(1) + "\n"; }

 private:
  static constexpr const char* two_ways = "another --out leaves it, --force overwrites it";
  /// That a record has what is read of it. Throws DataError.
  void check(const Json& r) const {
    const auto place = fmt::format("{}: run {}", file().string(), &r - &records_[0] + 1);
    const auto expect = [&](const Json& in, const std::string& name, bool right, const char* what) {
      if (!right)
        throw ebb::DataError(fmt::format("{}: {}: expected {}{}; {}", place, name, what,
                                         in.contains(name) ? "" : ", found none", two_ways));
    };
    const auto has = [](const Json& in, const char* name, auto is) {
      return in.is_object() && in.contains(name) && is(in[name]);
    };
    const auto number = [](const Json& j) { return j.is_number(); };
    const auto whole = [](const Json& j) { return j.is_number_integer(); };
    expect(r, "run", has(r, "run", [](const Json& j) { return j.is_string(); }), "a text");
    expect(r, "quick", has(r, "quick", [](const Json& j) { return j.is_boolean(); }), "true or false");
    for (const char* name : {"seed", "epochs"}) expect(r, name, has(r, name, whole), "a whole number");
    expect(r, "seconds_per_epoch", has(r, "seconds_per_epoch", number), "a number");
    for (const char* part : {"train", "validation", "test"}) {
      if (part == std::string("test") && !r.contains(part)) continue;  // not every run has one
      for (const char* name : {"loss", "accuracy"})
        expect(r, fmt::format("{} {}", part, name), r.contains(part) && has(r[part], name, number), "a number");
    }
  }
  static bool matches(const Json& r, const std::string& run, int seed, bool quick) {
    return r.at("run") == run && r.at("seed") == seed && r.at("quick") == quick;
  }
  fs::path folder_;
  int lock_ = -1;  ///< the folder, locked as long as the program runs
  Json records_ = Json::array();
};

int run_reproduce(Values& v) {
  const std::vector<Experiment> runs = chosen(v);
  const Settings settings{v.count("quick") > 0, v.count("quiet") > 0};
  const int seeds = v["seeds"].as<int>();
  if (v.count("list")) {
    for (const Experiment& e : runs)
      app::print("{:<20} {:<44} val {:<18} test {}\n", e.id, e.about, score(e.validation.loss, e.validation.accuracy),
                 score(e.test.loss, e.test.accuracy));
    return ok;
  }
  use_threads(v);
  Results results(v["out"].as<std::string>(), v.count("force") > 0);
  const ebb::Mnist digits = load_data(v);
  Data data(digits, settings.quick);
  catch_signals();
  for (int seed = 1; seed <= seeds && !caught_signal(); ++seed) {
    std::optional<Trained> last;
    for (const Experiment& e : runs) {
      if ((e.one_seed && seed > 1) || results.find(e.id, seed, settings.quick)) continue;
      Json record = train_once(e, seed, data, settings, last);
      if (record.is_null()) break;  // a signal came; one that came after the run loses nothing of it
      const double accuracy = record["validation"]["accuracy"].get<double>();
      const int epochs = record["epochs"].get<int>();
      results.add(std::move(record));
      if (!settings.quiet) app::note("{} seed {}: {:.4f} after {} epochs\n", e.id, seed, accuracy, epochs);
      if (caught_signal()) break;
    }
  }
  end_on_signals();
  if (v.count("json")) {
    app::print("{}", results.text());
  } else {
    std::vector<std::vector<std::string>> rows{{"run", "what", "data", "published", "ours (median)",
                                                "accuracy of the seeds", "points", "epochs", "s/epoch", "in band"}};
    for (const Experiment& e : runs) {
      std::vector<const Json*> records;
      for (int seed = 1; seed <= seeds; ++seed)
        if (const Json* r = results.find(e.id, seed, settings.quick)) records.push_back(r);
      for (auto& row : rows_of(e, records, settings.quick)) rows.push_back(std::move(row));
    }
    app::print("{}", table(rows, v.count("markdown") > 0));
  }
  if (!caught_signal()) return ok;
  if (!settings.quiet)
    app::note("interrupted; the same command goes on with the runs that are missing from {}\n",
              results.file().string());
  return 128 + caught_signal();
}

}  // namespace

const app::Command reproduce_command{
    .name = "reproduce",
    .about = "train the runs of five published notebooks and compare",
    .arguments = "[all | N1,N2,N3,N4,N5] [OPTIONS]",
    .description =
        "The notebooks are listed in apps/mnist/RESULTS.md. After an interruption the\n"
        "same command trains only the runs that are missing.\n",
    .examples =
        "  mnist reproduce N2 --run N2-2 --seeds 1\n"
        "  mnist reproduce all --out results --markdown > table.md\n",
    .options = reproduce_options,
    .run = run_reproduce,
    .files = 1,
};

}  // namespace mnist

#include "results.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "measure.h"

namespace bench {
namespace {

/// Three significant digits.
std::string short_number(double x) {
  const int before = x >= 1 ? static_cast<int>(std::log10(x)) + 1 : 0;
  return fmt::format("{:.{}f}", x, std::clamp(3 - before, 0, 3));
}

std::string with_range(const std::vector<double>& values) {
  const Range r = range(values);
  return fmt::format("{} ({}..{})", short_number(r.middle), short_number(r.low), short_number(r.high));
}

double rate(double seconds_per_sample) { return 1 / seconds_per_sample; }

const Cell* find(const std::vector<Cell>& cells, const std::string& workload, std::int64_t batch, int threads) {
  const auto it = std::ranges::find_if(cells, [&](const Cell& c) {
    return c.workload.name == workload && c.workload.batch == batch && c.threads == threads;
  });
  return it == cells.end() ? nullptr : &*it;
}

/// The first cells that have a workload and batch, in order.
std::vector<const Cell*> first_of_each(const std::vector<Cell>& cells) {
  std::vector<const Cell*> out;
  for (const Cell& c : cells)
    if (std::ranges::none_of(out, [&](const Cell* o) {
          return o->workload.name == c.workload.name && o->workload.batch == c.workload.batch;
        }))
      out.push_back(&c);
  return out;
}

std::vector<int> thread_counts(const std::vector<Cell>& cells) {
  std::vector<int> out;
  for (const Cell& c : cells)
    if (std::ranges::find(out, c.threads) == out.end()) out.push_back(c.threads);
  return out;
}

const Learned* learned(const Run& run, const std::string& workload) {
  const auto it = std::ranges::find(run.learned, workload, &Learned::workload);
  return it == run.learned.end() ? nullptr : &*it;
}

std::string threads_text(int n) { return fmt::format("{} thread{}", n, n == 1 ? "" : "s"); }

/// What the tables call the two programs.
const char* our_name(const Run& run) { return run.against_torch ? "ebb" : "this build"; }
const char* peer_name(const Run& run) { return run.against_torch ? "LibTorch" : "other build"; }
/// The times of the peer, and in which of its configurations; another build has only one.
std::string with_range(const Run& run, const Measured& peer) {
  return with_range(peer.seconds) + (run.against_torch ? " " + peer.name : "");
}

std::string heading(const Run& run) {
  return fmt::format("{}; {}; {} against {}.{}{}\n", run.date, run.processor, run.ours, run.peer,
                     run.notes.empty() ? "" : " ", run.notes);
}

}  // namespace

bool Learned::equal() const {
  const Range a = range(ours), b = range(peer);
  const auto within = [](const Range& r, double x) { return r.low <= x && x <= r.high; };
  return std::abs(a.middle - b.middle) <= 0.01 || (within(a, b.middle) && within(b, a.middle)) ||
         std::max(a.middle, b.middle) < 0.15;
}

Range range(const std::vector<double>& values) {
  const auto [low, high] = std::ranges::minmax(values);
  return {low, median(values), high};
}

const Measured& best_peer(const Cell& cell) {
  if (cell.peers.empty()) throw std::logic_error("best_peer: no peer was measured");
  return *std::ranges::min_element(cell.peers, {}, [](const Measured& m) { return median(m.seconds); });
}

Range ratio(const Cell& cell) {
  const Measured& peer = best_peer(cell);
  std::vector<double> each;
  for (std::size_t i = 0; i < std::min(peer.seconds.size(), cell.ours.seconds.size()); ++i)
    each.push_back(peer.seconds[i] / cell.ours.seconds[i]);
  Range r = range(each);
  r.middle = median(peer.seconds) / median(cell.ours.seconds);
  return r;
}

double least(const Cell& cell) { return cell.threads == 1 ? cell.workload.least_1 : cell.workload.least_2; }

std::string text_table(const Run& run) {
  std::string out = heading(run);
  if (!run.training.empty()) {
    const bool held = run.against_torch;
    out += fmt::format(
        "\nTraining, seconds per epoch of {} samples: median (min..max); ratio: {}{} / {}, by rounds in brackets\n\n",
        run.samples, peer_name(run), held ? " at its best" : "", our_name(run));
    out += fmt::format("{:<13}{:>3}  {:<22}{:<32}{:<20}{} {:>6}  {:>11}  {:>11}\n", "workload", "thr", our_name(run),
                       peer_name(run), "ratio", held ? fmt::format("{:>6} {:>5}", "least", "") : "", "limit", "MB",
                       "first step");
    for (const Cell& c : run.training) {
      const Range r = ratio(c);
      const Measured& peer = best_peer(c);
      out += fmt::format("{:<13}{:>3}  {:<22}{:<32}{:<20}{} {:>6}  {:>11}  {:>11}\n", c.workload.name, c.threads,
                         with_range(c.ours.seconds), with_range(run, peer),
                         fmt::format("{:.2f} ({:.2f}..{:.2f})", r.middle, r.low, r.high),
                         held ? fmt::format("{:>6.2f} {:>5}", least(c), r.middle >= least(c) ? "yes" : "NO") : "",
                         c.limit > 0 ? fmt::format("{:.2f}", median(c.ours.seconds) / c.limit) : "",
                         fmt::format("{:.0f} / {:.0f}", median(c.ours.memory_mb), median(peer.memory_mb)),
                         fmt::format("{:.2f} / {:.2f}", median(c.ours.first_step), median(peer.first_step)));
    }
    const std::vector<int> threads = thread_counts(run.training);
    if (threads.size() == 2) {
      out += fmt::format("\n{:<13}{:>16}{:>12}   speed with {} over {}\n", "workload", our_name(run), peer_name(run),
                         threads_text(threads[1]), threads[0]);
      for (const Cell* c : first_of_each(run.training)) {
        const Cell *one = find(run.training, c->workload.name, c->workload.batch, threads[0]),
                   *two = find(run.training, c->workload.name, c->workload.batch, threads[1]);
        if (one && two)
          out += fmt::format("{:<13}{:>16.2f}{:>12.2f}\n", c->workload.name,
                             median(one->ours.seconds) / median(two->ours.seconds),
                             median(best_peer(*one).seconds) / median(best_peer(*two).seconds));
      }
    }
  }
  if (!run.learned.empty()) {
    const auto accuracy = [](const std::vector<double>& values) {
      const Range r = range(values);
      return fmt::format("{:.4f} ({:.4f}..{:.4f})", r.middle, r.low, r.high);
    };
    out += fmt::format("\n{:<13}{:>6}{:>6}  {:<26}{:<10}{:<26}{}\n", "workload", "epochs", "seeds",
                       fmt::format("accuracy: {}", our_name(run)), "loss", peer_name(run), "loss");
    for (const Learned& l : run.learned)
      out += fmt::format("{:<13}{:>6}{:>6}  {:<26}{:<10.4f}{:<26}{:<10.4f}{}\n", l.workload, l.epochs, l.ours.size(),
                         accuracy(l.ours), median(l.our_loss), accuracy(l.peer), median(l.peer_loss),
                         l.equal() ? "equal" : "NOT EQUAL");
  }
  if (!run.inference.empty()) {
    out += fmt::format("\nInference, samples per second\n\n{:<13}{:>6}{:>4}{:>12}{:>12}  {:<14}{}\n", "workload",
                       "batch", "thr", our_name(run), peer_name(run), "", "ratio");
    for (const Cell& c : run.inference) {
      const Range r = ratio(c);
      const Measured& peer = best_peer(c);
      out += fmt::format("{:<13}{:>6}{:>4}{:>12.0f}{:>12.0f}  {:<14}{:.2f} ({:.2f}..{:.2f})\n", c.workload.name,
                         c.workload.batch, c.threads, rate(median(c.ours.seconds)), rate(median(peer.seconds)),
                         run.against_torch ? peer.name : "", r.middle, r.low, r.high);
    }
  }
  return out;
}

std::string markdown_table(const Run& run) {
  std::string out = heading(run) + "\n";
  if (!run.training.empty()) {
    const std::vector<int> threads = thread_counts(run.training);
    out += fmt::format(
        "Training: seconds per epoch of {} digits, median (min..max) of {} interleaved rounds; ratio: {} over {}.\n\n",
        run.samples, run.training[0].ours.seconds.size(),
        run.against_torch ? "LibTorch's best configuration" : "the other build", our_name(run));
    out += "| workload |";
    std::string rule = "|---|";
    for (const int t : threads) {
      out += fmt::format(" {}, {} | {} | ratio (rounds){} | times the limit |", our_name(run), threads_text(t),
                         peer_name(run), run.against_torch ? ", held to" : "");
      rule += "---|---|---|---|";
    }
    if (threads.size() == 2) {
      out += fmt::format(" {} over {} |", threads_text(threads[1]), threads[0]);
      rule += "---|";
    }
    out += fmt::format(" MB: {}, {} | first step, s |", our_name(run), peer_name(run));
    rule += "---|---|";
    if (!run.learned.empty()) {
      const Learned& l = run.learned[0];
      out += fmt::format(" test accuracy after {} epoch{}, median of {} seed{} |", l.epochs, l.epochs == 1 ? "" : "s",
                         l.ours.size(), l.ours.size() == 1 ? "" : "s");
      rule += "---|";
    }
    out += "\n" + rule + "\n";
    for (const Cell* first : first_of_each(run.training)) {
      const std::string& name = first->workload.name;
      out += fmt::format("| {} |", name);
      for (const int t : threads) {
        const Cell* c = find(run.training, name, first->workload.batch, t);
        if (!c) {
          out += " | | | |";
          continue;
        }
        const Measured& peer = best_peer(*c);
        const Range r = ratio(*c);
        out += fmt::format(" {} | {} | **{:.2f}** ({:.2f}..{:.2f}){} | {} |", with_range(c->ours.seconds),
                           with_range(run, peer), r.middle, r.low, r.high,
                           run.against_torch ? fmt::format(", {:.2f}", least(*c)) : "",
                           c->limit > 0 ? fmt::format("{:.2f}", median(c->ours.seconds) / c->limit) : "");
      }
      if (threads.size() == 2) {
        const Cell *one = find(run.training, name, first->workload.batch, threads[0]),
                   *two = find(run.training, name, first->workload.batch, threads[1]);
        out += one && two ? fmt::format(" {:.2f} |", median(one->ours.seconds) / median(two->ours.seconds)) : " |";
      }
      double ours = 0, peers = 0, ours_first = 0, peers_first = 0;  // the worst of ours, the best of theirs
      for (const Cell& c : run.training) {
        if (c.workload.name != name) continue;
        ours = std::max(ours, median(c.ours.memory_mb));
        ours_first = std::max(ours_first, median(c.ours.first_step));
        for (const Measured& p : c.peers) {
          peers = peers == 0 ? median(p.memory_mb) : std::min(peers, median(p.memory_mb));
          peers_first = peers_first == 0 ? median(p.first_step) : std::min(peers_first, median(p.first_step));
        }
      }
      out += fmt::format(" {:.0f}, {:.0f} | {:.2f}, {:.2f} |", ours, peers, ours_first, peers_first);
      if (!run.learned.empty()) {
        const Learned* l = learned(run, name);
        out +=
            l ? fmt::format(" {:.4f}, {:.4f}{} |", median(l->ours), median(l->peer), l->equal() ? "" : " (not equal)")
              : " |";
      }
      out += "\n";
    }
  }
  if (!run.inference.empty()) {
    out += fmt::format(
        "\nInference: samples per second.\n\n| workload | batch | threads | {} | {} | ratio "
        "|\n|---|---|---|---|---|---|\n",
        our_name(run), peer_name(run));
    for (const Cell& c : run.inference)
      out += fmt::format("| {} | {} | {} | {:.0f} | {:.0f}{} | **{:.2f}** |\n", c.workload.name, c.workload.batch,
                         c.threads, rate(median(c.ours.seconds)), rate(median(best_peer(c).seconds)),
                         run.against_torch ? " " + best_peer(c).name : "", ratio(c).middle);
  }
  return out;
}

std::string chart(const Run& run) {
  constexpr int left = 110, width = 640, bar = 13, gap = 12, top = 46;
  constexpr const char* colors[] = {"#4477aa", "#88bbdd", "#cc8844", "#ddaa77"};
  const std::vector<int> threads = thread_counts(run.training);
  const std::vector<const Cell*> rows = first_of_each(run.training);
  double most = 1;
  const auto mark = [&](const Cell& c) { return run.against_torch ? least(c) : 0; };
  for (const Cell& c : run.training) most = std::max({most, ratio(c).middle, mark(c)});
  const double scale = (width - left - 60) / most;
  const int each = static_cast<int>(threads.size()) * bar + gap,
            height = top + static_cast<int>(rows.size()) * each + 30;
  const double one = left + scale;
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" "
      "font-size=\"11\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
      "<text x=\"{}\" y=\"16\" font-size=\"13\">Speed of training over {}</text>\n",
      width, height, 10,
      run.against_torch ? "LibTorch's at its best; | what it is held to" : "that of the other build");
  for (std::size_t t = 0; t < threads.size(); ++t)
    out += fmt::format(
        "<rect x=\"{0}\" y=\"25\" width=\"10\" height=\"10\" fill=\"{1}\"/><text x=\"{2}\" y=\"34\">{3}</text>\n",
        left + 90 * t, colors[t % std::size(colors)], left + 90 * t + 14, threads_text(threads[t]));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const int y = top + static_cast<int>(i) * each;
    out += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n", left - 8, y + (each - gap) / 2 + 4,
                       rows[i]->workload.name);
    for (std::size_t t = 0; t < threads.size(); ++t) {
      const Cell* c = find(run.training, rows[i]->workload.name, rows[i]->workload.batch, threads[t]);
      if (!c) continue;
      const double value = ratio(*c).middle;
      const int at = y + static_cast<int>(t) * bar;
      out += fmt::format(
          "<rect x=\"{}\" y=\"{}\" width=\"{:.1f}\" height=\"{}\" fill=\"{}\"/><text x=\"{:.1f}\" "
          "y=\"{}\">{:.2f}</text>{}\n",
          left, at, scale * value, bar - 2, colors[t % std::size(colors)], left + scale * std::max(value, mark(*c)) + 5,
          at + 10, value,
          run.against_torch ? fmt::format("<path d=\"M{:.1f} {}v{}\" stroke=\"black\" stroke-width=\"2\"/>",
                                          left + scale * least(*c), at - 1, bar)
                            : "");
    }
  }
  const std::string foot = fmt::format("{}, {}", run.date, run.processor);
  return out + fmt::format(
                   "<path d=\"M{0:.1f} {1}V{2}\" stroke=\"#888\" stroke-dasharray=\"3 3\"/><text x=\"{0:.1f}\" "
                   "y=\"{3}\" text-anchor=\"middle\">1</text>\n"
                   "<text x=\"{4}\" y=\"{3}\" text-anchor=\"end\" fill=\"#555\">{5}</text>\n</svg>\n",
                   one, top - 4, height - 24, height - 10, width - 10, foot);
}

nlohmann::ordered_json to_json(const Run& run) {
  using json = nlohmann::ordered_json;
  json out{{"date", run.date}, {"processor", run.processor}, {"ours", run.ours},
           {"peer", run.peer}, {"notes", run.notes},         {"samples_per_epoch", run.samples}};
  const auto measured = [](const Measured& m) {
    return json{{"name", m.name},
                {"median_seconds", median(m.seconds)},
                {"seconds", m.seconds},
                {"first_step_seconds", m.first_step},
                {"peak_memory_mb", m.memory_mb}};
  };
  const auto cells = [&](const std::vector<Cell>& all, bool training) {
    json list = json::array();
    for (const Cell& c : all) {
      const Range r = ratio(c);
      json cell{{"workload", c.workload.name},
                {"architecture", c.workload.architecture},
                {"optimizer", c.workload.optimizer},
                {"batch", c.workload.batch},
                {"threads", c.threads},
                {"ratio", r.middle},
                {"ratio_min", r.low},
                {"ratio_max", r.high}};
      if (training && run.against_torch)
        cell.update(json{{"held_to", least(c)}, {"aim", c.workload.aim}, {"reached", r.middle >= least(c)}});
      if (c.limit > 0) cell.update(json{{"limit_seconds", c.limit}, {"over_limit", median(c.ours.seconds) / c.limit}});
      cell["best_peer"] = best_peer(c).name;
      cell["ours"] = measured(c.ours);
      cell["peers"] = json::array();
      for (const Measured& p : c.peers) cell["peers"].push_back(measured(p));
      list.push_back(cell);
    }
    return list;
  };
  out["training"] = cells(run.training, true);
  out["inference"] = cells(run.inference, false);
  out["accuracy"] = json::array();
  for (const Learned& l : run.learned)
    out["accuracy"].push_back({{"workload", l.workload},
                               {"epochs", l.epochs},
                               {"ours", l.ours},
                               {"peer", l.peer},
                               {"our_loss", l.our_loss},
                               {"peer_loss", l.peer_loss},
                               {"equal", l.equal()}});
  return out;
}

}  // namespace bench

// mnist data: what goes into a training.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <map>

#include <ebb/models/data/mnist.h>
#include <ebb/models/data/preprocess.h>
#include <ebb/models/files/picture.h>
#include <ebb/ops/ops.h>

#include "command.h"
#include "json_text.h"

namespace mnist {
namespace {

using Json = nlohmann::ordered_json;

/// Mean of the pixels, and of their float32 quotients by 255 (times 1.0 / 255 would differ in the eighth digit).
std::pair<double, double> mean_pixel(const ebb::Tensor& image) {
  return {ebb::mean(ebb::cast(image, ebb::f64)).item(),
          ebb::mean(ebb::cast(ebb::cast(image, ebb::f32) / ebb::scalar(255), ebb::f64)).item()};
}

std::string row_text(const ebb::Tensor& row) {
  std::string out;
  for (const double v : row.to_vector()) out += fmt::format("{}{:.0f}.", out.empty() ? "[" : " ", v);
  return out + "]";
}

struct Shown {  // a digit, and where it is
  std::int64_t index, label;
  std::pair<double, double> mean;
  ebb::Tensor one_hot;
};

/// Counts of the digits: by digit, of each part.
struct Part {
  std::string name;
  ebb::Digits digits;
  std::map<std::int64_t, ebb::ValueCount> counts = {};
};

double imbalance(const std::vector<ebb::ValueCount>& counts) {
  return static_cast<double>(counts.front().count) / static_cast<double>(counts.back().count);
}

po::options_description digits_options() {
  return joined({app::option_group("Digits",
                                   {
                                       {"image", text("0"), "which digits to show, counted from 0, such as 0,7,12"},
                                       {"part", one_of("train", {"train", "test"}), "part that they are from: {}"},
                                       {"png", text(), "write a picture of them to this file"},
                                       {"colors", one_of("gray", {"gray", "binary"}),
                                        "colors of the picture: gray (0 is black) or binary (0 is white)"},
                                       {"zoom", number(8, 1, 100), "side of a pixel in the picture"},
                                   }),
                 data_options(), split_options(),
                 app::option_group("Output", {{"force", "overwrite a file that exists"},
                                              {"json", "print one JSON object instead of text"}})});
}

int run_data(Values& v) {
  const auto part = v["part"].as<std::string>(), colors = v["colors"].as<std::string>();
  const int zoom = v["zoom"].as<int>();
  const auto indices = numbers("image", v["image"].as<std::string>());
  if (indices.empty() || indices.size() > 1000) throw UsageError("--image takes 1 to 1000 numbers");
  const auto split = split_of(v);
  const std::string png = output_file(v, "png");
  use_threads(v);
  const ebb::Mnist original = load_data(v), all = split_data(original, v);
  const ebb::Digits table = original.all();
  const ebb::Digits& digits = part == "train" ? all.train : all.test;
  for (const std::int64_t i : indices)
    if (i < 0 || i >= digits.size())
      throw UsageError(fmt::format("--image must be 0 to {}, got {}", digits.size() - 1, i));

  std::vector<Part> parts{{"train", all.train}, {"test", all.test}, {"all", table}};
  for (Part& p : parts)
    for (const ebb::ValueCount& c : ebb::value_counts(p.digits.labels)) p.counts[c.value] = c;
  const auto order = ebb::value_counts(table.labels);
  const ebb::Digits chosen = digits.take(indices);
  const ebb::Tensor rows = ebb::to_categorical(chosen.labels, 10);
  std::vector<Shown> shown;
  for (std::size_t i = 0; i < indices.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i);
    shown.push_back({indices[i], static_cast<std::int64_t>(chosen.labels.rows(at, at + 1).item()),
                     mean_pixel(chosen.images.rows(at, at + 1)), rows.rows(at, at + 1)});
  }
  std::vector<std::int64_t> drawn;  // the first samples of the test part, as rows of the table of all
  if (split) {
    drawn = ebb::split_indices(table.labels, *split).test;
    drawn.resize(std::min<std::size_t>(drawn.size(), 5));
  }
  if (!png.empty())
    ebb::write_png(png, ebb::image_grid(chosen.images, 10),
                   {.colors = colors == "gray" ? ebb::ColorMap::gray : ebb::ColorMap::binary, .zoom = zoom});

  if (v.count("json")) {
    Json out{{"dataset", all.name}, {"source", all.source}};
    for (const Part& p : parts) {
      Json counts = Json::object(), shares = Json::object();
      for (const ebb::ValueCount& c : ebb::value_counts(p.digits.labels)) {
        counts[fmt::format("{}", c.value)] = c.count;
        shares[fmt::format("{}", c.value)] = c.share;
      }
      out[p.name] = {
          {"shape", std::vector<std::int64_t>(p.digits.images.shape().begin(), p.digits.images.shape().end())},
          {"dtype", ebb::name_of(p.digits.images.dtype())},
          {"counts", counts},
          {"shares", shares},
          {"largest_to_smallest", imbalance(ebb::value_counts(p.digits.labels))}};
    }
    for (const Shown& s : shown)
      out["images"].push_back({{"part", part},
                               {"index", s.index},
                               {"label", s.label},
                               {"one_hot", s.one_hot.to_vector()},
                               {"mean_pixel", s.mean.first},
                               {"mean_pixel_scaled", s.mean.second}});
    if (split)
      out["split"] = {{"test_size", split->test_size},
                      {"seed", split->seed},
                      {"stratify", split->stratify},
                      {"first_test_rows", drawn}};
    if (!png.empty()) out["png"] = png;
    app::print("{}\n", app::json_text(out));
    return ok;
  }
  app::print("{} ({})\n", all.name, all.source);
  for (const Part& p : parts)
    app::print("{:<6} images {}, labels {}\n", p.name, ebb::describe(p.digits.images), ebb::describe(p.digits.labels));
  if (split) app::print("test begins with rows {} of all, training before test\n", fmt::join(drawn, ", "));
  for (const Shown& s : shown)
    app::print("{} image {}: label {}, one-hot {}\n  mean pixel {:.6f}, divided by 255 {:.8f}\n", part, s.index,
               s.label, row_text(s.one_hot), s.mean.first, s.mean.second);
  app::print("\ndigit");
  for (const Part& p : parts) app::print("{:>9}{:>10}", p.name, "share");
  app::print("\n");
  for (const ebb::ValueCount& digit : order) {
    app::print("{:>5}", digit.value);
    for (Part& p : parts) app::print("{:>9}{:>10.6f}", p.counts[digit.value].count, p.counts[digit.value].share);
    app::print("\n");
  }
  app::print("largest to smallest class: {:.3f} in train, {:.3f} in test\n",
             imbalance(ebb::value_counts(all.train.labels)), imbalance(ebb::value_counts(all.test.labels)));
  if (!png.empty()) app::print("{}: {} digits\n", png, chosen.size());
  return ok;
}

}  // namespace

const app::Command data_command{
    .name = "data",
    .about = "show the data: shapes, counts of the digits, pictures",
    .arguments = "[OPTIONS]",
    .description =
        "Prints the shapes, the first digit and its one-hot row, and how often each digit\n"
        "occurs.\n",
    .examples =
        "  mnist data\n"
        "  mnist data --test-size 10000 --stratify     # how a split would look\n"
        "  mnist data --image 0,1,2,3 --png digits.png --colors binary\n",
    .options = digits_options,
    .run = run_data,
};

}  // namespace mnist

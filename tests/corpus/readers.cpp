// (over 400 lines because every reader has its rows of malformed files)
#include "readers.h"

#include <ebb/ebb.h>
#include <ebb/models/data/idx.h>
#include <ebb/models/files/byte_source.h>
#include <ebb/models/files/numpy.h>
#include <ebb/models/files/safetensors.h>
#include <ebb/models/layers/architecture.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "temp_dir.h"
#include "zip_file.h"
#ifdef EBB_PROGRAM
#include "program.h"
#endif

namespace corpus {
namespace {

using namespace std::string_literals;
using namespace ebb;
using fs_path = std::filesystem::path;

std::string contents(const fs_path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// What `write` writes into a file.
template <class F>
std::string written(const std::string& name, F write) {
  static const TempDir dir;
  write(dir / name);
  return contents(dir / name);
}

std::string bytes_of(const Tensor& t) {
  return describe(t) + std::string(reinterpret_cast<const char*>(t.raw()), t.bytes());
}
template <class Map>
std::string bytes_of_all(const Map& tensors) {
  std::string out;
  for (const auto& [name, t] : tensors) out += name + "\0"s + bytes_of(t);
  return out;
}

Tensor counted(const Shape& shape) {
  Tensor t = Tensor::empty(shape, u8);
  std::uint8_t next = 3;
  for (std::uint8_t& v : t.mutable_values<std::uint8_t>())
    v = static_cast<std::uint8_t>(next = static_cast<std::uint8_t>(next * 7 + 1));
  return t;
}

// ---- IDX and gzip ---------------------------------------------------------------------------------------------------

std::string idx_of(const Shape& shape, const char* name = "a") {
  return written(name, [&](const fs_path& p) { write_idx(p, counted(shape)); });
}
std::vector<std::string> idx_seeds() { return {idx_of({2, 3, 4}), idx_of({5}), idx_of({2, 2, 2, 3})}; }
std::vector<std::string> gzip_seeds() {
  const std::string first = idx_of({2, 3, 4}, "a.gz"), whole = idx_of({2, 3, 4});
  const auto member = [](std::string_view part) {
    return written("m.gz",
                   [&](const fs_path& p) { detail::write_by_name(p, std::array{std::as_bytes(std::span(part))}); });
  };
  return {first, member(std::string_view(whole).substr(0, 9)) + member(std::string_view(whole).substr(9))};
}
std::string read_idx_bytes(const fs_path& p) { return bytes_of(read_idx(p)); }
std::string rewrite_idx(const fs_path& p) {
  const Tensor t = read_idx(p);
  return written("again", [&](const fs_path& to) { write_idx(to, t); });
}
std::vector<std::string> idx_attacks() {
  std::vector<std::string> out{"",
                               "\0"s,
                               "\0\0\x08\0"s,
                               "\0\0\x08\5"s + std::string(20, '\0'),
                               "\0\0\x09\1\0\0\0\0"s,
                               "\0\0\x0d\1\0\0\0\1\0\0\0\0"s};
  for (const char axes : {'\1', '\2', '\3', '\4'})
    for (const std::string& size : {"\xff\xff\xff\xff"s, "\x7f\xff\xff\xff"s, "\0\1\0\0"s, "\0\0\0\2"s}) {
      std::string file = "\0\0\x08"s + axes;
      for (int i = 0; i < axes; ++i) file += size;
      out.push_back(file);
      out.push_back(file + "x");
    }
  return out;
}
std::vector<std::string> gzip_attacks() {
  const std::string good = gzip_seeds()[0];
  // inflates to 100 MB of zeros, with a header that claims as much, cut at the end
  std::string bomb = "\0\0\x08\1\6\0\0\0"s + std::string(100'663'296, '\0');
  const std::string packed = written("b.gz", [&](const fs_path& p) {
    detail::write_by_name(p, std::array{std::as_bytes(std::span(std::string_view(bomb)))});
  });
  return {good + "x",  good + "\x1f", good + "\x1f\x8b", good + good, "\x1f\x8b", packed.substr(0, packed.size() - 1),
          packed + "x"};
}

// ---- tables ---------------------------------------------------------------------------------------------------------

Digits some_digits() {
  Digits d{counted({2, 28, 28}), Tensor::from(std::vector<std::uint8_t>{3, 9}, {2})};
  return d;
}
std::string csv_text() {
  return written("a.csv", [](const fs_path& p) { save_digits_csv(p, some_digits()); });
}
std::vector<std::string> csv_seeds() {
  std::string quoted = csv_text();
  quoted.replace(0, 5, "\"the \"\"label\"\"\"");
  return {csv_text(), quoted};
}
std::string bytes_of(const Digits& d) { return bytes_of(d.images) + bytes_of(d.labels); }
std::string read_csv(const fs_path& p) { return bytes_of(load_digits_csv(p)); }
std::vector<std::string> zip_seeds() {
  return {zipped(csv_text()), zipped(csv_text(), {.stored = true, .descriptor = true})};
}
std::vector<std::string> csv_attacks() {
  const std::string good = csv_text(), head = good.substr(0, good.find('\n') + 1);
  return {"",
          "\n",
          "\"",
          head,
          head + "3",
          head + "3,",
          head + std::string(784, ','),
          head + "\"" + std::string(200'000, 'x'),
          head + std::string(300'000, '7'),
          std::string(300'000, ','),
          std::string(300'000, '"'),
          std::string(1000, '\n'),
          good + "\n\n3"};
}
std::vector<std::string> history_seeds() {
  return {"epoch,loss,val_loss\n0,0.5,NA\n1,0.25,0.125\n", "epoch,accuracy\r\n0,1e-3\r\n"};
}
std::string read_history(const fs_path& p) {
  const History h = load_history_csv(p);
  std::string out = std::to_string(h.epochs());
  for (const auto& [key, values] : h.values) {
    out += "\n" + key;
    for (const double v : values) out += " " + std::to_string(v);
  }
  return out;
}
std::vector<std::string> history_attacks() {
  return {"",
          "epoch",
          "epoch\n",
          "loss,epoch\n",
          "epoch,loss,loss\n0,1,1\n",
          "epoch,loss\n0\n",
          "epoch,loss\n0,1,2\n",
          "epoch,loss\n0,x\n",
          "epoch,loss\n0,\n",
          "epoch,loss\n0,1e999\n",
          "epoch," + std::string(100'000, ',') + "\n"};
}

// ---- NumPy ----------------------------------------------------------------------------------------------------------

std::vector<std::string> npy_seeds() {
  std::vector<std::string> out;
  for (const Tensor& t : {tensor({1, -2.5, 3, 4, 5, 6}, {2, 3}), tensor({1, 2}, i64), counted({3}), scalar(7.0)})
    out.push_back(written("a.npy", [&](const fs_path& p) { write_npy(p, t); }));
  return out;
}
std::string read_npy_bytes(const fs_path& p) { return bytes_of(read_npy(p)); }
std::string rewrite_npy(const fs_path& p) {
  const Tensor t = read_npy(p);
  return written("again.npy", [&](const fs_path& to) { write_npy(to, t); });
}
std::vector<std::string> npy_attacks() {
  const auto npy = [](const std::string& header, std::string_view data = "") {
    return "\x93NUMPY\2\0"s + little(static_cast<std::uint32_t>(header.size()), 4) + header + std::string(data);
  };
  std::vector<std::string> out{npy(""),
                               npy("{"),
                               npy("{}"),
                               npy(std::string(60'000, '(')),
                               npy(std::string(60'000, '{')),
                               npy("'" + std::string(60'000, 'x')),
                               "\x93NUMPY\2\0\xff\xff\xff\xff"s,
                               "\x93NUMPY\3\0\0\0\1\0"s};
  for (const std::string shape : {"(9223372036854775807,)", "(9223372036854775808,)", "(-1,)",
                                  "(4294967296, 4294967296)", "(0, 9223372036854775807)", "(1e3,)", "(1.0,)", "(True,)",
                                  "(1, 1, 1, 1, 1, 1, 1, 1, 1)", "(1000000000000,)", "()", "1", "(((", "None"})
    for (const std::string type : {"<f4", ">f8", "<u8", "|O", "|S9", "<M8[ns]", "<c16", "<f16", "", "<"})
      if (!(shape == "()" && type.size() == 3))
        out.push_back(npy("{'descr': '" + type + "', 'fortran_order': False, 'shape': " + shape + ", }\n"));
  return out;
}
std::vector<std::string> npz_seeds() {
  return {written("a.npz",
                  [](const fs_path& p) {
                    write_npz(p, {{"a", tensor({1, 2, 3})}, {"b", counted({2, 2})}});
                  }),
          zipped(npy_seeds()[0], {.name = "x.npy"}), zipped(npy_seeds()[1], {.name = "x.npy", .descriptor = true})};
}
std::string read_npz_bytes(const fs_path& p) { return bytes_of_all(read_npz(p)); }
std::vector<std::string> zip_attacks() {
  const std::string good = zipped("text");
  const std::size_t central = good.find("PK\1\2"), end = good.find("PK\5\6");
  std::vector<std::string> out{"PK\3\4", "PK\5\6", good.substr(0, central), good + good, good + "x", "x" + good};
  for (const auto& [begin, length] : {std::pair<std::size_t, std::size_t>{0, 30}, {central, 46}, {end, 22}})
    for (std::size_t i = begin; i < begin + length; i += 2) {
      std::string bad = good;
      bad.replace(i, 2, "\xff\xff");
      if (i != begin + 10 && i != begin + 12 && i != begin + 4 && i != begin + 14 && i != begin + 36 &&
          i != begin + 38 && i != begin + 40)
        out.push_back(bad);  // times and systems mean nothing
    }
  return out;
}

// ---- safetensors and models -----------------------------------------------------------------------------------------

std::string safetensors_of(const SafeTensors& s) {
  return written("a.safetensors", [&](const fs_path& p) { write_safetensors(p, s); });
}
std::vector<std::string> safetensors_seeds() {
  return {
      safetensors_of({.metadata = {{"format", "pt"}},
                      .tensors = {{"a", tensor({1, 2}, f64)}, {"b", tensor({1, 2, 3}, {3, 1})}, {"c", counted({3})}}}),
      safetensors_of({.metadata = {}, .tensors = {{"a", tensor({1, 2}, i64)}}}), safetensors_of({})};
}
std::string read_safetensors_bytes(const fs_path& p) {
  const SafeTensors s = read_safetensors(p);
  std::string out = bytes_of_all(s.tensors);
  for (const auto& [key, text] : s.metadata) out += key + "\0"s + text + "\0"s;
  return out;
}
std::string rewrite_safetensors(const fs_path& p) { return safetensors_of(read_safetensors(p)); }
std::vector<std::string> safetensors_attacks() {
  const auto file = [](const std::string& header, std::string_view data = "") {
    return little(static_cast<std::uint32_t>(header.size()), 4) + little(0, 4) + header + std::string(data);
  };
  std::string deep, keys = "{", texts = "{\"__metadata__\":{";
  for (int i = 0; i < 50'000; ++i) deep += "{\"a\":";
  for (int i = 0; i < 60'000; ++i)
    keys += "\"" + std::to_string(i) + "\":{},", texts += "\"" + std::to_string(i) + "\":\"\",";
  std::vector<std::string> out{file(""),
                               file("{"),
                               file("[]"),
                               file("{}x"),
                               file(deep),
                               file("{\"a\":" + std::string(100'000, '[')),
                               file(keys + "}"),
                               file(texts + "}}"),
                               std::string(8, '\xff'),
                               "\0\xe1\xf5\5\0\0\0\0{}"s,
                               file(std::string(3'000'000, ' ')),
                               file("{\"" + std::string(5'000'000, 'x') + "\"}")};
  for (const std::string type : {"F32", "U64", "BOOL", "F4", "X", ""})
    for (const std::string shape : {"[18446744073709551615]", "[9223372036854775807,2]", "[4294967296,4294967296]",
                                    "[-1]", "[1.0]", "[1e3]", "[null]", "[[1]]", "{}", "[1,1,1,1,1,1,1,1,1]"})
      for (const std::string offsets : {"[0,4]", "[0,18446744073709551615]", "[4,0]", "[0]", "[0,4,8]", "[-4,0]"})
        out.push_back(
            file("{\"a\":{\"dtype\":\"" + type + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}",
                 "\1\2\3\4"));
  return out;
}

constexpr const char* model_text = "dense 2 relu, batchnorm, dense 2";
std::vector<std::string> model_seeds() {
  manual_seed(1);
  Sequential net({3}, parse_architecture(model_text));
  Adam adam;
  FitOptions o;
  o.epochs = 1;
  o.batch = 2;
  o.verbose = Verbose::silent;
  const Dataset data{randn({4, 3}), Tensor::from(std::vector<std::int64_t>{0, 1, 0, 1}, {4})};
  const History h = fit(net, adam, data, o);
  return {written("m",
                  [&](const fs_path& p) {
                    save_model(net, model_text, p, {{"scale", "1"}}, {.optimizer = &adam, .history = &h});
                  }),
          written("m", [&](const fs_path& p) { save_model(net, model_text, p); })};
}
std::string read_model(const fs_path& p) {
  SavedModel m = load_model(p);
  std::string out = m.architecture;
  for (const NamedTensor& t : named_tensors(m.net)) out += t.path + "\0"s + bytes_of(*t.tensor);
  if (m.optimizer) {
    out += m.optimizer->name();
    for (const auto& [key, v] : m.optimizer->options()) out += key + std::to_string(v);
    for (const NamedTensor& t : named_parameters(m.net))
      for (const Tensor& s : m.optimizer->state(*t.tensor)) out += bytes_of(s);
  }
  if (m.history)
    for (const auto& [key, values] : m.history->values) {
      out += key;
      for (const double v : values) out += std::to_string(v) + " ";
    }
  return out;
}
/// The model with other metadata.
std::string model_with(const std::string& architecture, const std::string& input,
                       const std::map<std::string, std::string>& more = {}) {
  SafeTensors s{.metadata = {{"ebb.architecture", architecture}, {"ebb.input_shape", input}},
                .tensors = {{"layers.0.weight", tensor({1, 2}, {1, 2})}, {"layers.0.bias", tensor({1, 2})}}};
  for (const auto& [key, text] : more) s.metadata[key] = text;
  return safetensors_of(s);
}
std::vector<std::string> model_attacks() {
  std::vector<std::string> out{model_with("dense 30000, dense 30000", "30000"),
                               model_with("dense 2", "65536,65536,65536,65536"),
                               model_with("dense 2", "2"),
                               model_with("", "1"),
                               model_with("dense 2", ""),
                               model_with("deconv 1 1 stride 1000000", "28,28,1"),
                               model_with("embedding 1000000 1000000", "1"),
                               model_with("reshape 65536 65536, position", "65536,65536"),
                               model_with("flatten, batchnorm noscale nocenter", "65536,65536"),
                               model_with("rnn 1000000", "4,4"),
                               model_with("gru 100000", "4,4"),
                               model_with("standardize", "65536,65536"),
                               model_with("attention 1 causal", "65536,4")};
  std::string deep, many = "relu";
  for (int i = 0; i < 20'000; ++i) deep += "residual (", many += ",relu";
  out.push_back(model_with(deep, "1"));
  out.push_back(model_with(many, "1"));
  for (const std::string& json : {""s, "{"s, "[]"s, "null"s, "1"s, "{}"s, std::string(100'000, '['), R"({"name":1})"s,
                                  R"({"name":"adam","options":{},"steps":1.5,"groups":[]})"s,
                                  R"({"name":"adam","options":{},"steps":-1,"groups":[]})"s,
                                  R"({"name":"adam","options":{},"steps":1e300,"groups":[]})"s,
                                  R"({"name":"adam","options":{"lr":"x"},"steps":1,"groups":[]})"s,
                                  R"({"name":"adam","options":{},"steps":1,"groups":{}})"s,
                                  R"({"name":"none","options":{},"steps":1,"groups":[]})"s})
    out.push_back(model_with("dense 2", "1", {{"ebb.optimizer", json}}));
  for (
      const std::string& json :
      {""s, "{"s, "[]"s, "{}"s, std::string(100'000, '['),
       R"({"values":{"loss":[]},"seconds":[1,1,1],"interrupted":false,"partial":{"batches":0,"loss":0,"correct":0,"seen":0}})"s,
       R"({"values":{"loss":[1]},"seconds":[1],"interrupted":false,"partial":{"batches":0,"loss":0,"correct":0,"seen":-5}})"s,
       R"({"values":{"loss":[1]},"seconds":[1],"interrupted":false,"partial":{"batches":1.5,"loss":0,"correct":0,"seen":0}})"s,
       R"({"values":{"loss":[1]},"seconds":[1],"interrupted":false,"partial":{"batches":1e300,"loss":0,"correct":0,"seen":0}})"s,
       R"({"values":{"loss":["1x"]},"seconds":[1],"interrupted":false,"partial":{"batches":0,"loss":0,"correct":0,"seen":0}})"s,
       R"({"values":{"loss":[1]},"seconds":[-1],"interrupted":false,"partial":{"batches":0,"loss":0,"correct":0,"seen":0}})"s,
       R"({"values":{"loss":1},"seconds":[1],"interrupted":false,"partial":{"batches":0,"loss":0,"correct":0,"seen":0}})"s,
       R"({"values":{"loss":[1]},"seconds":[1],"interrupted":1,"partial":{"batches":0,"loss":0,"correct":0,"seen":0}})"s})
    out.push_back(model_with("dense 2", "1", {{"ebb.history", json}}));
  return out;
}

// ---- texts ----------------------------------------------------------------------------------------------------------

std::vector<std::string> architecture_seeds() {
  return {"conv 32 3x2 stride 2 same relu, pool 2, flatten, dense 10 nobias softmax",
          "residual (conv 8 3 same relu, batchnorm momentum 0.9 | conv 8 1), concat (conv 8 1 | pool 3 stride 1 same), "
          "globalavgpool",
          "reshape 28 28, position, attention 4 key_dim 8 causal, layernorm, gru 8 sequences, dropout 0.25, linear",
          "standardize, embedding 10 4, spatialdropout 0.5, groupnorm 2, deconv 3 2, depthwise 3 multiplier 2"};
}
std::string read_architecture(const fs_path& p) {
  const std::string once = describe_architecture(parse_architecture(contents(p)));
  if (describe_architecture(parse_architecture(once)) != once)
    throw std::logic_error("a description that is read as another: " + once);
  return once;
}
std::vector<std::string> architecture_attacks() {
  std::string deep, many, branches = "concat (relu", sizes = "reshape";
  for (int i = 0; i < 100'000; ++i) deep += "residual (", many += "relu,", branches += "|relu", sizes += " 1";
  return {"",
          ",",
          "(",
          ")",
          "|",
          "relu,",
          deep,
          many + "relu",
          branches + ")",
          sizes,
          std::string(2'000'000, 'x'),
          "dense 0",
          "dense 1000001",
          "dense 99999999999999999999",
          "dense -1",
          "dense 1.5",
          "dense nan",
          "dropout nan",
          "dropout inf",
          "dropout 1",
          "dropout -0.1",
          "conv 1 0",
          "conv 1 1x",
          "conv 1 x1",
          "conv 1 1x1x1",
          "dense 1\n2",
          "d\0nse"s,
          "dense \xff"};
}
std::vector<std::string> architecture_json_seeds() {
  return {
      R"([{"layer": "conv", "filters": 32, "kernel": [3, 2], "padding": "same", "bias": false, "activation": "relu"}, {"layer": "flatten"}, {"layer": "dense", "units": 10}])",
      R"([{"layer": "residual", "layers": [{"layer": "batchnorm", "momentum": 0.5}], "shortcut": [{"layer": "linear"}]}, {"layer": "concat", "branches": [[{"layer": "relu"}], [{"layer": "dropout", "rate": 0.5}]]}])",
      R"([{"layer": "reshape", "sizes": [2, 2]}])"};
}
std::string read_architecture_json(const fs_path& p) {
  return describe_architecture(parse_architecture_json(contents(p)));
}
std::vector<std::string> architecture_json_attacks() {
  std::string keys, deep, many;
  for (int i = 0; i < 60'000; ++i) keys += "\"" + std::to_string(i) + "\": 1, ";
  for (int i = 0; i < 30'000; ++i) deep += R"([{"layer": "residual", "layers": )", many += R"({"layer": "relu"},)";
  std::vector<std::string> out{"",
                               "[",
                               "[]",
                               "{}",
                               "null",
                               "1",
                               "[1]",
                               "[{}]",
                               R"(["relu"])",
                               "[{" + keys + R"("layer": "relu"}])",
                               deep,
                               "[" + many + R"({"layer": "relu"}])",
                               std::string(100'000, '['),
                               std::string(2'000'000, ' '),
                               R"([{"layer": "dense", "units": 1, "units": 1}])",
                               R"([{"layer": "dense", "units": 1e300}])",
                               R"([{"layer": "dense", "units": -1}])",
                               R"([{"layer": "dense", "units": 18446744073709551615}])",
                               R"([{"layer": "dropout", "rate": null}])",
                               "[{\"layer\": \"\xff\"}]",
                               R"([{"layer": "reshape", "sizes": [)" + std::string(100'000, '1') + "]}]"};
  for (const char* bad : {"1.5", "\"1\"", "null", "true", "[]", "[1]", "[1,2,3]", "{}", "0", "1000001"})
    out.push_back(std::string(R"([{"layer": "pool", "size": )") + bad + "}]");
  return out;
}

#ifdef EBB_PROGRAM
/// Arguments, one a line.
std::string read_arguments(const fs_path& p) try {
  const std::vector<std::string> args = app::words(contents(p), '\n');
  const auto options = [] {
    return app::option_group("Options", {{"epochs", app::number(0, 1'000'000), "passes"},
                                         {"lr", app::number(0.0, 1e6), "rate"},
                                         {"layers", app::text(), "widths"},
                                         {"quiet", "no progress"}});
  };
  const app::Command test{"test", "read arguments", "", "", "", options, nullptr, 2};
  const app::Values v = app::parse(test, args);
  std::string out;
  for (const auto& [name, value] : v) out += name + " ";
  if (v.count("layers"))
    for (const std::int64_t n : app::numbers("layers", v["layers"].as<std::string>())) out += std::to_string(n) + " ";
  return out;
} catch (const app::UsageError& e) {
  throw ValueError(e.what());
}
std::vector<std::string> argument_seeds() { return {"--epochs\n3\n--lr=0.5\nfile", "--layers\n512,64\n--quiet\na\nb"}; }
std::vector<std::string> argument_attacks() {
  return {"--epochs",
          "--epochs\nx",
          "--epochs=99999999999",
          "--epochs=1.5",
          "--epochs=",
          "--lr=x",
          "--layers=1,,2",
          "--layers=,",
          "--layers=99999999999999999999",
          "--layers=1;2",
          "--quiet=1",
          "--nothing",
          "-z",
          "a\nb\nc",
          "--epochs=1\n--epochs=2",
          "--" + std::string(100'000, 'x'),
          "--layers=" + std::string(100'000, 'x'),
          "--epochs=\x01\x02"};
}
#endif

constexpr Reader all[] = {
    {.name = "idx", .seeds = idx_seeds, .read = read_idx_bytes, .rewrite = rewrite_idx, .attacks = idx_attacks},
    {.name = "gzip", .seeds = gzip_seeds, .read = read_idx_bytes, .checksum = true, .attacks = gzip_attacks},
    {.name = "csv", .seeds = csv_seeds, .read = read_csv, .cut_shows = false, .attacks = csv_attacks},
    {.name = "zip", .seeds = zip_seeds, .read = read_csv, .checksum = true, .attacks = zip_attacks},
    {.name = "history", .seeds = history_seeds, .read = read_history, .cut_shows = false, .attacks = history_attacks},
    {.name = "npy",
     .seeds = npy_seeds,
     .read = read_npy_bytes,
     .rewrite = rewrite_npy,
     .type_field = "'descr': '",
     .attacks = npy_attacks},
    {.name = "npz", .seeds = npz_seeds, .read = read_npz_bytes, .checksum = true, .attacks = zip_attacks},
    {.name = "safetensors",
     .seeds = safetensors_seeds,
     .read = read_safetensors_bytes,
     .rewrite = rewrite_safetensors,
     .type_field = "\"dtype\":\"",
     .attacks = safetensors_attacks},
    {.name = "model", .seeds = model_seeds, .read = read_model, .attacks = model_attacks},
    {.name = "architecture",
     .seeds = architecture_seeds,
     .read = read_architecture,
     .text = true,
     .cut_shows = false,
     .attacks = architecture_attacks},
    {.name = "architecture_json",
     .seeds = architecture_json_seeds,
     .read = read_architecture_json,
     .text = true,
     .attacks = architecture_json_attacks},
#ifdef EBB_PROGRAM
    {.name = "arguments",
     .seeds = argument_seeds,
     .read = read_arguments,
     .text = true,
     .cut_shows = false,
     .attacks = argument_attacks},
#endif
};

}  // namespace

MemoryFile::MemoryFile() : fd_(::memfd_create("corpus", MFD_CLOEXEC)) {
  if (fd_ < 0) throw std::runtime_error("memfd_create");
  path_ = "/proc/self/fd/" + std::to_string(fd_);
}
MemoryFile::~MemoryFile() { ::close(fd_); }
void MemoryFile::set(std::string_view bytes) {
  if (::ftruncate(fd_, 0) != 0 || ::pwrite(fd_, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    throw std::runtime_error("memfd");
}

std::span<const Reader> readers() { return all; }

const Reader* reader(std::string_view name) {
  const auto found = std::ranges::find(readers(), name, &Reader::name);
  return found == readers().end() ? nullptr : &*found;
}

}  // namespace corpus
